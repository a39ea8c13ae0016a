//! What an operator wants of a job, how far it says to be, and its end in the records.

use super::super::runner::table;
use super::*;
use crate::Fence;
use crate::record::{DiskAdvance, JobEnd, JobProgress, LogEvent, LogFilter, Page, PageStart, RetryPolicy};
use crate::state::{ExportEvent, JobStatus, LogLevel, Wanted};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_job_keeps_its_request_and_a_long_one_is_refused,
        a_job_without_a_request_is_driven_only_by_who_names_it,
        a_new_job_is_wanted_to_run_and_what_is_wanted_is_kept,
        a_job_that_rests_is_never_the_next_until_it_is_to_run,
        a_job_that_is_to_end_is_given_out_to_whoever_asks,
        a_job_that_waits_is_due_at_once_when_something_else_is_wanted,
        a_job_that_is_to_end_is_given_out_however_many_workers_vanished,
        nothing_else_is_wanted_of_a_job_that_is_to_end_or_has_ended,
        a_job_that_reverts_or_operates_cannot_rest,
        what_is_wanted_leaves_the_lease_as_it_is,
        l25_progress_is_kept_under_the_lease_and_outlives_the_job,
        l16_a_stale_lease_tells_no_progress,
        a_deleted_job_takes_its_history_and_leaves_what_is_its_vms,
        a_live_job_is_not_deleted,
        l24_a_job_is_not_deleted_while_an_export_of_it_is_recorded,
        l15_a_job_is_not_deleted_while_an_operation_of_it_is_unfinished,
    ]
}

async fn a_job_keeps_its_request_and_a_long_one_is_refused(store: StoreSubject) {
    let vm = store.vm().await;
    let longest = "ü".repeat(JobSpec::LONGEST_REQUEST / 2);
    let spec = JobSpec { request: Some(longest.clone()), ..store.spec(&vm) };
    let job = store.jobs.insert(spec.clone()).await.unwrap();
    assert!(job.request == Some(longest.clone()));
    assert!(store.job(&spec.id).await == job);
    assert!(store.jobs.insert(spec.clone()).await.unwrap() == job);
    let other = JobSpec { request: None, ..spec.clone() };
    assert_kind(store.jobs.insert(other).await, ErrorKind::AlreadyExists);
    let long = JobSpec { id: JobId::parse("job-long").unwrap(), request: Some(longest + "x"), ..spec };
    assert_kind(store.jobs.insert(long).await, ErrorKind::Invalid);
}

async fn a_job_without_a_request_is_driven_only_by_who_names_it(store: StoreSubject) {
    let id = store.queued(1, |_, spec| spec.request = None).await;
    assert_eq!(store.next("one").await, None);
    let lease = store.jobs.claim(&id, &worker("one"), TTL).await.unwrap();
    store.clock.advance(TTL * 2);
    let limits = ClaimLimits { per_worker: Some(5), ..ClaimLimits::default() };
    let bounded = ClaimRequest { limits, ..request("two") };
    assert_eq!((store.next("two").await, store.jobs.claim_next(&bounded).await.unwrap()), (None, None));
    store.jobs.renew(&lease, TTL).await.unwrap();
}

async fn a_new_job_is_wanted_to_run_and_what_is_wanted_is_kept(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    assert_eq!(store.job(&id).await.wanted, Wanted::Run);
    store.clock.advance(Duration::from_secs(1));
    for wanted in [Wanted::Pause, Wanted::Run, Wanted::Pause, Wanted::Cancel, Wanted::Cancel] {
        let told = store.jobs.want(&id, wanted).await.unwrap();
        assert_eq!((told.wanted, told.updated_at), (wanted, store.clock.now()));
        assert_eq!(store.job(&id).await, told);
    }
    assert_kind(store.jobs.want(&JobId::parse("job-none").unwrap(), Wanted::Run).await, ErrorKind::NotFound);
}

async fn a_job_that_rests_is_never_the_next_until_it_is_to_run(store: StoreSubject) {
    let resting = store.queued(1, |_, spec| spec.priority = 9).await;
    let other = store.queued(2, |_, _| ()).await;
    store.jobs.want(&resting, Wanted::Pause).await.unwrap();
    assert_eq!(store.next("one").await.map(|lease| lease.job), Some(other));
    assert_eq!(store.next("one").await, None);
    // Who names it has chosen it.
    let lease = store.jobs.claim(&resting, &worker("one"), TTL).await.unwrap();
    store.jobs.release(&lease).await.unwrap();
    let limits = ClaimLimits { per_worker: Some(5), ..ClaimLimits::default() };
    let bounded = ClaimRequest { limits, ..request("two") };
    assert_eq!(store.jobs.claim_next(&bounded).await.unwrap(), None);
    store.jobs.want(&resting, Wanted::Run).await.unwrap();
    assert_eq!(store.jobs.claim_next(&bounded).await.unwrap().map(|lease| lease.job), Some(resting));
}

/// Whoever gets it ends it, though nobody can drive it.
async fn a_job_that_waits_is_due_at_once_when_something_else_is_wanted(store: StoreSubject) {
    for (number, wanted) in [Wanted::Cancel, Wanted::Run].into_iter().enumerate() {
        let id = store.queued(number, |_, _| ()).await;
        let lease = store.next("one").await.unwrap();
        store.jobs.defer(&lease, "why", &RetryPolicy::default()).await.unwrap();
        assert_eq!(store.next("one").await, None);
        store.jobs.want(&id, Wanted::Pause).await.unwrap();
        store.jobs.want(&id, wanted).await.unwrap();
        assert_eq!(store.next("one").await.map(|lease| lease.job), Some(id));
    }
}

/// An operator's word is not lost because its worker vanished too often.
async fn a_job_that_is_to_end_is_given_out_however_many_workers_vanished(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    store.jobs.want(&id, Wanted::Cancel).await.unwrap();
    for _ in 0..5 {
        assert_eq!(store.next("one").await.map(|lease| lease.job), Some(id.clone()));
        store.clock.advance(TTL * 2);
    }
    let limits = ClaimLimits { per_worker: Some(5), ..ClaimLimits::default() };
    let bounded = ClaimRequest { limits, attempts: 1, ..request("two") };
    assert_eq!(store.jobs.claim_next(&bounded).await.unwrap().map(|lease| lease.job), Some(id));
}

async fn a_job_that_is_to_end_is_given_out_to_whoever_asks(store: StoreSubject) {
    let id = store.queued(1, |_, spec| spec.request = None).await;
    store.jobs.want(&id, Wanted::Cancel).await.unwrap();
    let lease = store.next("one").await.unwrap();
    assert_eq!(lease.job, id);
    let ended = store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    assert_eq!((ended.status, ended.wanted), (JobStatus::Cancelled, Wanted::Cancel));
}

async fn nothing_else_is_wanted_of_a_job_that_is_to_end_or_has_ended(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    store.jobs.want(&id, Wanted::Cancel).await.unwrap();
    for wanted in [Wanted::Run, Wanted::Pause] {
        assert_kind(store.jobs.want(&id, wanted).await, ErrorKind::Conflict);
    }
    assert_eq!(store.job(&id).await.wanted, Wanted::Cancel);
    let (_, lease) = store.claimed().await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    for wanted in Wanted::ALL {
        assert_kind(store.jobs.want(&lease.job, *wanted).await, ErrorKind::Conflict);
    }
    assert_eq!(store.job(&lease.job).await.wanted, Wanted::Run);
}

async fn a_job_that_reverts_or_operates_cannot_rest(store: StoreSubject) {
    let vm = store.replicated().await;
    for spec in [store.revert_spec(&vm), store.operate_spec(&vm)] {
        let id = store.jobs.insert(spec).await.unwrap().id;
        assert_kind(store.jobs.want(&id, Wanted::Pause).await, ErrorKind::Conflict);
        let told = store.jobs.want(&id, Wanted::Cancel).await.unwrap();
        assert_eq!((told.wanted, store.next("one").await), (Wanted::Cancel, None));
        let lease = store.jobs.claim(&id, &worker("one"), TTL).await.unwrap();
        store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    }
}

async fn what_is_wanted_leaves_the_lease_as_it_is(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    for wanted in [Wanted::Pause, Wanted::Run, Wanted::Cancel] {
        let told = store.jobs.want(&lease.job, wanted).await.unwrap();
        assert_eq!((told.owner.as_ref(), told.fence), (Some(&lease.worker), lease.fence));
        assert_eq!(told.due_at, Some(lease.expires_at));
        store.jobs.renew(&lease, TTL).await.unwrap();
    }
}

fn progress(store: &StoreSubject, durable: u64) -> JobProgress {
    let bytes = ByteSize::new(durable);
    let advance = |text: &&str| DiskAdvance {
        key: key(text),
        total: ByteSize::mib(8),
        done: bytes,
        durable: bytes,
        read: bytes,
        written: bytes,
        zero: ByteSize::ZERO,
        unchanged: ByteSize::ZERO,
        rate: Some(bytes),
        mean_rate: None,
        remaining: Some(Duration::from_millis(1500)),
        bottleneck: Some("read".to_owned()),
    };
    JobProgress {
        step: Some("copy".to_owned()),
        at: store.clock.now(),
        disks: KEYS.iter().map(advance).collect(),
    }
}

async fn l25_progress_is_kept_under_the_lease_and_outlives_the_job(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    assert_eq!(store.jobs.progress(&lease.job).await.unwrap(), None);
    for durable in [1, 2] {
        let progress = progress(&store, durable);
        store.jobs.tell_progress(&lease, &progress).await.unwrap();
        assert_eq!(store.jobs.progress(&lease.job).await.unwrap(), Some(progress));
    }
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_eq!(store.jobs.progress(&lease.job).await.unwrap(), Some(progress(&store, 2)));
    // How it ended is told by whoever ended it, and by nobody else.
    store.jobs.tell_progress(&lease, &progress(&store, 3)).await.unwrap();
    assert_eq!(store.jobs.progress(&lease.job).await.unwrap(), Some(progress(&store, 3)));
    let other = Lease { fence: Fence(lease.fence.0 + 1), ..lease.clone() };
    assert_kind(store.jobs.tell_progress(&other, &progress(&store, 4)).await, ErrorKind::Fenced);
    assert_eq!(store.jobs.progress(&JobId::parse("job-none").unwrap()).await.unwrap(), None);
}

async fn l16_a_stale_lease_tells_no_progress(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let newer = store.take_over(&lease).await;
    let told = store.jobs.tell_progress(&lease, &progress(&store, 1)).await;
    assert_kind(told, ErrorKind::Fenced);
    assert_eq!(store.jobs.progress(&lease.job).await.unwrap(), None);
    store.jobs.release(&newer).await.unwrap();
    assert_kind(store.jobs.tell_progress(&newer, &progress(&store, 1)).await, ErrorKind::Fenced);
}

async fn a_deleted_job_takes_its_history_and_leaves_what_is_its_vms(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let job = lease.job.clone();
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let event = LogEvent {
        job: Some(job.clone()),
        step: None,
        at: store.clock.now(),
        level: LogLevel::Info,
        message: "it ended".to_owned(),
        attrs: None,
    };
    store.logs.append(&[event]).await.unwrap();
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let disk = store.disk(&vm, KEYS[0]);
    let before = store.inventory.disk(&disk).await.unwrap().unwrap();
    assert_eq!(before.job, Some(job.clone()));
    store.jobs.delete(&job).await.unwrap();
    store.jobs.delete(&job).await.unwrap();
    assert_eq!((store.jobs.get(&job).await.unwrap(), store.jobs.progress(&job).await.unwrap()), (None, None));
    let after = store.inventory.disk(&disk).await.unwrap().unwrap();
    assert_eq!(after, DiskRecord { job: None, ..before });
    assert!(after.volume.is_some() && after.change_id.is_some());
    let history: Vec<_> = store.change_ids.history(&disk).try_collect().await.unwrap();
    assert!(history.is_empty(), "{history:?}");
    let page = Page { start: PageStart::Oldest, limit: 10 };
    let lines = store.logs.events(&LogFilter::default(), &page).await.unwrap();
    let told: Vec<_> = lines.iter().map(|(_, event)| (event.job.clone(), event.message.as_str())).collect();
    assert_eq!(told, [(None, "it ended")]);
    let now = store.inventory.context(&vm.id).await.unwrap().unwrap();
    assert_eq!(now.epoch, crate::Epoch(1));
    // Its id is free, and the next job is of the next epoch.
    let next = store.jobs.insert(JobSpec { id: job, ..store.spec(&vm) }).await.unwrap();
    assert_eq!(next.epoch, crate::Epoch(2));
    store.jobs.delete(&JobId::parse("job-none").unwrap()).await.unwrap();
}

async fn a_live_job_is_not_deleted(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    assert_kind(store.jobs.delete(&id).await, ErrorKind::Conflict);
    let lease = store.next("one").await.unwrap();
    assert_kind(store.jobs.delete(&id).await, ErrorKind::Conflict);
    store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    store.jobs.delete(&id).await.unwrap();
    assert_eq!(store.jobs.get(&id).await.unwrap(), None);
}

async fn l24_a_job_is_not_deleted_while_an_export_of_it_is_recorded(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let export = name("migration-vm-1-disk0");
    store.exports.begin(&lease, &export, &disk.key, &volume.id).await.unwrap();
    store.exports.advance(&lease, &export, ExportEvent::Started).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_kind(store.jobs.delete(&lease.job).await, ErrorKind::Conflict);
    assert!(store.exports.export(&export).await.unwrap().is_some());
}

async fn l15_a_job_is_not_deleted_while_an_operation_of_it_is_unfinished(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let create = store.operation(&lease, &store.disk(&vm, KEYS[0]), OperationKind::Create, None);
    store.volumes.begin(&lease, &create).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_kind(store.jobs.delete(&lease.job).await, ErrorKind::Conflict);
    assert!(store.volumes.operation(&create.id).await.unwrap().is_some());
}
