//! What others do between two looks, and answers that are none.

use super::*;
use crate::engine::volumes::tests::meanwhile::Looks;
use crate::record::{CleanupEnd, CleanupNews, JobSpec};
use crate::state::{OperationStatus, ReplicationType};
use crate::traits::{ExportSpec, SnapshotSpec};
use crate::{Fence, SnapshotId};

fn tag(site: &Site, record: &VolumeRecord) -> VolumeTag {
    VolumeTag { instance: site.instance(), disk: record.disk.clone(), generation: record.generation }
}

/// A job that failed, over a volume that holds an epoch, and a plan to condemn that: detach, condemn, the record, the count.
fn to_condemn(site: &Site) -> (ReplicationJob, Cleanup) {
    site.replicated("web");
    let job = site.failed_at("web", "publish");
    let wish = CleanupRequest { volumes: KeepVolumes::Condemn, ..CleanupRequest::new(job.id.clone()) };
    let planned = site.plan(&wish);
    assert_eq!(labels(&planned), ["detach", "condemn", "delete_job", "check"]);
    (job, planned)
}

#[test]
fn l07_a_volume_that_a_later_job_commits_to_while_it_is_looked_at_is_not_condemned() {
    // The two lists at the beginning, that of the step, that of the count.
    for lists in 0..5 {
        let site = Site::new();
        let (job, planned) = to_condemn(&site);
        site.source.forget_points();
        let committed = Arc::new(Mutex::new(None));
        let (replicator, told) = (site.replicator(), committed.clone());
        let (volumes, disk) = (site.world.store.clone(), site.disk(&job));
        site.world.weather.meanwhile.after(lists, async move {
            let request = ReplicateRequest::new(Site::path("web"));
            let outcome = replicator.run(&request, &Silent, &CancellationToken::new()).await;
            let is_committed = outcome.is_ok_and(|run| run.outcome.is_completed());
            let status = volumes.volume_of(&disk).await.unwrap().unwrap().status;
            *told.lock().unwrap() = Some((is_committed, status));
        });
        let done = site.execute(&planned.spec.id);
        let happened = *committed.lock().unwrap();
        let now = site.volume(&job).unwrap().status;
        match (lists, happened) {
            (0 | 1, Some((true, _))) => assert_eq!(done.status, CleanupStatus::Refused, "{done:#?}"),
            // Whoever comes while the step is done is kept away by its lease.
            (_, Some((is_committed, _))) => {
                assert!(!is_committed, "{now} {done:#?}");
                assert_eq!(now, VolumeStatus::Condemned);
            }
            (_, None) => assert_eq!((lists, done.status), (4, CleanupStatus::Completed), "{done:#?}"),
        }
    }
}

#[test]
fn l21_a_volume_that_is_there_without_a_mark_is_not_missing() {
    let site = Site::new();
    site.replicated("neighbour");
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    site.world.weather.disguises.set(&volume.id, Looks::Absent);
    let planned = site.plan_of(&job);
    assert_eq!(labels(&planned), ["withdraw", "forget", "delete_job", "check"]);
    site.until_done(&planned.spec.id, 0);
    site.world.weather.disguises.set(&volume.id, Looks::Unmarked);
    let done = site.execute(&planned.spec.id);
    assert_eq!((done.status, done.steps[1].status), (CleanupStatus::Refused, CleanupStepStatus::Refused));
    assert_eq!(site.volume(&job), Some(volume));
    assert_eq!(site.jobs().len(), 2);
}

#[test]
fn l26_what_the_last_count_finds_is_never_called_completed() {
    // A process that dies between its last step and the end.
    let mut lives = (1..).map(|dies_at| {
        let site = Site::new();
        let job = site.failed("web");
        let (exports, _) = site.exports();
        let planned = site.plan_of(&job);
        site.live(dies_at, &[], async |cleanups| executed(&cleanups, &planned.spec.id).await);
        site.world.clock.advance(CONFIG.lease * 2);
        (site, exports, planned)
    });
    let (site, exports, planned) =
        lives.find(|(site, _, planned)| site.now(&planned.spec.id).is_done()).unwrap();
    let last = planned.steps.len() - 1;
    assert_eq!(site.now(&planned.spec.id).status, CleanupStatus::Executing);
    // Somebody serves it again.
    let device = crate::memory::MemoryDevice::new("disk", ByteSize::mib(1));
    let spec = ExportSpec {
        name: exports[0].name.clone(),
        description: "again".to_owned(),
        access: Access::ReadOnly,
        fence: Fence(9),
        device: Arc::new(device.read_only()),
    };
    paused().block_on(site.server.publish(spec)).unwrap();
    for _ in 0..2 {
        let now = site.execute(&planned.spec.id);
        assert_eq!((now.status, now.left), (CleanupStatus::Executing, None), "{now:#?}");
        assert_eq!(now.steps[last].status, CleanupStepStatus::Failed);
        assert!(now.steps[last].error.as_ref().unwrap().contains("1 served"), "{now:#?}");
    }
    paused().block_on(site.server.withdraw(&exports[0].name, Duration::ZERO)).unwrap();
    let done = site.execute(&planned.spec.id);
    assert_eq!((done.status, done.left), (CleanupStatus::Completed, Some(Orphans::default())));
}

#[test]
fn l21_a_conflict_that_passes_ends_no_cleanup() {
    for operates in [true, false] {
        let site = Site::new();
        let job = site.failed_at("web", "publish");
        let planned = site.plan_of(&job);
        site.until_done(&planned.spec.id, 0);
        // Another worker's, which is called off before it has done anything.
        let later = JobId::parse("job-later").unwrap();
        let spec = match operates {
            true => JobSpec::operate(later.clone(), site.disk(&job)),
            false => {
                let keys = vec![DiskKey::parse(KEY).unwrap()];
                JobSpec::new(later.clone(), job.context.clone(), ReplicationType::Initial, keys)
            }
        };
        let elsewhere = WorkerId::parse("elsewhere").unwrap();
        let lease = paused().block_on(async {
            site.world.store.insert(spec).await.unwrap();
            site.world.store.claim(&later, &elsewhere, CONFIG.lease).await.unwrap()
        });
        for failures in 1..3 {
            let now = site.execute(&planned.spec.id);
            assert_eq!(now.status, CleanupStatus::Executing, "{now:#?}");
            assert_eq!((now.steps[1].status, now.steps[1].failures), (CleanupStepStatus::Failed, failures));
        }
        let end = JobEnd::Cancelled("not now".to_owned());
        paused().block_on(site.world.store.end(&lease, end)).unwrap();
        let done = site.execute(&planned.spec.id);
        match operates {
            true => {
                assert_eq!((done.status, done.left), (CleanupStatus::Completed, Some(Orphans::default())));
            }
            // The disk is that one's, whatever became of it.
            false => assert!(done.error.unwrap().contains("another job has its disk")),
        }
    }
}

#[test]
fn two_processes_that_are_asked_for_one_plan_at_once_answer_the_same() {
    let site = Site::new();
    let job = site.failed("web");
    let request = CleanupRequest::new(job.id);
    site.world.weather.slow.store(true, Ordering::SeqCst);
    site.live(FOR_EVER, &[], async |cleanups| {
        let volumes = cleanups.volumes().services().clone();
        let elsewhere = WorkerId::parse("elsewhere").unwrap();
        let volumes = VolumeService::with_clock(volumes, elsewhere, CONFIG, site.world.clock.clone());
        let rival = CleanupService::new(volumes, cleanups.0.services.clone());
        let (one, other) = tokio::join!(cleanups.plan(&request), rival.plan(&request));
        assert_eq!(one.unwrap(), other.unwrap());
        let other = CleanupRequest { volumes: KeepVolumes::Condemn, ..request.clone() };
        assert_eq!(rival.plan(&other).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    });
}

#[test]
fn l26_a_volume_whose_deletion_failed_is_condemned_anew() {
    let site = Site::new();
    let (job, planned) = to_condemn(&site);
    let id = &planned.spec.id;
    // Dies when the deletion is planned and the step is not told done.
    for dies_at in 1.. {
        site.live(dies_at, &[], async |cleanups| executed(&cleanups, id).await);
        site.world.clock.advance(CONFIG.lease * 2);
        if site.volume(&job).unwrap().status == VolumeStatus::Condemned {
            break;
        }
    }
    let first = site.now(id).steps[1].operation.clone().unwrap();
    assert_eq!(site.now(id).steps[1].status, CleanupStepStatus::Executing);
    // It is due, and a snapshot of an operator's stands in its way.
    let volume = site.volume(&job).unwrap();
    let disk = site.disk(&job);
    let operate = JobId::parse("job-operates").unwrap();
    let snapshot = SnapshotSpec {
        id: SnapshotId::mint(&operate),
        volume: volume.id.clone(),
        tag: tag(&site, &volume),
        job: operate.clone(),
    };
    paused().block_on(async {
        site.world.store.insert(JobSpec::operate(operate.clone(), disk.clone())).await.unwrap();
        let lease = site.world.store.claim(&operate, &daemon(), CONFIG.lease).await.unwrap();
        site.world.backend.snapshot(&snapshot).await.unwrap();
        site.world.store.end(&lease, JobEnd::Done).await.unwrap();
    });
    site.world.clock.advance(CONFIG.grace * 2);
    let failed = site.live(FOR_EVER, &[], async |cleanups| {
        let due = cleanups.volumes().services().volumes.operation(&first).await.unwrap().unwrap();
        assert!(cleanups.volumes().begin_due(&due).await.unwrap());
        cleanups.volumes().wait(&first, Duration::MAX).await.unwrap().status
    });
    assert_eq!(failed, Some(OperationStatus::Failed));
    paused().block_on(site.world.backend.delete_snapshot(&snapshot)).unwrap();
    let done = site.execute(id);
    assert_eq!(done.status, CleanupStatus::Completed, "{done:#?}");
    assert_ne!(done.steps[1].operation, Some(first));
    assert_eq!(site.volume(&job).unwrap().status, VolumeStatus::Condemned);
}

#[test]
fn l26_who_asks_for_what_was_completed_meanwhile_is_told_so() {
    let site = Site::new();
    let (_, planned) = to_condemn(&site);
    let (store, id, steps) = (site.world.store.clone(), planned.spec.id.clone(), planned.steps.len());
    // While the first one looks whether the world is as the plan saw it.
    site.world.weather.meanwhile.after(0, async move {
        store.begin_cleanup(&id).await.unwrap();
        for at in 0..steps {
            let news = CleanupNews { status: CleanupStepStatus::Done, error: None, operation: None };
            store.tell_step(&id, at, &news).await.unwrap();
        }
        store.end_cleanup(&id, &CleanupEnd::Completed(Orphans::default())).await.unwrap();
    });
    let told = site.live(FOR_EVER, &[], async |cleanups| cleanups.execute(&planned.spec.id).await.unwrap());
    assert_eq!(told.unwrap().status, CleanupStatus::Completed);
}
