//! Push mode: an agent in this process writes through exports and reports.

mod words;

use tokio::task::JoinHandle;

use super::*;
use crate::engine::config::CopyMode;
use crate::engine::{PushDisk, PushFailure, PushReport, PushSource, PushState, PushVm, Pushes};
use crate::memory::DeviceCall;
use crate::record::SourceIdentity;
use crate::{ExportName, ExtentSet, Fence, InstanceUuid, PointId};

const DISK: &str = "disk-2000";

/// A process that drives a job, and its agent's view of it.
struct Pushing {
    server: Arc<MemoryExportServer>,
    pushes: Pushes,
    job: JobId,
    stop: CancellationToken,
    run: JoinHandle<Result<Report>>,
}

/// What changed since which change id.
type Changed = Option<(&'static str, Vec<(u64, u64)>)>;

fn id(text: &str) -> ChangeId {
    ChangeId::parse(text).unwrap()
}

fn extents(list: &[(u64, u64)]) -> ExtentSet {
    list.iter().map(|(offset, length)| Extent::new(*offset, *length).unwrap()).collect()
}

impl World {
    /// As an agent describes it, all disks at one point in time.
    fn described(&self, keys: &[&str], point: &str, changed: &Changed) -> Arc<dyn DiskSource> {
        let disk = |key: &&str| PushDisk {
            key: self::key(key),
            capacity: self.source.disk(&self.vm, &self::key(key)).unwrap().info().capacity,
            label: String::new(),
            location: String::new(),
            change_id: id(point),
            content: PointId::parse(point).unwrap(),
            changed: changed.iter().map(|(since, list)| (id(since), extents(list))).collect(),
        };
        let identity = SourceIdentity {
            instance_uuid: InstanceUuid::from_path(&self.vm),
            endpoint: Endpoint::parse("push").unwrap(),
        };
        let disks = keys.iter().map(disk).collect();
        Arc::new(PushSource::new(PushVm { identity, path: self.vm.clone(), disks }).unwrap())
    }

    /// Begins a run that waits for its agent.
    async fn push(&self, keys: &[&str], point: &str, changed: Changed) -> Pushing {
        self.push_by(self.services(), keys, point, changed).await
    }

    /// As [`World::push`], by these services.
    async fn push_by(
        &self,
        (services, server): (Services, Arc<MemoryExportServer>),
        keys: &[&str],
        point: &str,
        changed: Changed,
    ) -> Pushing {
        self.clock.advance(Duration::from_secs(1));
        let services = Services { source: self.described(keys, point, &changed), ..services };
        let (pushes, stop) = (services.pushes.clone(), CancellationToken::new());
        let request = ReplicateRequest { mode: CopyMode::Push, ..self.request() };
        let replicator = Replicator::new(services, worker("appliance"), self.config);
        let told = stop.clone();
        let run = tokio::spawn(async move { replicator.run(&request, &Silent, &told).await });
        let job = loop {
            let jobs = self.jobs().await;
            match jobs.iter().find(|job| !job.status.is_terminal() && pushes.state(&job.id).is_some()) {
                Some(job) => break job.id.clone(),
                None if run.is_finished() => panic!("{:?}", run.await),
                None => tokio::task::yield_now().await,
            }
        };
        Pushing { server, pushes, job, stop, run }
    }

    async fn assert_equal(&self, keys: &[&str]) {
        for key in keys {
            let source = self.source.disk(&self.vm, &self::key(key)).unwrap();
            assert!(source.bytes() == self.target(key).await.bytes(), "{key} differs");
        }
    }
}

impl Pushing {
    fn state(&self) -> PushState {
        self.pushes.state(&self.job).unwrap()
    }

    fn export(&self, key: &str) -> ExportName {
        self.state().disks.into_iter().find(|disk| disk.key == self::key(key)).unwrap().export
    }

    fn connect(&self, key: &str) -> Arc<dyn BlockDevice> {
        self.server.connect(&self.export(key)).unwrap()
    }

    /// Writes what the source has in the extents.
    async fn write(&self, world: &World, key: &str, extents: &ExtentSet) {
        let (from, to) = (world.source.disk(&world.vm, &self::key(key)).unwrap(), self.connect(key));
        for extent in extents.iter() {
            let buffer = bytes::BytesMut::zeroed(usize::try_from(extent.length()).unwrap());
            let data = from.read_at(extent.offset(), buffer).await.unwrap().freeze();
            to.write_at(extent.offset(), data, Durability::Cached).await.unwrap();
        }
    }

    async fn report(&self, key: &str, point: &str) -> Result<()> {
        let report = PushReport { key: self::key(key), change_id: id(point), previous: None };
        self.pushes.report(&self.job, self.state().fence, report).await
    }

    async fn finished(&self, key: &str, extents: ExtentSet) -> Result<()> {
        self.pushes.finished(&self.job, self.state().fence, self::key(key), extents).await
    }

    async fn fail(&self, failure: PushFailure) -> Result<()> {
        self.pushes.fail(&self.job, self.state().fence, failure).await
    }

    /// Copies what is to be copied of every disk, and reports it.
    async fn complete(self, world: &World, point: &str) -> Report {
        for disk in self.state().disks {
            self.write(world, disk.key.as_str(), &disk.work).await;
            self.report(disk.key.as_str(), point).await.unwrap();
        }
        self.run.await.unwrap().unwrap()
    }

    /// Ends as a killed process does.
    async fn kill(self) {
        self.run.abort();
        let _ = self.run.await;
    }
}

#[tokio::test]
async fn l08_no_disk_advances_before_all_are_reported_and_then_all_do() {
    let world = World::new(&[DISK, "disk-2001"]).await;
    let pushing = world.push(&[DISK, "disk-2001"], "b@1", None).await;
    assert_eq!(world.volume(DISK).await.content, VolumeContent::Inconsistent, "L12");
    let work = pushing.state().disks[0].work.clone();
    assert_eq!((work.bytes(), pushing.state().disks[0].blank), (CAPACITY, true));
    pushing.write(&world, DISK, &work).await;
    pushing.report(DISK, "b@1").await.unwrap();
    pushing.report(DISK, "b@1").await.unwrap();
    assert!(pushing.state().disks[0].reported && !pushing.state().disks[1].reported);
    assert_eq!(world.change_ids().await, [None, None]);

    pushing.write(&world, "disk-2001", &work).await;
    pushing.report("disk-2001", "b@1").await.unwrap();
    let report = pushing.run.await.unwrap().unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    assert_eq!(report.disks[0].bytes_written, CAPACITY);
    assert_eq!(world.change_ids().await, [Some(id("b@1")), Some(id("b@1"))]);
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l09_only_what_changed_since_the_committed_point_is_asked_for() {
    let world = World::new(&[DISK]).await;
    let first = world.push(&[DISK], "b@1", None).await.complete(&world, "b@1").await;
    assert!(first.outcome.is_completed());
    world.write(DISK, 65_536, 4096, 9).await;

    let second = world.push(&[DISK], "b@2", Some(("b@1", vec![(65_536, 4096)]))).await;
    let disk = second.state().disks.remove(0);
    assert_eq!((disk.base, disk.fresh, disk.blank), (Some(id("b@1")), true, false));
    assert_eq!(disk.work, extents(&[(65_536, 4096)]));
    let outside = second.connect(DISK).write_at(0, vec![1; 512].into(), Durability::Cached).await;
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::PermissionDenied);
    let report = second.complete(&world, "b@2").await;
    assert_eq!(report.replication_type, ReplicationType::Incremental);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l09_changes_since_another_point_are_of_no_use() {
    let world = World::new(&[DISK]).await;
    world.push(&[DISK], "b@1", None).await.complete(&world, "b@1").await;
    let second = world.push(&[DISK], "b@3", Some(("b@2", vec![(65_536, 4096)]))).await;
    let disk = second.state().disks.remove(0);
    assert_eq!((disk.base, disk.work.bytes()), (None, CAPACITY));
    second.complete(&world, "b@3").await;
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l09_a_report_of_something_else_is_refused_and_the_job_goes_on() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    let report = |key: &str, change_id: &str, previous: Option<&str>| {
        let previous = previous.map(id);
        let report = PushReport { key: self::key(key), change_id: id(change_id), previous };
        pushing.pushes.report(&pushing.job, pushing.state().fence, report)
    };
    for (answer, kind) in [
        (report(DISK, "b@2", None).await, ErrorKind::Conflict),
        (report(DISK, "b@1", Some("b@0")).await, ErrorKind::Conflict),
        (report("disk-7", "b@1", None).await, ErrorKind::NotFound),
        (pushing.finished("disk-7", extents(&[(0, 1)])).await, ErrorKind::NotFound),
        (pushing.finished(DISK, extents(&[(0, CAPACITY.bytes() + 1)])).await, ErrorKind::Invalid),
    ] {
        assert_eq!(answer.unwrap_err().kind(), kind);
    }
    let nobody = JobId::mint(SystemClock.now());
    let failure = PushFailure { reason: "tired".to_owned(), mixed: false };
    assert_eq!(
        pushing.pushes.fail(&nobody, Fence(1), failure).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(!pushing.state().disks[0].reported);
    pushing.complete(&world, "b@1").await;
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l16_an_agent_of_an_earlier_run_writes_nothing_any_more() {
    let world = World::new(&[DISK]).await;
    let first = world.push(&[DISK], "b@1", None).await;
    let (old, name, fence) = (first.connect(DISK), first.export(DISK), first.state().fence);
    first.stop.cancel();
    let report = first.run.await.unwrap().unwrap();
    assert!(matches!(report.outcome, Outcome::Suspended), "{report:?}");

    let late = old.write_at(0, vec![0xee; 512].into(), Durability::Cached).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
    drop(old);

    let second = world.push(&[DISK], "b@1", None).await;
    assert!(second.job == first.job && second.state().fence > fence);
    assert!(second.server.connect(&name).is_err(), "the name is of the run before");
    second.complete(&world, "b@1").await;
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l15_what_was_finished_is_not_copied_again_after_a_crash() {
    let world = World::new(&[DISK]).await;
    let first = world.push(&[DISK], "b@1", None).await;
    let half = extents(&[(0, 2 << 20)]);
    first.write(&world, DISK, &half).await;
    let flushes = world.target(DISK).await.calls().flushes;
    first.finished(DISK, half.clone()).await.unwrap();
    assert!(world.target(DISK).await.calls().flushes > flushes, "durable before it counts");
    let job = first.job.clone();
    first.kill().await;

    let second = world.push(&[DISK], "b@1", None).await;
    let disk = second.state().disks.remove(0);
    assert_eq!((&second.job, disk.work.clone()), (&job, extents(&[(2 << 20, 2 << 20)])));
    assert!(!disk.fresh && !disk.blank && !disk.reported);
    let report = second.complete(&world, "b@1").await;
    assert_eq!(report.disks[0].bytes_resumed, ByteSize::mib(2));
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn an_agent_that_died_is_followed_by_one_that_goes_on_from_what_is_finished() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    let (half, rest) = (extents(&[(0, 2 << 20)]), extents(&[(2 << 20, 2 << 20)]));
    pushing.write(&world, DISK, &half).await;
    let told = pushing.state().disks.remove(0);
    assert!(!told.blank && !told.fresh, "something was written, and nobody knows what");
    pushing.finished(DISK, half).await.unwrap();
    let told = pushing.state().disks.remove(0);
    assert_eq!((told.work.clone(), told.blank), (rest.clone(), true));
    pushing.write(&world, DISK, &extents(&[(3 << 20, 4096)])).await;
    let told = pushing.state().disks.remove(0);
    assert_eq!((told.work, told.blank), (rest, false));
    pushing.complete(&world, "b@1").await;
    world.assert_replicated(1).await;
}

/// Whatever was written and not said to be finished is asked for again: a tool may write zeroes first and data later.
#[tokio::test]
async fn what_was_only_written_is_not_taken_for_finished() {
    let world = World::new(&[DISK]).await;
    let first = world.push(&[DISK], "b@1", None).await;
    let whole = extents(&[(0, CAPACITY.bytes())]);
    let zeroes = first.connect(DISK);
    zeroes
        .write_zeroes(whole.last().unwrap(), crate::traits::Zeroing::Punch, Durability::Cached)
        .await
        .unwrap();
    zeroes.flush().await.unwrap();
    drop(zeroes);
    first.kill().await;
    let second = world.push(&[DISK], "b@1", None).await;
    assert_eq!(second.state().disks[0].work, whole);
    second.complete(&world, "b@1").await;
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn another_point_takes_over_only_what_is_known_to_hold_there() {
    for known in [false, true] {
        let world = World::new(&[DISK]).await;
        let first = world.push(&[DISK], "b@1", None).await;
        let half = extents(&[(0, 2 << 20)]);
        first.write(&world, DISK, &half).await;
        first.finished(DISK, half).await.unwrap();
        let failure = PushFailure { reason: "its snapshot is gone".to_owned(), mixed: false };
        first.fail(failure).await.unwrap();
        let report = first.run.await.unwrap().unwrap();
        assert!(failure_text(&report).contains("its snapshot is gone"));

        world.write(DISK, 4096, 4096, 5).await;
        let changed = known.then(|| ("b@1", vec![(4096, 4096)]));
        let second = world.push(&[DISK], "b@2", changed).await;
        let work = second.state().disks[0].work.clone();
        let rest = [(2 << 20, 2 << 20)];
        let expected =
            if known { extents(&[(4096, 4096), rest[0]]) } else { extents(&[(0, CAPACITY.bytes())]) };
        assert_eq!(work, expected, "{known}");
        second.complete(&world, "b@2").await;
        world.assert_equal(&[DISK]).await;
    }
}

fn failure_text(report: &Report) -> String {
    failure(report).chain()
}

#[tokio::test]
async fn l08_what_is_of_no_one_moment_is_built_on_by_nobody() {
    let world = World::new(&[DISK]).await;
    let first = world.push(&[DISK], "b@1", None).await;
    let whole = extents(&[(0, CAPACITY.bytes())]);
    first.write(&world, DISK, &whole).await;
    first.finished(DISK, whole.clone()).await.unwrap();
    let generation = world.volume(DISK).await.generation;
    let failure = PushFailure { reason: "the file was written".to_owned(), mixed: true };
    first.fail(failure).await.unwrap();
    let report = first.run.await.unwrap().unwrap();
    assert!(matches!(report.outcome, Outcome::Failed(_)));
    assert_eq!(world.jobs().await[0].status, JobStatus::Failed);
    assert!(world.volume(DISK).await.generation > generation);
    let second = world.push(&[DISK], "b@1", None).await;
    assert_eq!(second.state().disks[0].work, whole);
    second.complete(&world, "b@1").await;
    world.assert_equal(&[DISK]).await;
}

#[tokio::test]
async fn l08_a_write_after_the_report_keeps_the_epoch_from_being_committed() {
    let world = World::new(&[DISK, "disk-2001"]).await;
    let pushing = world.push(&[DISK, "disk-2001"], "b@1", None).await;
    pushing.report(DISK, "b@1").await.unwrap();
    let late = pushing.connect(DISK).write_at(0, vec![1; 512].into(), Durability::Cached).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::PermissionDenied);
    let said = pushing.finished(DISK, extents(&[(0, 512)])).await;
    assert_eq!(said.unwrap_err().kind(), ErrorKind::Conflict);
    pushing.report("disk-2001", "b@1").await.unwrap();
    let report = pushing.run.await.unwrap().unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Conflict);
    assert_eq!(world.change_ids().await, [None, None]);
}

#[tokio::test]
async fn l08_a_report_is_not_answered_before_the_volume_is_durable() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    let work = pushing.state().disks[0].work.clone();
    pushing.write(&world, DISK, &work).await;
    world.backend.faults(&key(DISK)).fail_nth(DeviceCall::Flush, 1);
    assert_eq!(pushing.report(DISK, "b@1").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let report = pushing.run.await.unwrap().unwrap();
    assert!(matches!(report.outcome, Outcome::Failed(_)), "{report:?}");
    assert_eq!(world.change_ids().await, [None]);
    // Whatever the volume holds by now is nobody's word.
    let again = world.push(&[DISK], "b@1", None).await;
    assert_eq!(again.state().disks[0].work, work);
    again.complete(&world, "b@1").await;
    world.assert_equal(&[DISK]).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_shows_no_sign_of_life_is_waited_for_only_so_long() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    let patience = world.config.agent_patience;
    for _ in 0..3 {
        tokio::time::sleep(patience * 2 / 3).await;
        // To look is a sign of life, as is to write.
        assert!(pushing.pushes.look(&pushing.job).is_some());
        tokio::time::sleep(patience * 2 / 3).await;
        pushing.connect(DISK).read_at(0, bytes::BytesMut::zeroed(512)).await.unwrap();
    }
    let begun = tokio::time::Instant::now();
    let report = pushing.run.await.unwrap().unwrap();
    assert!(failure_text(&report).contains("no sign of life"), "{report:?}");
    assert!(begun.elapsed() <= patience + Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_only_the_agent_can_do_is_not_asked_of_the_engine() {
    let world = World::new(&[DISK]).await;
    let (services, _) = world.services();
    let services = Services { source: world.described(&[DISK], "b@1", &None), ..services };
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    let pushed = ReplicateRequest { mode: CopyMode::Push, ..world.request() };
    for request in [
        ReplicateRequest { verify: VerifyLevel::Full, ..pushed.clone() },
        ReplicateRequest { trust: crate::engine::TrustPolicy::SpotCheck { permille: 1 }, ..pushed },
    ] {
        let refused = replicator.run(&request, &Silent, &CancellationToken::new()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(world.jobs().await.is_empty());
}
