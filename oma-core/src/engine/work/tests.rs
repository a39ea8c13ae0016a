use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::*;
use crate::engine::{ReplicateConfig, RetryConfig, Services, Submission};
use crate::memory::{ManualClock, MemoryBackend, MemoryExportServer, MemorySource, MemoryStore};
use crate::record::{JobFilter, JobProgress};
use crate::state::{JobStatus, Wanted};
use crate::traits::{
    BlockDevice as _, Durability, ExportRegistry as _, Inventory as _, JobStore as _, VolumeRegistry as _,
};
use crate::{
    ByteSize, Clock as _, DiskKey, DiskRef, Endpoint, Epoch, Error, ErrorKind, Extent, SystemClock,
    Timestamp, VmPath, WorkerId,
};

mod logs;

const CAPACITY: ByteSize = ByteSize::mib(4);
const DISK: &str = "disk-2000";

/// A source, a store and volumes that workers share.
struct World {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    source: Arc<MemorySource>,
    backend: Arc<MemoryBackend>,
    config: WorkerConfig,
}

/// Opens requests that are the path of a VM of one source.
#[derive(Debug)]
struct Paths {
    source: Arc<MemorySource>,
    opened: AtomicUsize,
}

#[async_trait]
impl WorkOpener for Paths {
    async fn open(&self, job: &ReplicationJob, _: &VmContext) -> Result<Work> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let path = job.request.as_deref().expect("only such jobs are given out");
        let vm = VmPath::parse(path).map_err(|error| {
            Error::new(ErrorKind::Invalid, "read the request of", &job.id).with_source(error)
        })?;
        Ok(Work { source: self.source.clone(), request: ReplicateRequest::new(vm) })
    }
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let attempts =
            RetryPolicy { attempts: 3, first: Duration::from_secs(10), longest: Duration::from_secs(10) };
        let limits = ClaimLimits { per_worker: Some(2), ..ClaimLimits::default() };
        Self {
            store: Arc::new(MemoryStore::new(clock.clone())),
            clock,
            source: Arc::new(MemorySource::new(Endpoint::parse("vcenter").unwrap())),
            backend: Arc::new(MemoryBackend::new()),
            config: WorkerConfig { limits, attempts, pace: Duration::from_millis(5) },
        }
    }

    async fn add(&self, name: &str) -> VmPath {
        let vm = VmPath::parse(format!("/DC/vm/{name}")).unwrap();
        let disk = self.source.add_disk(&vm, &key(), CAPACITY);
        disk.write_at(4096, Bytes::from(name.as_bytes().repeat(1000)), Durability::Cached).await.unwrap();
        vm
    }

    /// As one process has it: its exports end with it.
    fn replicator(&self, name: &str) -> Replicator {
        let services = Services::new(
            self.store.clone(),
            self.source.clone(),
            self.backend.clone(),
            Arc::new(MemoryExportServer::new()),
        );
        let retry = RetryConfig { attempts: 2, first_pause: Duration::ZERO, ..RetryConfig::default() };
        let config = ReplicateConfig { piece: ByteSize::kib(64), retry, ..ReplicateConfig::default() };
        Replicator::new(services, WorkerId::parse(name).unwrap(), config)
    }

    fn worker(&self, name: &str) -> Running {
        let opener = Arc::new(Paths { source: self.source.clone(), opened: AtomicUsize::new(0) });
        let worker = Worker::new(self.replicator(name), opener, self.config);
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (worker, stop) = (worker.clone(), stop.clone());
            async move { worker.run(&stop).await }
        });
        Running { worker, stop, task }
    }

    async fn submit(&self, vm: &VmPath) -> JobId {
        let submission = self.submission(vm);
        let submitted = self.replicator("clerk").submit(&ReplicateRequest::new(vm.clone()), submission).await;
        submitted.unwrap().id
    }

    fn submission(&self, vm: &VmPath) -> Submission {
        Submission {
            job: JobId::mint(SystemClock.now()),
            request: vm.as_str().to_owned(),
            priority: 0,
            target: None,
        }
    }

    async fn job(&self, id: &JobId) -> ReplicationJob {
        self.store.get(id).await.unwrap().unwrap()
    }

    /// Waits until a job is as it should be. The pace of workers is real time, and short.
    async fn until(&self, id: &JobId, is: impl Fn(&ReplicationJob) -> bool) -> ReplicationJob {
        let waited = async {
            loop {
                let job = self.job(id).await;
                if is(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), waited).await {
            Ok(job) => job,
            Err(_) => panic!("still {:?}", self.job(id).await),
        }
    }

    async fn until_told(&self, id: &JobId, is: impl Fn(&JobProgress) -> bool) -> JobProgress {
        let waited = async {
            loop {
                if let Some(told) = self.store.progress(id).await.unwrap().filter(&is) {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waited).await.expect("it is told in time")
    }

    async fn until_ended(&self, id: &JobId, status: JobStatus) -> ReplicationJob {
        let job = self.until(id, |job| job.status.is_terminal()).await;
        assert_eq!(job.status, status, "{:?}", job.error);
        job
    }

    async fn assert_replicated(&self, vm: &VmPath, epoch: u64) {
        let context = self.store.by_path(vm).await.unwrap().unwrap();
        assert_eq!(context.epoch, Epoch(epoch));
        let disk = DiskRef { context: context.id, key: key() };
        let volume = self.store.volume_of(&disk).await.unwrap().unwrap();
        let (source, target) =
            (self.source.disk(vm, &key()).unwrap(), self.backend.device(&volume.id).unwrap());
        assert!(source.bytes() == target.bytes(), "{vm} differs");
    }

    async fn assert_nothing_left(&self) {
        assert!(self.source.points().is_empty(), "{:?}", self.source.points());
        let exports: Vec<_> = self.store.exports().try_collect().await.unwrap();
        assert!(exports.is_empty(), "{exports:?}");
    }

    /// Holds every read of the disk, so that a job stays where it is.
    fn stall(&self) {
        self.source.faults(&key()).stall_reads_in(whole());
    }
}

struct Running {
    worker: Worker,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        assert!(self.worker.is_running());
        self.stop.cancel();
        self.task.await.unwrap();
        assert!(!self.worker.is_running());
        assert!(self.worker.driven().is_empty());
    }
}

fn key() -> DiskKey {
    DiskKey::parse(DISK).unwrap()
}

fn whole() -> Extent {
    Extent::new(0, CAPACITY.bytes()).unwrap()
}

#[tokio::test]
async fn submitted_jobs_are_driven_to_their_end_and_say_how_far_they_are() {
    let world = World::new();
    let vms = [world.add("a").await, world.add("b").await, world.add("c").await];
    let mut jobs = Vec::new();
    for vm in &vms {
        jobs.push(world.submit(vm).await);
    }
    let running = world.worker("one");
    for (vm, id) in vms.iter().zip(&jobs) {
        world.until_ended(id, JobStatus::Completed).await;
        world.assert_replicated(vm, 1).await;
        let told = world.until_told(id, |told| told.disks.iter().any(|disk| disk.durable == CAPACITY)).await;
        assert_eq!((told.disks.len(), told.disks[0].total), (1, CAPACITY));
    }
    // A job that is recorded later is found without anybody's word; the next epoch of the same VM.
    let again = world.submit(&vms[0]).await;
    running.worker.nudge();
    world.until_ended(&again, JobStatus::Completed).await;
    world.assert_replicated(&vms[0], 2).await;
    running.end().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn the_same_submission_again_is_the_same_job_and_another_one_of_the_vm_is_refused() {
    let world = World::new();
    let vm = world.add("a").await;
    let (clerk, request) = (world.replicator("clerk"), ReplicateRequest::new(vm.clone()));
    let submission = world.submission(&vm);
    let first = clerk.submit(&request, submission.clone()).await.unwrap();
    assert_eq!(clerk.submit(&request, submission.clone()).await.unwrap(), first);
    let refused = clerk.submit(&request, world.submission(&vm)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.chain().contains(first.id.as_str()), "{}", refused.chain());
    let running = world.worker("one");
    let ended = world.until_ended(&first.id, JobStatus::Completed).await;
    // Also once it has ended: the answer that was lost is given again.
    assert_eq!(clerk.submit(&request, submission).await.unwrap(), ended);
    running.end().await;
}

#[tokio::test]
async fn discovery_records_a_vm_and_its_disks_without_a_job() {
    let world = World::new();
    let vm = world.add("a").await;
    let found = world.replicator("clerk").discover_vm(&ReplicateRequest::new(vm.clone())).await.unwrap();
    assert_eq!((found.path.clone(), found.current_job.clone()), (vm, None));
    let disks = world.store.disks(&found.id).await.unwrap();
    assert_eq!(
        disks.iter().map(|disk| (disk.job.clone(), disk.capacity)).collect::<Vec<_>>(),
        [(None, CAPACITY)]
    );
}

#[tokio::test]
async fn progress_is_recorded_while_a_job_is_driven() {
    let world = World::new();
    let vm = world.add("a").await;
    world.stall();
    let id = world.submit(&vm).await;
    let running = world.worker("one");
    world.source.faults(&key()).until_stalled_in(whole()).await;
    running.worker.nudge();
    let told = world.until_told(&id, |told| !told.disks.is_empty()).await;
    assert_eq!((told.step.as_deref(), told.disks[0].total), (Some("copy"), CAPACITY));
    assert_eq!((told.disks[0].durable, told.disks[0].key.clone()), (ByteSize::ZERO, key()));
    running.end().await;
}

#[tokio::test]
async fn no_more_jobs_are_driven_at_once_than_the_bound_says() {
    let mut world = World::new();
    world.config.limits.per_worker = Some(1);
    let vms = [world.add("a").await, world.add("b").await];
    world.stall();
    let jobs = [world.submit(&vms[0]).await, world.submit(&vms[1]).await];
    let running = world.worker("one");
    world.source.faults(&key()).until_stalled_in(whole()).await;
    running.worker.nudge();
    assert_eq!(running.worker.driven(), [jobs[0].clone()]);
    assert_eq!(world.job(&jobs[1]).await.status, JobStatus::Initializing);
    world.source.faults(&key()).clear();
    for id in &jobs {
        world.until_ended(id, JobStatus::Completed).await;
    }
    running.end().await;
}

#[tokio::test]
async fn a_job_that_is_to_rest_stops_stays_alive_and_goes_on_when_it_is_wanted_again() {
    let world = World::new();
    let vm = world.add("a").await;
    world.stall();
    let id = world.submit(&vm).await;
    let running = world.worker("one");
    world.source.faults(&key()).until_stalled_in(whole()).await;
    world.store.want(&id, Wanted::Pause).await.unwrap();
    running.worker.nudge();
    let resting = world.until(&id, |job| job.owner.is_none()).await;
    assert!(!resting.status.is_terminal());
    assert_eq!((resting.attempts, resting.error), (0, None));
    world.source.faults(&key()).clear();
    assert_eq!(world.store.claim_next(&request("other")).await.unwrap(), None);
    world.store.want(&id, Wanted::Run).await.unwrap();
    running.worker.nudge();
    world.until_ended(&id, JobStatus::Completed).await;
    world.assert_replicated(&vm, 1).await;
    running.end().await;
    world.assert_nothing_left().await;
}

fn request(by: &str) -> ClaimRequest {
    let limits = ClaimLimits::default();
    ClaimRequest { worker: WorkerId::parse(by).unwrap(), ttl: Duration::from_secs(30), limits, attempts: 3 }
}

#[tokio::test]
async fn l11_a_job_that_is_to_end_is_cancelled_whether_it_is_driven_or_waits() {
    let world = World::new();
    let vms = [world.add("a").await, world.add("b").await];
    world.stall();
    let driven = world.submit(&vms[0]).await;
    let running = world.worker("one");
    world.source.faults(&key()).until_stalled_in(whole()).await;
    world.store.want(&driven, Wanted::Cancel).await.unwrap();
    running.worker.nudge();
    let ended = world.until_ended(&driven, JobStatus::Cancelled).await;
    assert_eq!(ended.error.as_deref(), Some("an operator cancelled it"));
    running.end().await;

    let waiting = world.submit(&vms[1]).await;
    world.store.want(&waiting, Wanted::Cancel).await.unwrap();
    let running = world.worker("two");
    world.until_ended(&waiting, JobStatus::Cancelled).await;
    running.end().await;
    world.assert_nothing_left().await;
    // The VMs are free for other jobs.
    world.source.faults(&key()).clear();
    let running = world.worker("two");
    let again = world.submit(&vms[0]).await;
    world.until_ended(&again, JobStatus::Completed).await;
    world.assert_replicated(&vms[0], 1).await;
    running.end().await;
}

#[tokio::test]
async fn l11_a_job_that_waits_is_ended_though_every_place_is_taken_and_those_that_are_driven_go_on() {
    let mut world = World::new();
    world.config.limits.per_worker = Some(1);
    let vms = [world.add("a").await, world.add("b").await, world.add("c").await];
    world.stall();
    let mut jobs = Vec::new();
    for vm in &vms {
        jobs.push(world.submit(vm).await);
    }
    let running = world.worker("one");
    world.source.faults(&key()).until_stalled_in(whole()).await;
    let fence = world.job(&jobs[0]).await.fence;
    world.store.want(&jobs[1], Wanted::Cancel).await.unwrap();
    // Neither one that is driven, nor one that is to go on, nor one that is not there is taken.
    for job in [&jobs[0], &jobs[1], &jobs[2], &JobId::parse("job-none").unwrap()] {
        running.worker.end(job);
    }
    let ended = world.until_ended(&jobs[1], JobStatus::Cancelled).await;
    assert_eq!(ended.error.as_deref(), Some("an operator cancelled it"));
    assert_eq!(running.worker.driven(), [jobs[0].clone()]);
    assert_eq!(world.job(&jobs[0]).await.fence, fence);
    assert_eq!(world.job(&jobs[2]).await.status, JobStatus::Initializing);
    world.source.faults(&key()).clear();
    for id in [&jobs[0], &jobs[2]] {
        world.until_ended(id, JobStatus::Completed).await;
    }
    running.end().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn a_failed_attempt_waits_and_is_made_again_until_the_last_one() {
    let world = World::new();
    let vm = world.add("a").await;
    let id = world.submit(&vm).await;
    world.source.disconnect();
    let running = world.worker("one");
    for attempt in 1..=2 {
        let waiting = world.until(&id, |job| job.attempts == attempt && job.owner.is_none()).await;
        assert!(!waiting.status.is_terminal() && waiting.error.is_some());
        assert!(waiting.due_at.unwrap() > world.clock.now());
        if attempt == 2 {
            world.source.reconnect();
        }
        world.clock.advance(Duration::from_secs(10));
    }
    world.until_ended(&id, JobStatus::Completed).await;
    world.assert_replicated(&vm, 1).await;

    let again = world.submit(&vm).await;
    world.source.disconnect();
    for attempt in 1..=2 {
        world.until(&again, |job| job.attempts == attempt && job.owner.is_none()).await;
        world.clock.advance(Duration::from_secs(10));
    }
    let failed = world.until_ended(&again, JobStatus::Failed).await;
    assert!(failed.error.unwrap().starts_with("gave up after 3 attempts"));
    running.end().await;
}

#[tokio::test]
async fn a_request_that_nobody_understands_fails_at_once_and_says_so() {
    let world = World::new();
    let vm = world.add("a").await;
    let submission = Submission { request: String::new(), ..world.submission(&vm) };
    let submitted = world.replicator("clerk").submit(&ReplicateRequest::new(vm), submission).await;
    let id = submitted.unwrap().id;
    let running = world.worker("one");
    let failed = world.until_ended(&id, JobStatus::Failed).await;
    assert!(failed.error.unwrap().contains("read the request of"));
    assert_eq!(failed.attempts, 0);
    running.end().await;
}

#[tokio::test]
async fn l04_a_job_is_not_driven_once_its_vm_has_other_disks() {
    let world = World::new();
    let vm = world.add("a").await;
    let id = world.submit(&vm).await;
    world.source.add_disk(&vm, &DiskKey::parse("disk-2001").unwrap(), CAPACITY);
    let running = world.worker("one");
    let failed = world.until_ended(&id, JobStatus::Failed).await;
    assert!(failed.error.unwrap().contains("other disks"));
    running.end().await;
    let disks = world.store.disks(&failed.context).await.unwrap();
    assert_eq!(disks.len(), 1, "{disks:?}");
}

#[tokio::test]
async fn l18_a_stopped_worker_gives_its_jobs_back_and_another_one_goes_on() {
    let world = World::new();
    let vm = world.add("a").await;
    world.stall();
    let id = world.submit(&vm).await;
    let one = world.worker("one");
    world.source.faults(&key()).until_stalled_in(whole()).await;
    one.end().await;
    let given_back = world.job(&id).await;
    assert_eq!((given_back.owner, given_back.attempts), (None, 0));
    world.source.faults(&key()).clear();
    let two = world.worker("two");
    world.until_ended(&id, JobStatus::Completed).await;
    world.assert_replicated(&vm, 1).await;
    two.end().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn l17_a_job_of_a_worker_that_vanished_is_taken_over_once_its_lease_has_ended() {
    let world = World::new();
    let vm = world.add("a").await;
    world.stall();
    let id = world.submit(&vm).await;
    let one = world.worker("one");
    world.source.faults(&key()).until_stalled_in(whole()).await;
    one.task.abort();
    let Running { worker, task, .. } = one;
    assert!(task.await.unwrap_err().is_cancelled());
    drop(worker);
    world.source.faults(&key()).until_unused().await;
    world.source.faults(&key()).clear();
    let two = world.worker("two");
    two.worker.nudge();
    let held = world.job(&id).await;
    assert_eq!(held.owner.map(|owner| owner.to_string()), Some("one".to_owned()));
    world.clock.advance(Duration::from_secs(31));
    let ended = world.until_ended(&id, JobStatus::Completed).await;
    assert_eq!(ended.attempts, 1);
    world.assert_replicated(&vm, 1).await;
    two.end().await;
    let all: Vec<_> = world.store.list(JobFilter::default()).try_collect().await.unwrap();
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn l11_a_run_that_is_stopped_before_its_source_answers_is_no_failure_and_asks_it_nothing_more() {
    let world = World::new();
    let vm = world.add("a").await;
    let id = world.submit(&vm).await;
    world.source.disconnect();
    let replicator = world.replicator("one").with_attempts(world.config.attempts);
    let lease = world.store.claim(&id, replicator.worker(), Duration::from_secs(30)).await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let request = ReplicateRequest::new(vm);
    let driven =
        replicator.drive(lease, Instant::now(), &request, &crate::engine::Silent, &stop).await.unwrap();
    assert!(matches!(driven.outcome, crate::engine::Outcome::Suspended), "{:?}", driven.outcome);
    assert!(driven.warnings.is_empty(), "{:?}", driven.warnings);
    let job = world.job(&id).await;
    assert_eq!((job.owner, job.attempts, job.status), (None, 0, JobStatus::Initializing));
}
