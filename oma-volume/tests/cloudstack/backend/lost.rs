//! Requests and answers that get lost, come twice, are put off; jobs that end badly (L15, L19).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use oma_core::conformance::{self, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Volume, VolumeBackend};
use oma_core::{ByteSize, ErrorKind, Result, Retry};
use oma_volume::cloudstack::Account;
use tokio::task::JoinHandle;

use super::super::fake::{Options, What};
use super::{ACCOUNTS, Bench, connect, insist};

/// Commands that change something in the life of a volume.
const CHANGES: [&str; 7] = [
    "createVolume",
    "createTags",
    "attachVolume",
    "resizeVolume",
    "detachVolume",
    "deleteTags",
    "deleteVolume",
];

/// How many volumes are made and deleted while answers are lost.
const VOLUMES: u64 = 500;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("cloudstack::l19_a_lost_answer_to_a_change_changes_nothing", &[], || async {
            each_change(What::LoseResponse).await;
        }),
        conformance::trial("cloudstack::l19_a_lost_request_is_sent_again", &[], || async {
            each_change(What::LoseRequest).await;
        }),
        conformance::trial("cloudstack::a_request_that_arrives_twice_is_done_once", &[], || async {
            each_change(What::Twice).await;
        }),
        conformance::trial("cloudstack::too_many_requests_are_waited_out", &[], || async {
            each_change(What::Throttle(None)).await;
        }),
        conformance::trial("cloudstack::a_server_under_maintenance_is_waited_out", &[], || async {
            each_change(What::Unavailable).await;
        }),
        conformance::trial("cloudstack::a_restart_that_cut_an_attach_is_resolved_by_the_volume", &[], cut),
        conformance::trial("cloudstack::a_late_detach_is_waited_for_under_its_own_id", &[], late),
        conformance::trial("cloudstack::a_job_whose_record_expired_is_resolved_by_the_volume", &[], expired),
        conformance::trial(
            "cloudstack::l15_a_create_that_was_killed_is_finished_by_the_next_one",
            &[],
            killed,
        ),
        conformance::trial(
            "cloudstack_root::with_every_twentieth_answer_lost_nothing_is_left_over",
            &[],
            || lossy(Account::RootAdmin),
        ),
        conformance::trial(
            "cloudstack_user::with_every_twentieth_answer_lost_nothing_is_left_over",
            &[],
            || lossy(Account::Ordinary),
        ),
        conformance::trial("cloudstack::who_is_refused_for_good_is_told_and_nothing_is_left", &[], quota),
    ]
}

/// The life of a volume, in which the first of each change goes wrong.
async fn each_change(what: What) {
    for account in ACCOUNTS {
        for command in CHANGES {
            // What came twice must be found as a job: no list hastens that one.
            let options = Options { lists_ask: what != What::Twice, ..Options::default() };
            let bench = Bench::start(account, options).await;
            bench.fake.fault(command, 0, 1, what);
            live(&bench).await;
            assert!(bench.fake.calls(command) > 0, "{command} was tried");
            bench.assert_clean();
        }
    }
}

async fn live(bench: &Bench) {
    let spec = bench.spec();
    let (backend, mut tag) = (&bench.backend, spec.tag.clone());
    let volume = insist(|| backend.create(&spec)).await;
    assert_eq!(bench.fake.data_volumes().len(), 1, "one operation makes one volume");
    for _ in 0..2 {
        tag.generation = tag.generation.next();
        insist(|| backend.retag(&volume.id, &tag)).await;
    }
    let attached = insist(|| backend.attach(&volume.id, &tag)).await;
    assert_eq!((&attached.id, attached.tag.as_ref()), (&volume.id, Some(&tag)));
    let grown = insist(|| backend.resize(&volume.id, &tag, ByteSize::gib(2))).await;
    assert_eq!(grown.capacity, ByteSize::gib(2));
    assert_eq!(bench.second.get(&volume.id).await.unwrap(), Some(grown));
    let detached = insist(|| backend.detach(&volume.id, &tag)).await;
    assert_eq!(detached.device_path, None);
    insist(|| backend.delete(&volume.id, &tag)).await;
    assert_eq!(bench.second.get(&volume.id).await.unwrap(), None);
}

/// An attach under way, its job asked about at least once.
async fn attaching(bench: &Arc<Bench>, volume: &Volume, tag: &VolumeTag) -> JoinHandle<Result<Volume>> {
    bench.fake.fault("attachVolume", 0, 1, What::Slow(u32::MAX));
    bench.fake.take_calls();
    let (at, id, proof) = (bench.clone(), volume.id.clone(), tag.clone());
    let attach = tokio::spawn(async move { at.backend.attach(&id, &proof).await });
    while bench.fake.calls("queryAsyncJobResult") == 0 {
        tokio::task::yield_now().await;
    }
    attach
}

async fn cut() {
    for done in [true, false] {
        let bench = Arc::new(Bench::new(Account::Ordinary).await);
        let (volume, tag) = bench.created().await;
        let attach = attaching(&bench, &volume, &tag).await;
        bench.fake.restart(done);
        attach.await.unwrap().unwrap();
        assert_eq!(bench.fake.calls("attachVolume"), if done { 1 } else { 2 });
        assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 2);
    }
}

/// A detach that the cloud puts off: a second one beside it would take the volume from its next machine (issue 14214).
async fn late() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    let hasty = connect(&bench.fake, Account::Ordinary, |config| config.job_limit = Duration::ZERO);
    bench.fake.fault("detachVolume", 0, 1, What::Slow(u32::MAX));
    for kind in [ErrorKind::Unavailable, ErrorKind::Busy] {
        let error = hasty.detach(&volume.id, &tag).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Later), "{}", error.chain());
    }
    bench.fake.step().expect("one is under way");
    assert_eq!(bench.fake.step(), None, "and no other");
    hasty.detach(&volume.id, &tag).await.unwrap();
    let machine = bench.fake.machine_of("web01");
    let pairs = [("id", volume.id.as_str()), ("virtualmachineid", &machine.to_string())];
    bench.fake.operate("attachVolume", &pairs).unwrap();
    while bench.fake.step().is_some() {}
    assert_eq!(bench.fake.attached(machine).len(), 2, "its next machine keeps it");
}

async fn expired() {
    let bench = Arc::new(Bench::new(Account::Ordinary).await);
    let (volume, tag) = bench.created().await;
    let attach = attaching(&bench, &volume, &tag).await;
    bench.fake.step_and_expire();
    attach.await.unwrap().unwrap();
    assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 2);
    assert_eq!(bench.fake.calls("attachVolume"), 1, "what is attached is not attached again");
}

/// Killed after the volume was made and before it was marked; and the record of its job is gone too.
async fn killed() {
    for account in ACCOUNTS {
        for is_expired in [false, true] {
            let bench = Bench::new(account).await;
            let spec = bench.spec();
            let made = bench.left_unmarked(account, &spec).await;
            if is_expired {
                bench.fake.expire_jobs();
            }
            let volume = bench.second.create(&spec).await.unwrap();
            assert_eq!(volume.id.as_str(), made);
            assert_eq!(bench.fake.data_volumes().len(), 1);
        }
    }
}

/// So many volumes for each sort of account, 32 at a time.
async fn lossy(account: Account) {
    let bench = Bench::new(account).await;
    let (foreign, theirs) = bench.created().await;
    // What is asked once for all volumes is asked in the first life.
    live_lossy(&bench).await;
    bench.fake.take_calls();
    live_lossy(&bench).await;
    let least = bench.fake.take_calls() * VOLUMES;
    bench.fake.lose_per_mille(50, 7);
    let lives = (0..VOLUMES).map(|_| live_lossy(&bench));
    stream::iter(lives).buffer_unordered(32).collect::<()>().await;
    bench.fake.lose_per_mille(0, 0);
    let left = bench.fake.data_volumes();
    assert_eq!(left.len(), 1, "only the one that nobody asked to delete: {left:?}");
    assert_eq!(bench.backend.get(&foreign.id).await.unwrap().unwrap().tag, Some(theirs));
    let calls = bench.fake.take_calls();
    assert!(calls * 10 <= least * 13, "{calls} requests, {least} without losses");
}

async fn live_lossy(bench: &Bench) {
    let spec = bench.spec();
    let (backend, tag) = (&bench.backend, &spec.tag);
    let volume = insist(|| backend.create(&spec)).await;
    insist(|| backend.attach(&volume.id, tag)).await;
    insist(|| backend.detach(&volume.id, tag)).await;
    insist(|| backend.delete(&volume.id, tag)).await;
}

async fn quota() {
    let options = Options { max_volumes: Some(1), ..Options::default() };
    let bench = Bench::start(Account::Ordinary, options).await;
    let error = loop {
        match bench.backend.create(&bench.spec()).await {
            Ok(_) => assert!(bench.fake.data_volumes().len() < 5, "the limit counts"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{}", error.chain());
    assert!(error.chain().contains("raise the limits"), "{}", error.chain());
    let before = bench.fake.data_volumes().len();
    bench.backend.create(&bench.spec()).await.unwrap_err();
    assert_eq!(bench.fake.data_volumes().len(), before);
}
