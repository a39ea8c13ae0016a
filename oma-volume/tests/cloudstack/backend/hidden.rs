//! What these keys are not shown, and machines that are not the one they are taken for (L05, L21).

use oma_core::conformance::{self, Trial};
use oma_core::traits::{Access, VolumeBackend};
use oma_core::{ByteSize, Error, ErrorKind, Result, Retry, VolumeId};
use oma_volume::cloudstack::{Account, CloudStackBackend};
use uuid::Uuid;

use super::{ACCOUNTS, Bench, connect};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("cloudstack::l21_what_another_account_has_is_not_gone", &[], another_account),
        conformance::trial("cloudstack::l21_what_a_project_has_is_not_gone", &[], project),
        conformance::trial("cloudstack::l21_keys_that_see_nothing_know_nothing", &[], blind),
        conformance::trial("cloudstack::l21_another_cloud_knows_nothing_and_deletes_nothing", &[], elsewhere),
        conformance::trial("cloudstack::l05_a_clone_of_the_appliance_takes_nothing_away", &[], cloned),
    ]
}

fn uuid(id: &VolumeId) -> Uuid {
    id.as_str().parse().unwrap()
}

async fn another_account() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.created().await;
    bench.fake.give_away(uuid(&volume.id));
    let asked = [
        bench.backend.get(&volume.id).await.map(drop),
        bench.backend.content_stamp(&volume.id).await.map(drop),
        bench.backend.delete(&volume.id, &tag).await,
    ];
    all_conflict(asked, "another account");
    assert!(bench.fake.volume(uuid(&volume.id)).is_some());
}

async fn project() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let spec = bench.spec();
        let volume = bench.backend.create(&spec).await.unwrap();
        bench.fake.move_to_project(uuid(&volume.id));
        let asked = [
            bench.backend.get(&volume.id).await.map(drop),
            bench.backend.attach(&volume.id, &spec.tag).await.map(drop),
            bench.backend.delete(&volume.id, &spec.tag).await,
        ];
        all_conflict(asked, "in a project");
        assert!(bench.fake.volume(uuid(&volume.id)).is_some());
    }
}

fn all_conflict(asked: [Result<()>; 3], why: &str) {
    for error in asked.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        assert!(error.chain().contains(why), "{}", error.chain());
    }
}

/// Of a removed volume nothing is shown either: only keys that see the appliance can tell.
async fn blind() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.created().await;
    bench.backend.delete(&volume.id, &tag).await.unwrap();
    let others = bench.fake.machine_of("db01").to_string();
    let blind = connect(&bench.fake, Account::Ordinary, |config| config.appliance_vm_id = others);
    let error = blind.get(&volume.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert_eq!(bench.backend.get(&volume.id).await.unwrap(), None);
}

/// The endpoint leads to another cloud, in which no id of ours ever was.
async fn elsewhere() {
    for account in ACCOUNTS {
        let (bench, other) = (Bench::new(account).await, Bench::new(account).await);
        let spec = bench.spec();
        let volume = bench.backend.create(&spec).await.unwrap();
        let misled = connect(&other.fake, account, |config| {
            config.appliance_vm_id = bench.fake.appliance.to_string();
            config.device_root.clone_from(&bench.fake.devices);
        });
        let error = misled.delete(&volume.id, &spec.tag).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        assert!(error.chain().contains("appliance_vm_id"), "{}", error.chain());
        let error = misled.get(&volume.id).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unavailable, Retry::Later),
            "{}",
            error.chain()
        );
    }
}

/// The same configuration on another machine, while the first one writes.
async fn cloned() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    let writer = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    let (_, root) = bench.fake.add_appliance("clone");
    let clone = connect(&bench.fake, Account::Ordinary, |config| config.device_root = root);
    bench.fake.take_calls();
    for error in changes(&clone, &volume.id, &tag).await {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        assert!(error.chain().contains("appliance_vm_id"), "it says what to do: {}", error.chain());
    }
    for command in ["attachVolume", "detachVolume", "deleteVolume", "resizeVolume"] {
        assert_eq!(bench.fake.calls(command), 0, "{command}");
    }
    drop(writer);
    bench.backend.detach(&volume.id, &tag).await.unwrap();
    changes(&clone, &volume.id, &tag).await;
    assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1, "it was not attached");
}

async fn changes(
    backend: &CloudStackBackend,
    id: &VolumeId,
    tag: &oma_core::record::VolumeTag,
) -> [Error; 4] {
    [
        backend.attach(id, tag).await.unwrap_err(),
        backend.resize(id, tag, ByteSize::gib(2)).await.unwrap_err(),
        backend.detach(id, tag).await.unwrap_err(),
        backend.delete(id, tag).await.unwrap_err(),
    ]
}
