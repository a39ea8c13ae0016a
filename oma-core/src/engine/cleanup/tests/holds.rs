//! What keeps everybody from volumes, and worlds that change.

use super::*;

fn failover(job: &ReplicationJob, id: &str, kind: FailoverKind, status: FailoverStatus) -> FailoverRecord {
    FailoverRecord {
        id: FailoverJobId::parse(id).unwrap(),
        context: job.context.clone(),
        replication_job: Some(job.id.clone()),
        kind,
        status,
        destination_vm: None,
    }
}

/// Cleans up, and the volume with its device is as it was.
fn cleaned_around(site: &Site, job: &ReplicationJob, wish: KeepVolumes) -> Cleanup {
    let volume = site.volume(job).unwrap();
    let before = site.in_backend(&volume.id);
    let planned = site.plan(&CleanupRequest { volumes: wish, ..CleanupRequest::new(job.id.clone()) });
    assert_eq!(planned.spec.plan.first, Vec::<String>::new());
    let done = site.execute(&planned.spec.id);
    assert_eq!((done.status, done.left), (CleanupStatus::Completed, Some(Orphans::default())), "{done:#?}");
    assert_eq!(site.volume(job), Some(volume.clone()));
    assert_eq!(site.in_backend(&volume.id), before);
    done
}

#[test]
fn l07_volumes_of_a_vm_that_failed_over_are_never_touched() {
    for status in [ContextStatus::FailedOverLive, ContextStatus::FailedOverTest, ContextStatus::Completed] {
        for wish in [KeepVolumes::Keep, KeepVolumes::Condemn] {
            let site = Site::new();
            let job = site.failed_at("web", "publish");
            site.world.store.stands(&job.context, status);
            let done = cleaned_around(&site, &job, wish);
            assert!(protection(&done, K::Volume).contains(status.as_str()), "{done:#?}");
            assert!(protection(&done, K::Device).contains(status.as_str()));
            // The record of the failed job is no volume; what a test keeps is the job's when the test has ended.
            assert_eq!(site.jobs().is_empty(), status != ContextStatus::FailedOverTest);
        }
    }
}

#[test]
fn l07_a_live_failover_protects_volumes_before_its_vm_says_so() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let live = failover(&job, "failover-1", FailoverKind::Live, FailoverStatus::Completed);
    site.world.store.add_failover(live.clone());
    let done = cleaned_around(&site, &job, KeepVolumes::Condemn);
    assert!(protection(&done, K::Volume).contains("live failover failover-1"));
    assert!(protection(&done, K::Failover).contains("completed"));
    let left = paused().block_on(site.world.store.failovers(&job.context)).unwrap();
    assert_eq!(left, [FailoverRecord { replication_job: None, ..live }]);
}

#[test]
fn l07_a_failover_that_began_between_plan_and_execution_refuses_the_plan() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let planned = site.plan_of(&job);
    assert!(labels(&planned).contains(&"delete"));
    site.world.store.stands(&job.context, ContextStatus::FailedOverLive);
    let done = site.execute(&planned.spec.id);
    assert_eq!(done.status, CleanupStatus::Refused);
    assert!(done.error.unwrap().contains("failed_over_live"));
    assert!(site.in_backend(&site.volume(&job).unwrap().id).is_some());
}

#[test]
fn l07_a_failover_that_began_between_two_steps_refuses_the_rest() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let planned = site.plan_of(&job);
    assert_eq!(labels(&planned), ["detach", "delete", "delete_job", "check"]);
    let id = planned.spec.id.clone();
    let status = || paused().block_on(site.world.store.cleanup(&id)).unwrap().unwrap().steps[0].status;
    let mut dies_at = 1;
    while status() != CleanupStepStatus::Done {
        site.live(dies_at, &[], async |cleanups| executed(&cleanups, &id).await);
        site.world.clock.advance(CONFIG.lease * 2);
        dies_at += 1;
    }
    let volume = site.volume(&job).expect("it is not deleted yet");
    // Its VM does not say so yet.
    let live = failover(&job, "failover-1", FailoverKind::Live, FailoverStatus::SwitchingVolume);
    site.world.store.add_failover(live);
    let done = site.execute(&id);
    assert_eq!((done.status, done.steps[1].status), (CleanupStatus::Refused, CleanupStepStatus::Refused));
    assert!(done.error.unwrap().contains("failover-1"));
    assert!(site.in_backend(&volume.id).is_some());
    assert_eq!(site.jobs(), [job]);
}

#[test]
fn l07_a_live_failover_that_failed_protects_volumes_until_it_is_named() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    // Whoever made the VM never heard of it.
    let failed = failover(&job, "failover-1", FailoverKind::Live, FailoverStatus::Failed);
    site.world.store.add_failover(failed.clone());
    let done = cleaned_around(&site, &job, KeepVolumes::Condemn);
    assert!(protection(&done, K::Volume).contains("name it"), "{done:#?}");
    assert_eq!(labels(&done), ["check"], "the job's record stays with its volume");
    let planned = site.plan_of(&job);
    let tested = FailoverRecord { kind: FailoverKind::Test, ..failed.clone() };
    site.world.store.add_failover(tested);
    assert!(labels(&site.plan_of(&job)).contains(&"delete"), "a test runs from copies");
    // One that failed while the steps were done.
    let refused = site.execute(&planned.spec.id);
    assert_eq!(refused.status, CleanupStatus::Refused);
    let planned = site.plan_of(&job);
    site.until_done(&planned.spec.id, 0);
    site.world.store.add_failover(failed);
    let refused = site.execute(&planned.spec.id);
    assert!(refused.error.unwrap().contains("failover-1"));
    assert!(site.volume(&job).is_some());
}

#[test]
fn a_vm_that_needs_a_cleanup_is_cleaned_up() {
    let site = Site::new();
    let job = site.failed("web");
    site.world.store.stands(&job.context, ContextStatus::CleanupRequired);
    site.cleaned(&job);
    assert_eq!((site.volume(&job), site.jobs()), (None, vec![]));
    site.assert_fresh("web", &job);
}

#[test]
fn a_failed_failover_is_cleaned_up_with_its_job_when_it_is_named() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let failed = failover(&job, "failover-1", FailoverKind::Live, FailoverStatus::Failed);
    site.world.store.add_failover(failed.clone());
    let named =
        CleanupRequest { failover_job: Some(failed.id.clone()), ..CleanupRequest::new(job.id.clone()) };
    let planned = site.plan(&named);
    assert_eq!(labels(&planned), ["detach", "delete", "delete_failover", "delete_job", "check"]);
    assert_eq!(site.execute(&planned.spec.id).left, Some(Orphans::default()));
    assert_eq!(paused().block_on(site.world.store.failovers(&job.context)).unwrap(), []);
}

#[test]
fn a_failover_that_has_not_ended_or_made_a_vm_comes_first() {
    for (status, vm) in
        [(FailoverStatus::CreatingVm, None), (FailoverStatus::Failed, Some("vm-7".to_owned()))]
    {
        let site = Site::new();
        let job = site.failed_at("web", "publish");
        let failover = failover(&job, "failover-1", FailoverKind::Test, status);
        site.world.store.add_failover(FailoverRecord { destination_vm: vm, ..failover.clone() });
        let named = CleanupRequest { failover_job: Some(failover.id), ..CleanupRequest::new(job.id.clone()) };
        let planned = site.plan(&named);
        assert!(planned.spec.plan.first[0].contains("failover-1"), "{planned:#?}");
        assert!(item(&planned, K::Volume).protected.is_some());
    }
}

#[test]
fn a_failover_of_another_job_or_vm_is_refused() {
    let site = Site::new();
    let job = site.failed("web");
    let other = site.failed("db");
    site.world.store.add_failover(failover(&other, "failover-1", FailoverKind::Test, FailoverStatus::Failed));
    let mut mixed = failover(&job, "failover-2", FailoverKind::Test, FailoverStatus::Failed);
    mixed.replication_job = Some(other.id.clone());
    site.world.store.add_failover(mixed);
    for (id, kind) in [("failover-1", ErrorKind::NotFound), ("failover-2", ErrorKind::Invalid)] {
        let failover_job = Some(FailoverJobId::parse(id).unwrap());
        let named = CleanupRequest { failover_job, ..CleanupRequest::new(job.id.clone()) };
        let refused = site.live(FOR_EVER, &[], async |cleanups| cleanups.plan(&named).await.unwrap_err());
        assert_eq!(refused.unwrap().kind(), kind, "{id}");
    }
}

#[test]
fn a_live_job_is_to_be_cancelled_first() {
    let site = Site::new();
    let job = site.run("web", Some("copy"));
    let planned = site.plan_of(&job);
    assert!(planned.spec.plan.first[0].contains("cancel it"), "{planned:#?}");
    let id = &planned.spec.id;
    let refused = site.live(FOR_EVER, &[], async |cleanups| cleanups.execute(id).await.unwrap_err()).unwrap();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.chain().contains("cancel it"));
    assert_eq!(site.jobs(), [job]);
}

#[test]
fn what_a_later_job_uses_stays() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let later = site.failed_at("web", "publish");
    let done = cleaned_around(&site, &job, KeepVolumes::Condemn);
    assert!(protection(&done, K::Volume).contains(later.id.as_str()));
    site.cleaned(&later);
    site.assert_fresh("web", &later);
}

#[test]
fn while_another_job_of_the_vm_is_live_only_records_go() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let live = site.run("web", Some("copy"));
    let done = cleaned_around(&site, &job, KeepVolumes::Condemn);
    assert!(protection(&done, K::Volume).contains(live.id.as_str()));
    assert_eq!(site.jobs(), [live]);
    assert_eq!(site.exports().1, 1);
}

#[test]
fn what_is_attached_at_another_machine_is_cleaned_up_there() {
    let site = Site::new();
    let job = site.failed_at("web", "publish");
    let planned = site.world.live_with("elsewhere", FOR_EVER, [&[], &[]], async |volumes, process| {
        let services = CleanupServices {
            inventory: site.world.store.clone(),
            exports: process.clone(),
            points: site.world.store.clone(),
            cleanups: process,
            server: Arc::new(MemoryExportServer::new()),
        };
        let elsewhere = CleanupService::new(volumes, services);
        elsewhere.plan(&CleanupRequest::new(job.id.clone())).await.unwrap()
    });
    let planned = planned.unwrap();
    assert!(protection(&planned, K::Volume).contains("machine of worker daemon"), "{planned:#?}");
    assert!(protection(&planned, K::Job).contains("for now"), "{planned:#?}");
    assert_eq!(labels(&planned), ["check"]);
    let id = &planned.spec.id;
    let refused = site.live(FOR_EVER, &[], async |cleanups| cleanups.execute(id).await.unwrap_err()).unwrap();
    assert!(refused.chain().contains("worker elsewhere"), "{refused:?}");
}

#[test]
fn l26_a_plan_of_a_world_that_changed_is_refused_for_ever() {
    let site = Site::new();
    let job = site.failed("web");
    let planned = site.plan_of(&job);
    site.failed_at("web", "publish");
    let refused = site.execute(&planned.spec.id);
    assert_eq!(refused.status, CleanupStatus::Refused);
    assert!(refused.error.as_ref().unwrap().contains("not as the plan saw it"));
    assert!(refused.steps.iter().all(|step| step.status == CleanupStepStatus::Pending));
    assert_eq!(site.execute(&planned.spec.id), refused);
}

#[test]
fn l26_a_world_that_changes_between_steps_refuses_the_rest() {
    let site = Site::new();
    let job = site.failed("web");
    let planned = site.plan_of(&job);
    let id = planned.spec.id.clone();
    // Dies once the volume is detached; then somebody replicates.
    let mut dies_at = 20;
    while paused().block_on(site.world.store.cleanup(&id)).unwrap().unwrap().steps[1].status
        != CleanupStepStatus::Done
    {
        site.live(dies_at, &[], async |cleanups| executed(&cleanups, &id).await);
        site.world.clock.advance(CONFIG.lease * 2);
        dies_at += 1;
    }
    site.live(FOR_EVER, &[], async |cleanups| {
        cleanups.volumes().finish_left_over().await.unwrap();
    });
    site.source.forget_points();
    let later = site.replicated("web");
    let Some(volume) = site.volume(&later) else { panic!("it has a volume") };
    let done = site.execute(&id);
    // Had the deletion come before, a new volume was made, and nothing speaks against the rest.
    if done.status == CleanupStatus::Refused {
        assert_eq!(done.steps[2].status, CleanupStepStatus::Refused, "{done:#?}");
    }
    assert_eq!(site.volume(&later), Some(volume.clone()));
    assert!(site.in_backend(&volume.id).is_some());
}

#[test]
fn another_plan_of_the_job_takes_the_place_of_one_that_is_stuck() {
    let site = Site::new();
    let job = site.failed("web");
    let stuck = site.plan_of(&job);
    let volume = site.volume(&job).unwrap();
    let tag =
        VolumeTag { instance: site.instance(), disk: volume.disk.clone(), generation: volume.generation };
    let (exports, _) = site.exports();
    paused().block_on(site.server.withdraw(&exports[0].name, Duration::ZERO)).unwrap();
    let open = paused().block_on(site.world.backend.open(&volume.id, &tag, Access::ReadOnly)).unwrap();
    assert_eq!(site.execute(&stuck.spec.id).status, CleanupStatus::Executing);
    drop(open);
    site.cleaned(&job);
    let now = paused().block_on(site.world.store.cleanup(&stuck.spec.id)).unwrap().unwrap();
    assert_eq!(now.status, CleanupStatus::Refused);
    assert!(now.error.unwrap().contains("in its place"));
}
