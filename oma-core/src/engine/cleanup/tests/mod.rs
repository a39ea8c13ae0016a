//! Every mess that jobs leave, cleaned up by processes that die.

mod accidents;
mod deaths;
mod holds;
mod late;
mod races;
mod random;

use futures_util::TryStreamExt as _;

use super::*;
use crate::engine::progress::Progress;
use crate::engine::volumes::tests::world::{CONFIG, Fate, Process, World, paused};
use crate::engine::volumes::tests::{FOR_EVER, request};
use crate::engine::{
    Event, KeepPoints, ReplicateConfig, ReplicateRequest, Replicator, Services, Silent, VolumeChange,
};
use crate::memory::{MemoryExportServer, MemorySource};
use crate::record::{
    CleanupAction as A, CleanupItem, CleanupItemKind as K, ExportRecord, FailoverRecord, JobEnd, JobFilter,
    Orphans, ReplicationJob, VolumeRecord, VolumeTag,
};
use crate::state::{
    CleanupStepStatus, ContextStatus, FailoverKind, FailoverStatus, JobKind, JobStatus, VolumeStatus,
};
use crate::traits::{Access, JobStore, Volume, VolumeBackend, VolumeRegistry, VolumeSpec};
use crate::{ByteSize, DiskKey, DiskRef, Endpoint, InstanceId, OperationId, VmPath, VolumeId, WorkerId};

const KEY: &str = "disk-2000";

/// An appliance and its source. Everything but processes survives a crash, the export server too.
struct Site {
    world: World,
    server: Arc<MemoryExportServer>,
    source: Arc<MemorySource>,
    /// Whether epochs are kept as recovery points.
    points: bool,
}

/// Dies when a step begins.
#[derive(Debug)]
struct DiesAt(&'static str);

impl Progress for DiesAt {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::StepBegins(step) if step == self.0) {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
}

impl Site {
    fn new() -> Self {
        let source = MemorySource::new(Endpoint::parse("vcenter").unwrap());
        Self { world: World::new(), server: Arc::default(), source: Arc::new(source), points: false }
    }

    fn path(name: &str) -> VmPath {
        VmPath::parse(format!("/DC/vm/{name}")).unwrap()
    }

    fn replicator(&self) -> Replicator {
        let World { store, backend, .. } = &self.world;
        let services =
            Services::new(store.clone(), self.source.clone(), backend.clone(), self.server.clone());
        Replicator::new(services, daemon(), ReplicateConfig::default())
    }

    /// A run of a VM of this name, until it is done or dies at this step.
    fn run(&self, name: &str, dies: Option<&'static str>) -> ReplicationJob {
        let key = DiskKey::parse(KEY).unwrap();
        if self.source.disk(&Self::path(name), &key).is_none() {
            self.source.add_disk(&Self::path(name), &key, ByteSize::mib(1));
        }
        self.world.clock.advance(Duration::from_secs(1));
        let replicator = self.replicator();
        let keep = KeepPoints { last: Some(5), ..KeepPoints::default() };
        let request = ReplicateRequest {
            points: self.points.then_some(keep),
            ..ReplicateRequest::new(Self::path(name))
        };
        paused().block_on(async {
            let died = tokio::spawn(async move {
                let stop = CancellationToken::new();
                match dies {
                    None => replicator.run(&request, &Silent, &stop).await.unwrap().outcome.is_completed(),
                    Some(step) => replicator.run(&request, &DiesAt(step), &stop).await.is_ok(),
                }
            });
            assert_eq!(died.await.is_err(), dies.is_some());
        });
        self.last_job()
    }

    fn replicated(&self, name: &str) -> ReplicationJob {
        self.run(name, None)
    }

    /// A job whose worker vanished at this step, and that was given up: nothing was taken back.
    fn failed_at(&self, name: &str, step: &'static str) -> ReplicationJob {
        let job = self.run(name, Some(step));
        paused().block_on(async {
            let lease = self.world.store.claim(&job.id, &daemon(), CONFIG.lease).await.unwrap();
            let end = JobEnd::Failed("worker daemon vanished".to_owned());
            self.world.store.end(&lease, end).await.unwrap()
        })
    }

    /// The same, while it copied.
    fn failed(&self, name: &str) -> ReplicationJob {
        self.failed_at(name, "copy")
    }

    fn jobs(&self) -> Vec<ReplicationJob> {
        let all = JobStore::list(&*self.world.store, JobFilter::default()).try_collect::<Vec<_>>();
        let all = paused().block_on(all).unwrap().into_iter();
        all.filter(|job: &ReplicationJob| job.kind == JobKind::Replicate).collect()
    }

    fn last_job(&self) -> ReplicationJob {
        self.jobs().into_iter().next().unwrap()
    }

    /// A process of the daemon that lives until it is done or dies at its n-th step.
    fn live<T, Fut: Future<Output = T>>(
        &self,
        dies_at: usize,
        fates: &[Fate],
        life: impl FnOnce(CleanupService) -> Fut,
    ) -> Option<T> {
        self.world.live_with("daemon", dies_at, [fates, &[]], |volumes, process: Arc<Process>| {
            let services = CleanupServices {
                inventory: self.world.store.clone(),
                exports: process.clone(),
                points: self.world.store.clone(),
                cleanups: process,
                server: self.server.clone(),
            };
            life(CleanupService::new(volumes, services))
        })
    }

    fn plan(&self, request: &CleanupRequest) -> Cleanup {
        self.live(FOR_EVER, &[], async |cleanups| cleanups.plan(request).await.unwrap()).unwrap()
    }

    fn plan_of(&self, job: &ReplicationJob) -> Cleanup {
        self.plan(&CleanupRequest::new(job.id.clone()))
    }

    /// What a process does at its start, and then with this cleanup, until nothing more is tried.
    fn execute(&self, id: &CleanupId) -> Cleanup {
        self.live(FOR_EVER, &[], async |cleanups| executed(&cleanups, id).await).unwrap()
    }

    /// Processes die until this step is done and the cleanup has not ended.
    fn until_done(&self, id: &CleanupId, step: usize) {
        for dies_at in 1.. {
            self.live(dies_at, &[], async |cleanups| executed(&cleanups, id).await);
            self.world.clock.advance(CONFIG.lease * 2);
            let now = self.now(id);
            assert!(!now.status.is_terminal(), "{now:#?}");
            if now.steps[step].status == CleanupStepStatus::Done {
                return;
            }
        }
    }

    fn now(&self, id: &CleanupId) -> Cleanup {
        paused().block_on(self.world.store.cleanup(id)).unwrap().unwrap()
    }

    fn cleaned(&self, job: &ReplicationJob) -> Cleanup {
        let planned = self.plan_of(job);
        assert_eq!(planned.spec.plan.first, Vec::<String>::new());
        let done = self.execute(&planned.spec.id);
        assert_eq!(done.status, CleanupStatus::Completed, "{done:#?}");
        assert_eq!(done.left, Some(Orphans::default()));
        done
    }

    fn disk(&self, job: &ReplicationJob) -> DiskRef {
        DiskRef { context: job.context.clone(), key: DiskKey::parse(KEY).unwrap() }
    }

    fn volume(&self, job: &ReplicationJob) -> Option<VolumeRecord> {
        paused().block_on(self.world.store.volume_of(&self.disk(job))).unwrap()
    }

    fn in_backend(&self, id: &VolumeId) -> Option<Volume> {
        paused().block_on(self.world.backend.get(id)).unwrap()
    }

    fn exports(&self) -> (Vec<ExportRecord>, usize) {
        paused().block_on(async {
            let recorded = self.world.store.exports().try_collect().await.unwrap();
            let served: Vec<_> = self.server.list().try_collect().await.unwrap();
            (recorded, served.len())
        })
    }

    fn instance(&self) -> InstanceId {
        paused().block_on(self.world.store.instance()).unwrap()
    }

    /// A second run finds nothing to do, and the VM replicates anew.
    fn assert_fresh(&self, name: &str, job: &ReplicationJob) {
        let again = self.plan_of(job);
        assert!(again.spec.plan.is_empty() && again.spec.plan.first.is_empty(), "{again:#?}");
        let done = self.execute(&again.spec.id);
        assert_eq!((done.status, done.left), (CleanupStatus::Completed, Some(Orphans::default())));
        self.world.assert_whole();
        self.source.forget_points();
        assert_eq!(self.replicated(name).status, JobStatus::Completed);
    }
}

async fn executed(cleanups: &CleanupService, id: &CleanupId) -> Cleanup {
    cleanups.volumes().finish_left_over().await.unwrap();
    cleanups.recover().await.unwrap();
    if let Err(error) = cleanups.execute(id).await {
        let now = cleanups.must_find(id).await.unwrap();
        let is_told = now.status == CleanupStatus::Refused || error.kind() == ErrorKind::Unavailable;
        assert!(is_told, "{error:?}");
    }
    cleanups.wait(id, Duration::MAX).await.unwrap()
}

fn daemon() -> WorkerId {
    WorkerId::parse("daemon").unwrap()
}

fn item(cleanup: &Cleanup, kind: K) -> &CleanupItem {
    let found = cleanup.spec.plan.items.iter().find(|item| item.kind == kind);
    found.unwrap_or_else(|| panic!("no {kind:?} in {cleanup:#?}"))
}

fn protection(cleanup: &Cleanup, kind: K) -> &str {
    item(cleanup, kind).protected.as_deref().unwrap_or_else(|| panic!("not protected: {cleanup:#?}"))
}

fn labels(cleanup: &Cleanup) -> Vec<&'static str> {
    cleanup.spec.plan.steps.iter().map(A::label).collect()
}

#[test]
fn l26_a_failed_job_is_planned_without_a_change_and_removed_by_its_plan() {
    let site = Site::new();
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    let before = (site.world.left(), site.exports(), site.jobs());
    let planned = site.plan_of(&job);
    assert_eq!((site.world.left(), site.exports(), site.jobs()), before);
    assert_eq!(labels(&planned), ["withdraw", "detach", "delete", "delete_job", "check"]);
    for kind in [K::Export, K::Volume, K::Device, K::Job] {
        assert_eq!(item(&planned, kind).protected, None, "{kind:?}");
    }
    let done = site.execute(&planned.spec.id);
    assert_eq!((done.status, done.left), (CleanupStatus::Completed, Some(Orphans::default())), "{done:#?}");
    assert!(done.steps.iter().all(|step| step.status == CleanupStepStatus::Done));
    assert_eq!((site.volume(&job), site.in_backend(&volume.id)), (None, None));
    assert_eq!((site.exports(), site.jobs()), ((vec![], 0), vec![]));
    site.assert_fresh("web", &job);
}

#[test]
fn a_volume_that_holds_an_epoch_stays_unless_that_is_wished_for_and_then_can_be_pardoned() {
    let site = Site::new();
    site.replicated("web");
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    let planned = site.plan_of(&job);
    assert!(protection(&planned, K::Volume).contains("epoch"));
    assert_eq!(labels(&planned), ["withdraw", "delete_job", "check"]);

    let wish = CleanupRequest { volumes: KeepVolumes::Condemn, ..CleanupRequest::new(job.id.clone()) };
    let planned = site.plan(&wish);
    assert_eq!(labels(&planned), ["withdraw", "detach", "condemn", "delete_job", "check"]);
    let done = site.execute(&planned.spec.id);
    assert_eq!((done.status, done.left), (CleanupStatus::Completed, Some(Orphans::default())), "{done:#?}");
    let now = site.volume(&job).unwrap();
    assert_eq!((&now.id, now.status), (&volume.id, VolumeStatus::Condemned));
    assert!(site.in_backend(&volume.id).is_some());
    let condemned = done.steps[2].operation.clone().unwrap();
    site.live(FOR_EVER, &[], async |cleanups| {
        cleanups.volumes().pardon(&condemned, "it is needed").await.unwrap();
    });
    assert_eq!(site.volume(&job).unwrap().status, VolumeStatus::Detached);
}

#[test]
fn points_that_were_never_ready_go_and_ready_ones_stay() {
    let site = Site { points: true, ..Site::new() };
    site.replicated("web");
    assert_eq!(site.world.backend.frozen().len(), 1);
    let job = site.failed_at("web", "commit");
    assert_eq!(site.world.backend.frozen().len(), 2);
    let wish = CleanupRequest { volumes: KeepVolumes::Condemn, ..CleanupRequest::new(job.id.clone()) };
    let planned = site.plan(&wish);
    assert!(labels(&planned).contains(&"drop_point"), "{planned:#?}");
    assert!(protection(&planned, K::Volume).contains("delete its recovery point"));
    assert!(protection(&planned, K::Job).contains("for now"), "its volume is to go when the point has gone");
    let done = site.execute(&planned.spec.id);
    assert_eq!(done.status, CleanupStatus::Completed, "{done:#?}");
    assert_eq!(site.world.backend.frozen().len(), 1, "the ready one stays");
}

#[test]
fn a_completed_job_loses_its_leftovers_and_nothing_else() {
    let site = Site::new();
    let job = site.replicated("web");
    let planned = site.plan_of(&job);
    assert!(planned.spec.plan.is_empty());
    assert!(protection(&planned, K::Job).contains("completed"));
    let wish = CleanupRequest { volumes: KeepVolumes::Condemn, ..CleanupRequest::new(job.id.clone()) };
    let refused = site.live(FOR_EVER, &[], async |cleanups| cleanups.plan(&wish).await.unwrap_err()).unwrap();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(site.execute(&planned.spec.id).status, CleanupStatus::Completed);
    assert_eq!(site.jobs(), [job]);
}

#[test]
fn an_unknown_job_is_not_found_and_a_plan_is_idempotent_by_id() {
    let site = Site::new();
    let job = site.failed("web");
    let unknown = CleanupRequest::new(JobId::parse("job-none").unwrap());
    let request = CleanupRequest::new(job.id.clone());
    site.live(FOR_EVER, &[], async |cleanups| {
        assert_eq!(cleanups.plan(&unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
        let first = cleanups.plan(&request).await.unwrap();
        assert_eq!(cleanups.plan(&request).await.unwrap(), first);
        let other = CleanupRequest { volumes: KeepVolumes::Condemn, ..request.clone() };
        assert_eq!(cleanups.plan(&other).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    });
}
