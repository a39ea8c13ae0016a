//! Detaches that outlive the process that asked for them: none takes a volume from whoever has it by then (L15, L19).

use std::sync::Arc;
use std::time::Duration;

use oma_core::conformance::{self, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Volume, VolumeBackend};
use oma_core::{ByteSize, ErrorKind, Retry};
use oma_volume::cloudstack::{Account, CloudStackBackend};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::fake::What;
use super::{ACCOUNTS, Bench, connect};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("cloudstack::l15_a_detach_of_a_killed_process_is_not_doubled", &[], not_doubled),
        conformance::trial("cloudstack::l15_an_attach_waits_for_a_detach_of_a_killed_process", &[], attached),
        conformance::trial("cloudstack::what_is_being_detached_is_not_opened", &[], opened),
        conformance::trial("cloudstack::l19_a_detach_that_arrives_late_hits_no_later_attachment", &[], late),
        conformance::trial("cloudstack::l19_a_detach_is_good_for_two_minutes", &[], expired),
        conformance::trial(
            "cloudstack::l02_what_was_given_away_before_a_detach_is_sent_again_is_kept",
            &[],
            given,
        ),
        conformance::trial(
            "cloudstack::l02_what_was_marked_anew_before_a_delete_is_sent_again_is_kept",
            &[],
            remarked,
        ),
        conformance::trial(
            "cloudstack::what_was_given_away_before_a_resize_is_sent_again_keeps_its_size",
            &[],
            not_grown,
        ),
        conformance::trial("cloudstack::a_guest_that_holds_on_to_a_disk_is_asked_again", &[], again),
        conformance::trial("cloudstack::to_ask_again_and_again_costs_no_more_each_time", &[], cost),
        conformance::trial(
            "cloudstack::what_an_operator_has_under_way_is_waited_for_and_named",
            &[],
            operator,
        ),
    ]
}

/// An attached volume, and a detach that the cloud has not done when the process that asked for it dies.
async fn killed(account: Account) -> (Arc<Bench>, Volume, VolumeTag) {
    let bench = Arc::new(Bench::new(account).await);
    let (volume, tag) = bench.attached().await;
    bench.fake.fault("detachVolume", 0, 1, What::Slow(u32::MAX));
    let hasty = connect(&bench.fake, account, |config| config.job_limit = Duration::ZERO);
    hasty.detach(&volume.id, &tag).await.unwrap_err();
    bench.fake.take_calls();
    (bench, volume, tag)
}

/// What the next process does meanwhile, once it has looked.
async fn looking<T: Send + 'static>(
    bench: &Arc<Bench>,
    call: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let call = tokio::spawn(call);
    while bench.fake.calls("listVolumes") < 2 && !call.is_finished() {
        tokio::task::yield_now().await;
    }
    call
}

async fn not_doubled() {
    for account in ACCOUNTS {
        let (bench, volume, tag) = killed(account).await;
        let (at, id, proof) = (bench.clone(), volume.id.clone(), tag.clone());
        let detach = looking(&bench, async move { at.second.detach(&id, &proof).await }).await;
        bench.fake.step().expect("the first one's is under way");
        detach.await.unwrap().unwrap();
        assert_eq!(
            (bench.fake.calls("detachVolume"), bench.fake.step()),
            (0, None),
            "nobody asked for another"
        );
        bench.second.attach(&volume.id, &tag).await.unwrap();
        assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 2);
    }
}

async fn attached() {
    for account in ACCOUNTS {
        let (bench, volume, tag) = killed(account).await;
        let (at, id, proof) = (bench.clone(), volume.id.clone(), tag.clone());
        let attach = looking(&bench, async move { at.second.attach(&id, &proof).await }).await;
        bench.fake.step().expect("the detach is under way");
        attach.await.unwrap().unwrap();
        assert_eq!(bench.fake.step(), None);
        bench.second.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    }
}

async fn opened() {
    let (bench, volume, tag) = killed(Account::Ordinary).await;
    let (at, id, proof) = (bench.clone(), volume.id.clone(), tag.clone());
    let open = async move { at.second.open(&id, &proof, Access::ReadWrite).await.map(drop) };
    let open = looking(&bench, open).await;
    bench.fake.step().expect("the detach is under way");
    let error = open.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
    assert!(error.chain().contains("attach it first"), "{}", error.chain());
}

/// On its way while its process dies, the next one detaches, and the volume is attached again.
async fn late() {
    for (account, seconds) in ACCOUNTS.into_iter().flat_map(|account| [(account, 0), (account, 30)]) {
        let bench = Bench::new(account).await;
        let (volume, tag) = bench.attached().await;
        bench.fake.fault("detachVolume", 0, 3, What::Hold);
        bench.backend.detach(&volume.id, &tag).await.unwrap_err();
        assert_eq!(bench.fake.calls("detachVolume"), 3, "one for each proof, and none has arrived");
        bench.second.detach(&volume.id, &tag).await.unwrap();
        bench.fake.advance(Duration::from_secs(seconds));
        bench.second.attach(&volume.id, &tag).await.unwrap();
        assert_eq!(bench.fake.deliver(), [false; 3], "that id is taken");
        while bench.fake.step().is_some() {}
        bench.second.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
        // And the next detach is another one.
        bench.second.detach(&volume.id, &tag).await.unwrap();
        assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1);
    }
}

/// Somebody detached it by hand while the first one's was still on its way.
async fn expired() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    bench.fake.fault("detachVolume", 0, 3, What::Hold);
    bench.backend.detach(&volume.id, &tag).await.unwrap_err();
    bench.fake.operate("detachVolume", &[("id", volume.id.as_str())]).unwrap();
    bench.second.attach(&volume.id, &tag).await.unwrap();
    bench.fake.advance(Duration::from_secs(122));
    assert_eq!(bench.fake.deliver(), [false; 3], "nobody lets it in any more");
    bench.second.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
}

/// A call whose first request of this command goes wrong, and what an administrator does before it is sent again.
async fn meanwhile<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    bench: &Bench,
    command: &'static str,
    what: What,
    call: impl FnOnce(CloudStackBackend) -> F,
    hand: impl FnOnce(),
) -> T {
    bench.fake.fault(command, 0, 1, what);
    bench.fake.take_calls();
    let slow = Duration::from_millis(300);
    let backend = connect(&bench.fake, Account::Ordinary, |config| {
        (config.first_pause, config.longest_pause) = (slow, slow);
    });
    let call = tokio::spawn(call(backend));
    while bench.fake.calls(command) == 0 && !call.is_finished() {
        tokio::task::yield_now().await;
    }
    hand();
    call.await.unwrap()
}

const LOST_OR_PUT_OFF: [What; 3] = [What::LoseRequest, What::Throttle(Some(1)), What::Unavailable];

async fn given() {
    for what in LOST_OR_PUT_OFF {
        let bench = Bench::new(Account::Ordinary).await;
        let (volume, tag) = bench.attached().await;
        let (id, next) = (volume.id.clone(), bench.fake.machine_of("web01"));
        let detach = |backend: CloudStackBackend| async move { backend.detach(&id, &tag).await };
        let detached = meanwhile(&bench, "detachVolume", what, detach, || give(&bench, &volume, next)).await;
        assert_eq!(bench.fake.attached(next).len(), 2, "its next machine keeps it: {what:?}");
        let error = detached.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        assert!(error.chain().contains(&next.to_string()), "{}", error.chain());
    }
}

/// From the appliance to another machine, by hand.
fn give(bench: &Bench, volume: &Volume, next: Uuid) {
    let id = volume.id.as_str();
    bench.fake.operate("detachVolume", &[("id", id)]).unwrap();
    bench.fake.operate("attachVolume", &[("id", id), ("virtualmachineid", &next.to_string())]).unwrap();
}

async fn remarked() {
    for what in LOST_OR_PUT_OFF {
        let bench = Bench::new(Account::Ordinary).await;
        let (volume, tag) = bench.created().await;
        let id = volume.id.clone();
        let delete = |backend: CloudStackBackend| async move { backend.delete(&id, &tag).await };
        let hand = || {
            let pairs = [
                ("resourcetype", "Volume"),
                ("resourceids", volume.id.as_str()),
                ("tags[0].key", "oma.generation.7"),
                ("tags[0].value", "7"),
            ];
            bench.fake.operate("createTags", &pairs).unwrap();
        };
        let error = meanwhile(&bench, "deleteVolume", what, delete, hand).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
        assert_eq!(bench.fake.data_volumes().len(), 1, "{what:?}");
    }
}

async fn not_grown() {
    for what in LOST_OR_PUT_OFF {
        let bench = Bench::new(Account::Ordinary).await;
        let (volume, tag) = bench.attached().await;
        let (id, next) = (volume.id.clone(), bench.fake.machine_of("web01"));
        let resize =
            |backend: CloudStackBackend| async move { backend.resize(&id, &tag, ByteSize::gib(2)).await };
        let resized = meanwhile(&bench, "resizeVolume", what, resize, || give(&bench, &volume, next)).await;
        assert_eq!(bench.fake.data_volumes()[0].bytes, 1 << 30, "{what:?}");
        let error = resized.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
    }
}

/// As often as a detach fails, with processes that know nothing of each other: each one goes on behind the ids of those before.
async fn again() {
    use super::super::fake::Late::StillAttached;

    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    bench.fake.fault("detachVolume", 0, 7, What::LateDetach(StillAttached));
    let mut refused = 0;
    loop {
        let next = connect(&bench.fake, Account::Ordinary, |_| ());
        match next.detach(&volume.id, &tag).await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.retry(), Retry::Later, "{}", error.chain()),
        }
        refused += 1;
        assert!(refused < 5, "it never ends");
    }
    assert_eq!(refused, 2, "three tries each");
    assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1);
}

/// A guest holds on to a disk for long, and then the process is another one.
async fn cost() {
    use super::super::fake::Late::StillAttached;

    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    bench.fake.fault("detachVolume", 0, 180, What::LateDetach(StillAttached));
    bench.fake.take_calls();
    bench.backend.detach(&volume.id, &tag).await.unwrap_err();
    let first = bench.fake.take_calls();
    for _ in 1..60 {
        bench.backend.detach(&volume.id, &tag).await.unwrap_err();
        let calls = bench.fake.take_calls();
        assert!(calls <= first + 2, "{calls} requests, {first} the first time");
    }
    let next = connect(&bench.fake, Account::Ordinary, |_| ());
    next.detach(&volume.id, &tag).await.unwrap();
    let calls = bench.fake.take_calls();
    assert!(
        calls <= first + 25,
        "{calls} requests to find the first of 180 that is free, {first} the first time"
    );
    assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1);
}

/// Whoever began it, a job of the cloud on a volume ends first.
async fn operator() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    bench.fake.fault("updateVolume", 0, 1, What::Slow(u32::MAX));
    let user = super::super::caller::Caller::user(&bench.fake);
    let renamed = user.done("updateVolume", &[("id", volume.id.as_str()), ("name", "x")]).await;
    let job = renamed["jobid"].as_str().unwrap();
    let hasty = connect(&bench.fake, Account::Ordinary, |config| config.job_limit = Duration::ZERO);
    for error in [
        hasty.open(&volume.id, &tag, Access::ReadWrite).await.map(drop).unwrap_err(),
        hasty.detach(&volume.id, &tag).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
        assert!(error.chain().contains(job), "{}", error.chain());
    }
    bench.fake.step().unwrap();
    hasty.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
}
