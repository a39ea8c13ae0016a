//! Snapshots and recovery points of a job, and what comes after everything of it was removed.

use super::*;
use crate::SnapshotId;
use crate::record::JobSpec;
use crate::traits::{Durability, SnapshotSpec};

/// What a worker that was fenced off among its snapshots makes.
fn late(site: &Site, job: &JobId, volume: &VolumeRecord) -> SnapshotSpec {
    let tag =
        VolumeTag { instance: site.instance(), disk: volume.disk.clone(), generation: volume.generation };
    let id = SnapshotId::mint(job);
    let spec = SnapshotSpec { id, volume: volume.id.clone(), tag, job: job.clone() };
    paused().block_on(site.world.backend.snapshot(&spec)).unwrap();
    spec
}

#[test]
fn l20_a_snapshot_of_the_job_that_no_point_knows_goes_and_those_of_others_stay() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let volume = site.volume(&job).unwrap();
    let spec = late(&site, &job.id, &volume);
    let done = site.cleaned(&job);
    assert_eq!(labels(&done), ["drop_snapshot", "detach", "delete", "delete_job", "check"]);
    assert_eq!(item(&done, K::Snapshot).id, spec.id.to_string());
    assert_eq!((site.world.backend.frozen().len(), site.volume(&job)), (0, None));

    let job = site.failed_at("web", "publish");
    let volume = site.volume(&job).unwrap();
    let other = JobId::parse("job-other").unwrap();
    late(&site, &other, &volume);
    let planned = site.plan_of(&job);
    assert_eq!(labels(&planned), ["check"], "{planned:#?}");
    assert_eq!(site.execute(&planned.spec.id).status, CleanupStatus::Completed);
    assert_eq!((site.world.backend.frozen().len(), site.jobs()), (1, vec![job]));
}

#[test]
fn l20_a_snapshot_that_comes_when_the_job_is_gone_is_found_and_removed() {
    let site = Site::new();
    site.replicated("web");
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    let done = site.cleaned(&job);
    assert!(labels(&done).contains(&"delete_job"));
    late(&site, &job.id, &volume);
    let again = site.cleaned(&job);
    assert_eq!(labels(&again), ["drop_snapshot", "check"]);
    assert_eq!((site.world.backend.frozen().len(), site.volume(&job)), (0, Some(volume)));
}

#[test]
fn l20_a_snapshot_that_comes_while_the_steps_are_done_is_counted() {
    let site = Site::new();
    site.replicated("web");
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    let planned = site.plan_of(&job);
    site.until_done(&planned.spec.id, 0);
    let spec = late(&site, &job.id, &volume);
    let now = site.execute(&planned.spec.id);
    let last = now.steps.last().unwrap();
    assert_eq!((now.status, last.status), (CleanupStatus::Executing, CleanupStepStatus::Failed), "{now:#?}");
    assert!(last.error.as_ref().unwrap().contains("1 snapshots"), "{last:?}");
    paused().block_on(site.world.backend.delete_snapshot(&spec)).unwrap();
    assert_eq!(site.execute(&planned.spec.id).status, CleanupStatus::Completed);
}

/// The plan leaves the snapshot, and says why; nothing of it is done though it was planned before.
fn assert_stays(site: &Site, job: &ReplicationJob, planned: &Cleanup, why: &str) {
    let refused = site.execute(&planned.spec.id);
    assert_eq!(refused.status, CleanupStatus::Refused, "{refused:#?}");
    let again = site.plan_of(job);
    assert!(protection(&again, K::Snapshot).contains(why), "{again:#?}");
    assert!(
        labels(&again).iter().all(|label| !["drop_snapshot", "delete_job"].contains(label)),
        "{again:#?}"
    );
    assert_eq!(site.execute(&again.spec.id).left, Some(Orphans::default()));
}

#[test]
fn l09_no_snapshot_goes_when_the_volume_is_marked_with_a_later_generation_than_is_recorded() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let volume = site.volume(&job).unwrap();
    late(&site, &job.id, &volume);
    let planned = site.plan_of(&job);
    assert!(labels(&planned).contains(&"drop_snapshot"));
    let tag = VolumeTag {
        instance: site.instance(),
        disk: volume.disk.clone(),
        generation: volume.generation.next(),
    };
    paused().block_on(site.world.backend.retag(&volume.id, &tag)).unwrap();
    assert_stays(&site, &job, &planned, "marked with generation");
    assert_eq!(site.world.backend.frozen().len(), 1);
}

#[test]
fn l09_no_snapshot_goes_when_the_volume_was_written_since_it_was_recorded() {
    let site = Site::new();
    let job = site.replicated("web");
    let volume = site.volume(&job).unwrap();
    assert!(volume.stamp.is_some());
    let snapshot = late(&site, &job.id, &volume);
    let planned = site.plan_of(&job);
    assert!(labels(&planned).contains(&"drop_snapshot"), "{planned:#?}");
    paused().block_on(async {
        let device = site.world.backend.open(&volume.id, &snapshot.tag, Access::ReadWrite).await.unwrap();
        device.write_at(0, vec![7; 65536].into(), Durability::Cached).await.unwrap();
        device.flush().await.unwrap();
    });
    assert_stays(&site, &job, &planned, "was written to");
    assert_eq!(site.world.backend.frozen().len(), 1);
}

#[test]
fn l09_no_snapshot_goes_beside_one_of_a_job_that_no_record_knows() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let volume = site.volume(&job).unwrap();
    late(&site, &job.id, &volume);
    let planned = site.plan_of(&job);
    late(&site, &JobId::parse("job-newer").unwrap(), &volume);
    assert_stays(&site, &job, &planned, "job-newer");
    assert_eq!(site.world.backend.frozen().len(), 2);
    // Of a job that was cleaned up it is known that it is no part of a point.
    let site = Site::new();
    site.replicated("web");
    let first = site.failed_at("web", "publish");
    site.cleaned(&first);
    let second = site.failed_at("web", "publish");
    let volume = site.volume(&second).unwrap();
    late(&site, &first.id, &volume);
    late(&site, &second.id, &volume);
    site.cleaned(&second);
    site.cleaned(&first);
    assert_eq!(site.world.backend.frozen().len(), 0);
}

/// A job that failed when its point was made, of a VM that has another one, and a plan.
fn with_point() -> (Site, ReplicationJob, Cleanup) {
    let site = Site { points: true, ..Site::new() };
    site.replicated("web");
    let job = site.failed_at("web", "commit");
    let planned = site.plan_of(&job);
    assert_eq!(labels(&planned)[..], ["drop_point", "delete_job", "check"]);
    (site, job, planned)
}

#[test]
fn l07_a_point_is_dropped_under_a_job_of_its_vm() {
    let (site, job, planned) = with_point();
    let operate = JobId::parse("job-operates").unwrap();
    let lease = paused().block_on(async {
        let elsewhere = WorkerId::parse("elsewhere").unwrap();
        site.world.store.insert(JobSpec::operate(operate.clone(), site.disk(&job))).await.unwrap();
        site.world.store.claim(&operate, &elsewhere, CONFIG.lease).await.unwrap()
    });
    let now = site.live(FOR_EVER, &[], async |cleanups| {
        let begun = cleanups.records().begin_cleanup(&planned.spec.id).await.unwrap();
        cleanups.recover().await.unwrap();
        cleanups.wait(&begun.spec.id, Duration::MAX).await.unwrap()
    });
    let now = now.unwrap();
    assert_eq!((now.status, now.steps[0].status), (CleanupStatus::Executing, CleanupStepStatus::Failed));
    assert_eq!(site.world.backend.frozen().len(), 2);
    paused().block_on(site.world.store.end(&lease, JobEnd::Done)).unwrap();
    assert_eq!(site.execute(&planned.spec.id).status, CleanupStatus::Completed);
    assert_eq!(site.world.backend.frozen().len(), 1, "the ready one stays");
}

#[test]
fn l07_a_point_of_a_vm_that_fails_over_is_dropped_by_nobody() {
    let (site, job, planned) = with_point();
    let failover = FailoverRecord {
        id: FailoverJobId::parse("failover-1").unwrap(),
        context: job.context.clone(),
        replication_job: None,
        kind: FailoverKind::Live,
        status: FailoverStatus::Completed,
        destination_vm: None,
    };
    paused().block_on(site.world.store.begin_cleanup(&planned.spec.id)).unwrap();
    site.world.store.add_failover(failover);
    let refused = site.execute(&planned.spec.id);
    assert_eq!(
        (refused.status, refused.steps[0].status),
        (CleanupStatus::Refused, CleanupStepStatus::Refused)
    );
    let again = site.plan_of(&job);
    assert!(protection(&again, K::RecoveryPoint).contains("failover-1"));
    assert_eq!(labels(&again), ["check"], "its record names the job");
    assert_eq!(site.execute(&again.spec.id).left, Some(Orphans::default()));
    assert_eq!(site.world.backend.frozen().len(), 2);
}

#[test]
fn l21_a_point_whose_snapshots_nobody_deletes_in_time_is_tried_again() {
    let (site, _, planned) = with_point();
    // The list of volumes at the beginning, then the snapshot.
    let now = site
        .live(FOR_EVER, &[Fate::Answered, Fate::Silent], async |cleanups| {
            executed(&cleanups, &planned.spec.id).await
        })
        .unwrap();
    assert_eq!((now.status, now.steps[0].status), (CleanupStatus::Executing, CleanupStepStatus::Failed));
    assert_eq!(site.execute(&planned.spec.id).status, CleanupStatus::Completed);
}

#[test]
fn a_job_that_changed_one_volume_for_an_operator_is_no_subject() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let operate = JobId::parse("job-operates").unwrap();
    let refused = site.live(FOR_EVER, &[], async |cleanups| {
        let jobs = &cleanups.volumes().services().jobs;
        jobs.insert(JobSpec::operate(operate.clone(), site.disk(&job))).await.unwrap();
        let lease = jobs.claim(&operate, &daemon(), CONFIG.lease).await.unwrap();
        jobs.end(&lease, JobEnd::Failed("it could not".to_owned())).await.unwrap();
        cleanups.plan(&CleanupRequest::new(operate.clone())).await.unwrap_err()
    });
    let refused = refused.unwrap();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.chain().contains("for an operator"), "{refused:?}");
}
