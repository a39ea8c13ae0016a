//! Sources that fail, hang, change or lie: told by name, or survived as `docs/bad-sources.md` says; never silent.

use std::sync::atomic::AtomicBool;

use tokio::time::Instant;

use super::*;
use crate::engine::{TrustPolicy, verify};
use crate::memory::Faults;
use crate::record::{SourceVm, VerificationScope};
use crate::traits::{Changes, PointInTime};
use crate::{JobId, PointId};

/// A sector with data.
fn sector() -> Extent {
    Extent::new((2 << 20) + 4096, 512).unwrap()
}

/// A VM of two disks with one epoch, which have changed since.
async fn changed_world() -> World {
    let world = World::new(&["disk-2000", "disk-2001"]).await;
    assert!(world.run().await.outcome.is_completed());
    for disk in ["disk-2000", "disk-2001"] {
        world.write(disk, 2 << 20, 300_000, 7).await;
    }
    world
}

/// The same with disks of this machine.
async fn local_world() -> World {
    let world = changed_world().await;
    world.use_in_place(&["disk-2000", "disk-2001"]);
    world
}

/// A run with such a fault of one disk fails so and names disk and extent; no epoch moves, and the next run makes it.
async fn fails_and_goes_on(world: World, fault: impl Fn(&Faults), kind: ErrorKind, words: &[&str]) {
    let before = world.change_ids().await;
    let faults = world.source.faults(&key("disk-2001"));
    fault(&faults);
    let report = world.run().await;
    let error = failure(&report);
    assert_eq!(error.kind(), kind, "{}", error.chain());
    let told = report.disks[1].error.clone().unwrap();
    for word in [&["disk-2001"], words].concat() {
        assert!(told.contains(word), "{word:?} is not in {told:?}");
    }
    // The extent that is named has the sector in it.
    let named = told.split(['+', ' ']).find_map(|word| word.parse::<u64>().ok()).unwrap();
    assert!(named <= sector().offset() && sector().offset() < named + (64 << 10), "{told}");
    assert_eq!(world.change_ids().await, before);
    faults.clear();
    world.until_left().await;
    assert!(world.run().await.outcome.is_completed());
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn a_sector_that_cannot_be_read_fails_the_run_and_is_named() {
    let fault = |faults: &Faults| {
        faults.fail_as(ErrorKind::Internal, Retry::Never);
        faults.fail_reads_in(sector());
    };
    fails_and_goes_on(changed_world().await, fault, ErrorKind::Internal, &["a fault was injected"]).await;
    fails_and_goes_on(local_world().await, fault, ErrorKind::Internal, &["a fault was injected"]).await;
}

#[tokio::test]
async fn l11_a_read_that_answers_too_little_is_not_success() {
    let fault = |faults: &Faults| faults.shorten_reads_in(sector());
    fails_and_goes_on(changed_world().await, fault, ErrorKind::Corrupt, &["it answered"]).await;
    fails_and_goes_on(local_world().await, fault, ErrorKind::Corrupt, &["it answered"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_that_never_ends_is_ended() {
    let begun = Instant::now();
    let words = ["did not answer within"];
    let fault = |faults: &Faults| faults.stall_reads_in(sector());
    fails_and_goes_on(changed_world().await, fault, ErrorKind::Unavailable, &words).await;
    assert!(begun.elapsed() < ReplicateConfig::default().read_limit * 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_read_of_a_local_disk_that_never_ends_is_ended() {
    let mut world = local_world().await;
    world.config.read_limit = Duration::from_millis(100);
    let fault = |faults: &Faults| faults.stall_reads_in(sector());
    fails_and_goes_on(world, fault, ErrorKind::Unavailable, &["did not answer within"]).await;
}

/// A source whose calls hang, or that opens another size than it told.
#[derive(Debug)]
struct Odd {
    inner: Arc<MemorySource>,
    hangs: Option<&'static str>,
    opens: Option<ByteSize>,
    /// Set once somebody wrote to it.
    is_written: Arc<AtomicBool>,
}

impl Odd {
    async fn pass(&self, call: &str) {
        if self.hangs == Some(call) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait::async_trait]
impl DiskSource for Odd {
    async fn discover(&self, vm: &VmPath) -> Result<SourceVm> {
        self.pass("discover").await;
        self.inner.discover(vm).await
    }

    async fn freeze(&self, vm: &VmPath, job: &JobId) -> Result<PointInTime> {
        self.pass("freeze").await;
        self.inner.freeze(vm, job).await
    }

    async fn changed(&self, point: &PointId, key: &DiskKey, since: &ChangeId) -> Result<Changes> {
        self.pass("changed").await;
        self.inner.changed(point, key, since).await
    }

    async fn committed(&self, point: &PointId, key: &DiskKey, change_id: &ChangeId) -> Result<()> {
        self.inner.committed(point, key, change_id).await
    }

    async fn open(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>> {
        self.pass("open").await;
        match self.opens {
            None => self.inner.open(point, key).await,
            Some(capacity) => Ok(Arc::new(MemoryDevice::new("other", capacity))),
        }
    }

    async fn confirm(&self, point: &PointInTime) -> Result<()> {
        self.pass("confirm").await;
        if self.is_written.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Conflict, "confirm", &point.id));
        }
        self.inner.confirm(point).await
    }

    async fn release(&self, point: &PointId) -> Result<()> {
        self.inner.release(point).await
    }

    async fn release_job(&self, job: &JobId) -> Result<()> {
        self.inner.release_job(job).await
    }
}

async fn run_on(world: &World, source: Odd) -> Result<Report> {
    let (services, _) = world.services();
    let services = Services { source: Arc::new(source), ..services };
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    replicator.run(&world.request(), &Silent, &CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_source_that_hangs_is_ended_and_the_next_run_completes() {
    for call in ["discover", "freeze", "changed", "open", "confirm"] {
        let world = changed_world().await;
        let source =
            Odd { inner: world.source.clone(), hangs: Some(call), opens: None, is_written: Arc::default() };
        let error = match run_on(&world, source).await {
            Ok(report) => failure(&report).chain(),
            Err(error) => error.chain(),
        };
        assert!(error.contains("did not answer within"), "{call}: {error}");
        world.clock.advance(Duration::from_secs(3600));
        assert!(world.run().await.outcome.is_completed(), "{call}");
        world.assert_consistent(2).await;
    }
}

/// Where nothing can be frozen, only the end of a copy tells.
#[tokio::test]
async fn l08_what_was_written_while_it_was_copied_is_no_epoch() {
    let world = changed_world().await;
    let is_written = Arc::new(AtomicBool::new(false));
    let source =
        Odd { inner: world.source.clone(), hangs: None, opens: None, is_written: is_written.clone() };
    let (before, volume) = (world.change_ids().await, world.volume("disk-2000").await);
    // After all of it was read.
    let write = Acting::at("ended verify", 1, || is_written.store(true, Ordering::SeqCst));
    let request = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
    let services = Services { source: Arc::new(source), ..world.services().0 };
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    let report = replicator.run(&request, &write, &CancellationToken::new()).await.unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Conflict, "{report:?}");
    assert_eq!(world.change_ids().await, before);
    assert!(world.volume("disk-2000").await.generation > volume.generation);
    // The source has the content that it had, by its own word: nothing of the run before is built on.
    let report = world.run().await;
    assert!(report.outcome.is_completed(), "{report:?}");
    assert_eq!(report.disks[0].bytes_resumed, ByteSize::ZERO);
    assert_eq!(report.disks[0].bytes_equal, CAPACITY, "all is compared: {report:?}");
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l13_a_disk_that_shrank_between_its_point_in_time_and_its_opening_is_refused() {
    let world = changed_world().await;
    let opens = Some(ByteSize::mib(3));
    let report =
        run_on(&world, Odd { inner: world.source.clone(), hangs: None, opens, is_written: Arc::default() })
            .await
            .unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Corrupt);
    assert!(failure(&report).chain().contains("3145728 bytes where 4194304 were promised"), "{report:?}");
    assert!(world.run().await.outcome.is_completed());
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l13_a_disk_that_ends_early_in_the_middle_of_a_copy_is_told() {
    let world = World::new(&["disk-2000"]).await;
    world.write("disk-2000", 0, usize::try_from(CAPACITY.bytes()).unwrap(), 3).await;
    world.source.disk(&world.vm, &key("disk-2000")).unwrap().cut(1 << 20);
    let report = world.run().await;
    assert_eq!(failure(&report).kind(), ErrorKind::Corrupt, "{report:?}");
    assert_eq!(world.change_ids().await, [None]);
}

fn lie() -> Extent {
    Extent::new(2 << 20, 256 << 10).unwrap()
}

/// A disk that says of a part that it reads as zero, which it does not. All else is data, so a comparison that looks at one leaf
/// of what is promised looks at the lie.
async fn lying() -> World {
    let world = World::new(&["disk-2000"]).await;
    world.write("disk-2000", 0, usize::try_from(CAPACITY.bytes()).unwrap(), 3).await;
    world.source.faults(&key("disk-2000")).hide(lie());
    world
}

/// The next run believes no promise of the disk, and mends what was copied believing, whatever the journal has of it.
async fn is_mended(world: &World, epoch: u64) {
    let report = world.run().await;
    assert!(report.outcome.is_completed(), "{report:?}");
    assert!(report.warnings.iter().any(|told| told.contains("once promised zeroes")), "{report:?}");
    world.assert_replicated(epoch).await;
    assert_eq!(report.disks[0].bytes_skipped, report.disks[0].bytes_unchanged, "no promise counts");
}

#[tokio::test]
async fn l10_a_lie_that_a_verification_finds_is_not_built_on() {
    for verify in [VerifyLevel::Full, VerifyLevel::Sample(SampleSize::Permille(1000))] {
        let world = lying().await;
        let report = world.run_as(&ReplicateRequest { verify, ..world.request() }, &Silent).await.unwrap();
        assert_eq!(failure(&report).kind(), ErrorKind::Corrupt, "{report:?}");
        assert_eq!(world.change_ids().await, [None]);
        is_mended(&world, 1).await;
    }
}

#[tokio::test]
async fn l10_a_lie_that_a_spot_check_finds_is_not_built_on() {
    let world = lying().await;
    assert!(world.run().await.outcome.is_completed());
    let check = TrustPolicy::SpotCheck { permille: 1000 };
    let doubting = ReplicateRequest { trust: check, ..world.request() };
    world.write("disk-2000", 0, 1000, 5).await;
    let report = world.run_as(&doubting, &Silent).await.unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Corrupt, "{report:?}");
    is_mended(&world, 2).await;
    // Nor is any that it makes later.
    world.write("disk-2000", 0, 1 << 20, 7).await;
    world.source.faults(&key("disk-2000")).hide(Extent::new(0, 256 << 10).unwrap());
    is_mended(&world, 3).await;
}

/// A promise is believed: what a lie does until somebody looks.
#[tokio::test]
async fn l10_a_lie_that_was_believed_is_found_later_and_copied_when_promises_are_not_believed() {
    let mut world = lying().await;
    let believing = world.request();
    assert!(world.run_as(&believing, &Silent).await.unwrap().outcome.is_completed());
    let source = world.source.disk(&world.vm, &key("disk-2000")).unwrap().bytes();
    assert!(source != world.target("disk-2000").await.bytes(), "the lie was copied");

    world.config.trust_zeroes = false;
    let (services, _) = world.services();
    let request = VerifyRequest::new(world.vm.clone());
    let found = verify(&services, &world.config, &request, &Silent, &CancellationToken::new()).await;
    let found = found.unwrap().report;
    assert_eq!(found.scope, VerificationScope::Full);
    assert_eq!(found.disks[0].differences.iter().collect::<Vec<_>>(), [lie()]);

    // The epoch that believed is not mended by itself: what was never told to have changed is not copied again.
    world.source.reset_tracking(&world.vm, &key("disk-2000"));
    assert!(world.run_as(&believing, &Silent).await.unwrap().outcome.is_completed());
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn block_status_that_is_not_answered_at_once_is_asked_for_again_as_a_read_is() {
    let world = changed_world().await;
    let faults = world.source.faults(&key("disk-2001"));
    faults.fail_nth(crate::memory::DeviceCall::Status, 1);
    assert!(world.run().await.outcome.is_completed());
    assert_eq!(faults.count(), 1);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l04_a_disk_that_came_between_discovery_and_snapshot_ends_the_run_before_anything_is_made() {
    let world = World::new(&["disk-2000"]).await;
    let (source, vm) = (world.source.clone(), world.vm.clone());
    let adds = Acting::at("job", 1, move || drop(source.add_disk(&vm, &key("disk-2001"), CAPACITY)));
    let report = world.run_as(&world.request(), &adds).await.unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Conflict, "{report:?}");
    assert_eq!(world.change_ids().await, [None]);
    let record = world.disk("disk-2000").await.unwrap();
    assert_eq!(world.store.volume_of(&record.disk).await.unwrap(), None);
    assert!(world.run().await.outcome.is_completed());
    world.assert_replicated(1).await;
}
