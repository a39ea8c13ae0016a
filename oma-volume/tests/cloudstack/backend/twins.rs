//! Two volumes whose ids begin alike have one serial: nobody can tell whose disk is whose (L05).

use futures_util::TryStreamExt;
use oma_core::conformance::{self, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Volume, VolumeBackend};
use oma_core::{ByteSize, Error, ErrorKind, VolumeId};
use oma_volume::cloudstack::{Account, Check, Verdict};
use uuid::Uuid;

use super::super::fake::{What, Wrong};
use super::{ACCOUNTS, Bench};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("cloudstack::l05_two_volumes_of_one_serial_are_never_confused", &[], both),
        conformance::trial("cloudstack::l05_the_disk_of_a_twin_is_not_taken_for_a_missing_one", &[], missing),
        conformance::trial("cloudstack::a_twin_that_is_not_here_is_in_nobodys_way", &[], away),
        conformance::trial("cloudstack::twins_are_told_by_preflight", &[], preflight),
        conformance::trial("cloudstack::to_look_for_twins_costs_few_requests", &[], requests),
    ]
}

fn uuid(id: &VolumeId) -> Uuid {
    id.as_str().parse().unwrap()
}

fn attach(bench: &Bench, id: Uuid) {
    let (id, at) = (id.to_string(), bench.fake.appliance.to_string());
    bench.fake.operate("attachVolume", &[("id", &id), ("virtualmachineid", &at)]).unwrap();
}

fn detach(bench: &Bench, id: Uuid) {
    bench.fake.operate("detachVolume", &[("id", &id.to_string())]).unwrap();
}

async fn both() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let (ours, tag) = bench.attached().await;
        let twin = bench.fake.add_twin(uuid(&ours.id));
        attach(&bench, twin);
        all_refused(&bench, &ours, &tag, twin).await;
        // The other one alone: its disk is in the way of ours.
        detach(&bench, uuid(&ours.id));
        let error = bench.backend.attach(&ours.id, &tag).await.unwrap_err();
        names(&error, twin);
        assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 2, "it was not attached");
        detach(&bench, twin);
        bench.backend.attach(&ours.id, &tag).await.unwrap();
        bench.backend.open(&ours.id, &tag, Access::ReadWrite).await.unwrap();
    }
}

/// The cloud says that both are here, and only the other one's disk is: it has the right serial and the right size.
async fn missing() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let (ours, tag) = bench.created().await;
        let twin = bench.fake.add_twin(uuid(&ours.id));
        bench.fake.fault("attachVolume", 0, 1, What::Device(Wrong::Missing));
        attach(&bench, uuid(&ours.id));
        attach(&bench, twin);
        assert_eq!(bench.fake.device(uuid(&ours.id)), None);
        all_refused(&bench, &ours, &tag, twin).await;
        assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 3, "nothing was taken away");
        // The twin came while ours was attached, and ours has no disk.
        detach(&bench, twin);
        detach(&bench, uuid(&ours.id));
        bench.fake.fault("attachVolume", 0, 1, What::Device(Wrong::Missing));
        bench.backend.attach(&ours.id, &tag).await.unwrap_err();
        attach(&bench, twin);
        all_refused(&bench, &ours, &tag, twin).await;
    }
}

/// Whatever is asked of a volume whose twin is attached beside it.
async fn all_refused(bench: &Bench, ours: &Volume, tag: &VolumeTag, twin: Uuid) {
    let (backend, id) = (&bench.backend, &ours.id);
    bench.fake.take_calls();
    let listed: Result<Vec<_>, _> = backend.list(&bench.instance).try_collect().await;
    for error in [
        backend.open(id, tag, Access::ReadWrite).await.map(drop).unwrap_err(),
        backend.open(id, tag, Access::ReadOnly).await.map(drop).unwrap_err(),
        backend.get(id).await.unwrap_err(),
        listed.unwrap_err(),
        backend.attach(id, tag).await.unwrap_err(),
        backend.detach(id, tag).await.unwrap_err(),
        backend.resize(id, tag, ByteSize::gib(2)).await.unwrap_err(),
        backend.delete(id, tag).await.unwrap_err(),
    ] {
        names(&error, twin);
    }
    for command in ["attachVolume", "detachVolume", "resizeVolume", "deleteVolume"] {
        assert_eq!(bench.fake.calls(command), 0, "{command}");
    }
}

fn names(error: &Error, twin: Uuid) {
    let text = error.chain();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{text}");
    assert!(text.contains(&twin.to_string()) && text.contains("told apart"), "{text}");
}

/// One that waits, or is attached to another machine, has no disk here.
async fn away() {
    for is_elsewhere in [false, true] {
        let bench = Bench::new(Account::Ordinary).await;
        let (ours, tag) = bench.created().await;
        let twin = bench.fake.add_twin(uuid(&ours.id));
        if is_elsewhere {
            let machine = bench.fake.machine_of("web01").to_string();
            let pairs = [("id", twin.to_string()), ("virtualmachineid", machine)];
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            bench.fake.operate("attachVolume", &pairs).unwrap();
        }
        bench.backend.attach(&ours.id, &tag).await.unwrap();
        bench.backend.open(&ours.id, &tag, Access::ReadWrite).await.unwrap();
        bench.backend.resize(&ours.id, &tag, ByteSize::gib(2)).await.unwrap();
        bench.backend.delete(&ours.id, &tag).await.unwrap();
        let left: Vec<_> = bench.fake.data_volumes().iter().map(|volume| volume.id).collect();
        assert_eq!(left, [twin]);
    }
}

async fn preflight() {
    let bench = Bench::new(Account::Ordinary).await;
    let (ours, _) = bench.attached().await;
    let twin = bench.fake.add_twin(uuid(&ours.id));
    attach(&bench, twin);
    let report = bench.backend.preflight().await.unwrap();
    let this = report.findings.iter().find(|finding| finding.check == Check::ThisMachine).unwrap();
    assert_eq!(this.verdict, Verdict::Failed, "{this}");
    assert!(this.text.contains(&twin.to_string()) && this.text.contains(ours.id.as_str()), "{this}");
}

async fn requests() {
    let bench = Bench::new(Account::Ordinary).await;
    let (away, tag) = bench.created().await;
    bench.fake.take_calls();
    bench.backend.get(&away.id).await.unwrap();
    assert_eq!(bench.fake.take_calls(), 1, "look");
    bench.backend.attach(&away.id, &tag).await.unwrap();
    bench.fake.take_calls();
    bench.backend.open(&away.id, &tag, Access::ReadWrite).await.unwrap();
    assert_eq!(bench.fake.take_calls(), 1, "what is here");
    bench.backend.get(&away.id).await.unwrap();
    assert_eq!(bench.fake.take_calls(), 2, "look, what is here");
    for _ in 0..3 {
        bench.attached().await;
    }
    bench.fake.take_calls();
    let listed: Vec<_> = bench.backend.list(&bench.instance).try_collect().await.unwrap();
    assert_eq!((listed.len(), bench.fake.take_calls()), (4, 2), "what is ours, what is here");
}
