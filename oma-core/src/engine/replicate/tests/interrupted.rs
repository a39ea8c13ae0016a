//! Runs that are killed, stopped, fenced off or refused, and the runs after them.

use std::sync::atomic::AtomicBool;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::*;
use crate::record::ExportRecord;
use crate::state::ExportEvent;
use crate::traits::{Drained, Export, ExportRegistry, ExportSpec, ExportStatistics};
use crate::{ExportName, Generation, VolumeId};

/// Runs until the `nth` event and dies there, without any clean-up. Whether there were so many events.
pub(super) async fn crash(world: &Arc<World>, nth: usize) -> bool {
    crash_at(world, "any", nth).await
}

/// As [`crash`], at the `nth` event that is named so.
pub(super) async fn crash_at(world: &Arc<World>, event: &'static str, nth: usize) -> bool {
    crash_as(world, event, nth, world.request()).await
}

/// As [`crash_at`], of a run as it was asked for.
pub(super) async fn crash_as(
    world: &Arc<World>,
    event: &'static str,
    nth: usize,
    request: ReplicateRequest,
) -> bool {
    world.clock.advance(Duration::from_secs(1));
    let dying = Arc::clone(world);
    let task = tokio::spawn(async move {
        let (services, _) = dying.services();
        let replicator = Replicator::new(services, worker("appliance"), dying.config);
        let die = Acting::at(event, nth, || std::panic::resume_unwind(Box::new("killed")));
        replicator.run(&request, &die, &CancellationToken::new()).await.map(drop)
    });
    match task.await {
        Err(error) => error.is_panic(),
        Ok(result) => {
            result.unwrap();
            false
        }
    }
}

#[tokio::test]
async fn l15_killed_at_any_event_of_a_full_run_the_next_one_completes_the_epoch() {
    let mut nth = 1;
    loop {
        let world = Arc::new(World::new(&["disk-2000", "disk-2001"]).await);
        if !crash(&world, nth).await {
            break;
        }
        let committed = world.jobs().await.first().is_some_and(|job| job.status == JobStatus::Completed);
        if !committed {
            assert_eq!(world.change_ids().await, [None, None], "event {nth}");
            let report = world.run().await;
            assert!(report.outcome.is_completed(), "event {nth}: {report:?}");
            assert_eq!(world.jobs().await.len(), 1, "event {nth}: the same job goes on");
        }
        world.assert_consistent(1).await;
        nth += 1;
    }
    assert!(nth > 40, "only {nth} events");
}

#[tokio::test]
async fn l02_a_first_epoch_that_dies_between_its_new_mark_and_its_commit_is_committed_without_a_copy() {
    let world = Arc::new(World::new(&["disk-2000"]).await);
    world.write("disk-2000", 0, 3 << 20, 7).await;
    let before = async || world.volume("disk-2000").await;
    let cut = Acting::at("begins commit", 1, || world.backend.disconnect());
    let failed = world.run_as(&world.request(), &cut).await.unwrap();
    assert_eq!(failure(&failed).kind(), ErrorKind::Unavailable);
    let renewed = before().await;
    assert_eq!(
        (renewed.generation, renewed.held_epoch),
        (Generation(2), true),
        "no record of before knows it"
    );
    assert_eq!(renewed.content, VolumeContent::Inconsistent);
    world.backend.reconnect();
    let marked = world.backend.get(&renewed.id).await.unwrap().unwrap().tag.unwrap();
    assert_eq!(marked.generation, Generation(1), "it does not bear it yet");
    let disk = world.run().await.disks.remove(0);
    assert_eq!(
        (disk.bytes_read, disk.bytes_written, disk.bytes_hashed),
        (ByteSize::ZERO, ByteSize::ZERO, ByteSize::ZERO)
    );
    world.assert_replicated(1).await;
    let marked = world.backend.get(&renewed.id).await.unwrap().unwrap().tag.unwrap();
    assert_eq!((marked.generation, before().await.generation), (Generation(2), Generation(2)));
    world.write("disk-2000", 1 << 20, 4096, 9).await;
    assert_eq!(world.run().await.replication_type, ReplicationType::Incremental);
    assert_eq!(before().await.generation, Generation(2), "later epochs have it for good");
}

#[tokio::test]
async fn l15_killed_twice_at_any_event_of_an_incremental_run_the_next_one_completes_the_epoch() {
    let mut nth = 1;
    loop {
        let world = Arc::new(World::new(&["disk-2000"]).await);
        world.run().await;
        world.write("disk-2000", 1_000_000, 300_000, 8).await;
        world.write("disk-2000", 3 << 20, 200_000, 9).await;
        if !crash(&world, nth).await {
            break;
        }
        // The source moves on while the appliance is down: another point in time, the union of changes.
        world.source.forget_points();
        world.write("disk-2000", 2 << 20, 100_000, 10).await;
        let died_again = crash(&world, nth).await;
        if died_again || world.disks().await[0].epoch == Epoch(1) {
            assert!(world.run().await.outcome.is_completed(), "event {nth}");
        }
        let epoch = world.disks().await[0].epoch.0;
        world.assert_consistent(epoch).await;
        nth += 1;
    }
    assert!(nth > 20, "only {nth} events");
}

#[tokio::test]
async fn l11_a_stopped_run_is_suspended_and_the_same_request_continues_it() {
    let world = World::new(&["disk-2000"]).await;
    let stop = CancellationToken::new();
    let (services, server) = world.services();
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    let progress = Acting::at("recorded", 1, || stop.cancel());
    let report = replicator.run(&world.request(), &progress, &stop).await.unwrap();
    assert!(matches!(report.outcome, Outcome::Suspended), "{report:?}");
    assert_eq!(server.list().try_collect::<Vec<_>>().await.unwrap(), []);
    assert_eq!(world.jobs().await[0].status, JobStatus::Replicating);
    let second = world.run().await;
    assert_eq!(second.job, report.job);
    assert!(second.disks[0].bytes_resumed > ByteSize::ZERO);
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn a_live_job_with_other_disks_is_a_conflict_and_cancelling_it_clears_the_way() {
    let world = Arc::new(World::new(&["disk-2000", "disk-2001"]).await);
    assert!(crash(&world, 8).await);
    world.source.remove_disk(&world.vm, &key("disk-2001"));
    let error = world.run_as(&world.request(), &Silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains("disk-2000, disk-2001"), "{}", error.chain());
    // Of what was refused nothing is recorded.
    world.source.add_disk(&world.vm, &key("typo"), CAPACITY);
    let error = world.run_as(&world.request(), &Silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(world.disks().await.len(), 2);
    world.source.remove_disk(&world.vm, &key("typo"));
    let (services, _) = world.services();
    let job = world.jobs().await[0].id.clone();
    let cancelled = cancel(&services, &worker("appliance"), &job, "wrong disks").await.unwrap();
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    assert!(world.run().await.outcome.is_completed());
}

#[tokio::test]
async fn l16_a_job_that_another_worker_took_over_changes_nothing_any_more() {
    let world = World::new(&["disk-2000"]).await;
    let steal = Acting::at("begins copy", 1, || {
        world.clock.advance(Duration::from_secs(3600));
        let job = now(world.jobs())[0].id.clone();
        now(world.store.claim(&job, &worker("other"), Duration::from_secs(3600))).unwrap();
    });
    let error = world.run_as(&world.request(), &steal).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    let volume = world.volume("disk-2000").await;
    assert_eq!(volume.content, VolumeContent::Blank, "nothing was marked, so nothing may be written");
    assert_eq!(world.target("disk-2000").await.calls().writes, 0);
    assert_eq!(world.jobs().await[0].status, JobStatus::Ready);
}

#[tokio::test]
async fn l16_a_worker_that_lost_its_lease_withdraws_its_own_exports_and_no_later_ones() {
    for taken_over in [false, true] {
        let world = World::new(&["disk-2000", "disk-2001"]).await;
        let (services, server) = world.services();
        let steal = Acting::at("begins copy", 1, || {
            world.clock.advance(Duration::from_secs(3600));
            let job = now(world.jobs())[0].id.clone();
            let lease = now(world.store.claim(&job, &worker("other"), Duration::from_secs(3600))).unwrap();
            let served: Vec<_> = now(server.list().try_collect()).unwrap();
            assert!(served.len() == 2 && served.iter().all(|export: &Export| export.fence < lease.fence));
            if taken_over {
                let Export { name, description, access, .. } = served[1].clone();
                let device = Arc::new(now(world.target("disk-2001")).read_only());
                let later = ExportSpec { name, description, access, fence: lease.fence, device };
                now(server.publish(later)).unwrap();
            }
        });
        let replicator = Replicator::new(services, worker("appliance"), world.config);
        let error = replicator.run(&world.request(), &steal, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        let left: Vec<_> = server.list().try_collect().await.unwrap();
        assert_eq!(left.len(), usize::from(taken_over), "{left:?}");
        assert!(left.iter().all(|export| export.name.as_str().ends_with("disk-2001")), "{left:?}");
    }
}

#[tokio::test]
async fn a_job_that_another_worker_drives_is_busy() {
    let world = World::new(&["disk-2000"]).await;
    let vm = world.source.discover(&world.vm).await.unwrap();
    let context = world.store.record(&vm).await.unwrap();
    assert_eq!(context.status, ContextStatus::Discovered);
    let id = JobId::mint(world.clock.now());
    let replication_type = ReplicationType::Initial;
    let spec = JobSpec::new(id.clone(), context.id, replication_type, vec![key("disk-2000")]);
    world.store.insert(spec).await.unwrap();
    world.store.claim(&id, &worker("other"), Duration::from_secs(60)).await.unwrap();
    let error = world.run_as(&world.request(), &Silent).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Exhausted));
}

#[tokio::test]
async fn l21_a_source_that_cannot_be_asked_records_no_job() {
    let world = World::new(&["disk-2000"]).await;
    world.source.disconnect();
    let error = world.run_as(&world.request(), &Silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(world.jobs().await.is_empty());
    world.source.reconnect();
    world.run().await;
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn a_backend_without_room_fails_the_job_and_leaves_no_volume() {
    let world = World::new(&["disk-2000"]).await;
    let small = World { backend: Arc::new(MemoryBackend::new().with_room(ByteSize::mib(1))), ..world };
    let report = small.run().await;
    assert_eq!(failure(&report).kind(), ErrorKind::NoSpace);
    assert!(report.disks[0].volume.is_none());
    assert!(
        small
            .store
            .volumes(crate::record::VolumeFilter::default())
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .is_empty()
    );
}

/// An export server that cannot withdraw one disk's export.
#[derive(Debug)]
struct Stubborn {
    inner: MemoryExportServer,
    disk: &'static str,
}

#[async_trait::async_trait]
impl ExportServer for Stubborn {
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        self.inner.publish(spec).await
    }

    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        if name.as_str().ends_with(self.disk) {
            return Err(Error::new(ErrorKind::Internal, "withdraw export", name));
        }
        self.inner.withdraw(name, deadline).await
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        self.inner.list()
    }

    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        self.inner.statistics(name).await
    }
}

#[tokio::test]
async fn l23_an_export_that_cannot_be_withdrawn_does_not_keep_the_others() {
    let world = World::new(&["disk-2000", "disk-2001"]).await;
    let (mut services, _) = world.services();
    let server = Arc::new(Stubborn { inner: MemoryExportServer::new(), disk: "disk-2000" });
    services.server = server.clone();
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    let report = replicator.run(&world.request(), &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Internal);
    assert_eq!(world.change_ids().await, [None, None]);
    let left: Vec<_> = server.list().try_collect().await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].name.as_str().ends_with("disk-2000"));
    assert!(
        report.warnings.iter().any(|warning| warning.contains("still published")),
        "{:?}",
        report.warnings
    );
}

/// Exports whose records cannot be changed while there is no room for them.
#[derive(Debug)]
struct NoRoom(Arc<MemoryStore>, AtomicBool);

impl NoRoom {
    fn check(&self, name: &ExportName) -> Result<()> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::NoSpace, "record export", name)),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl ExportRegistry for NoRoom {
    async fn begin(
        &self,
        lease: &Lease,
        name: &ExportName,
        disk: &DiskKey,
        volume: &VolumeId,
    ) -> Result<ExportRecord> {
        self.check(name)?;
        ExportRegistry::begin(&*self.0, lease, name, disk, volume).await
    }

    async fn advance(&self, lease: &Lease, name: &ExportName, event: ExportEvent) -> Result<ExportRecord> {
        self.check(name)?;
        ExportRegistry::advance(&*self.0, lease, name, event).await
    }

    async fn export(&self, name: &ExportName) -> Result<Option<ExportRecord>> {
        self.0.export(name).await
    }

    fn exports(&self) -> BoxStream<'_, Result<ExportRecord>> {
        self.0.exports()
    }

    async fn remove(&self, name: &ExportName) -> Result<()> {
        self.check(name)?;
        ExportRegistry::remove(&*self.0, name).await
    }
}

/// A database on a full disk must not keep the volume open: the next attempt of the same process would wait for itself.
#[tokio::test]
async fn l23_what_cannot_be_recorded_is_served_no_longer_all_the_same() {
    let world = World::new(&["disk-2000"]).await;
    let (mut services, _) = world.services();
    let (server, records) =
        (Arc::new(MemoryExportServer::new()), Arc::new(NoRoom(world.store.clone(), AtomicBool::new(false))));
    (services.server, services.exports) = (server.clone(), records.clone());
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    let full = Acting::at("begins copy", 1, || {
        records.1.store(true, Ordering::SeqCst);
        world.source.faults(&key("disk-2000")).fail_reads_in(Extent::new(0, 1).unwrap());
    });
    let stop = CancellationToken::new();
    let report = replicator.run(&world.request(), &full, &stop).await.unwrap();
    assert!(!report.outcome.is_completed(), "{report:?}");
    assert_eq!(server.list().count().await, 0, "nothing is served");
    records.1.store(false, Ordering::SeqCst);
    world.source.faults(&key("disk-2000")).clear();
    let report = replicator.run(&world.request(), &Silent, &stop).await.unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    world.assert_replicated(1).await;
    assert_eq!(world.store.exports().count().await, 0);
}
