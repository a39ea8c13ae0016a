//! Processes that die at any step, and calls that nobody answers.

use super::*;

/// After any death, what a next process does ends in a world that was cleaned up.
fn goes_on(site: &Site, id: &CleanupId, job: &ReplicationJob, what: &str) {
    site.world.clock.advance(CONFIG.lease * 2);
    let done = site.execute(id);
    assert_eq!(done.status, CleanupStatus::Completed, "{what}: {done:#?}");
    assert_eq!(done.left, Some(Orphans::default()), "{what}");
    assert_eq!(site.volume(job), None, "{what}");
    assert_eq!(site.exports(), (vec![], 0), "{what}");
    assert!(site.jobs().iter().all(|other| other.id != job.id), "{what}");
    site.world.assert_whole();
}

#[test]
fn l26_killed_at_any_step_a_cleanup_is_gone_on_with_and_done_once() {
    let mut dies_at = 0;
    loop {
        let site = Site::new();
        site.replicated("neighbour");
        let neighbour = site.world.left();
        let job = site.failed("web");
        let planned = site.plan_of(&job);
        let id = &planned.spec.id;
        let lived = site.live(dies_at, &[], async |cleanups| executed(&cleanups, id).await);
        let found = paused().block_on(site.world.store.cleanup(id)).unwrap().unwrap();
        assert!(
            lived.is_some() || !found.status.is_terminal() || found.is_done(),
            "at {dies_at}: {found:#?}"
        );
        goes_on(&site, id, &job, &format!("died at {dies_at}"));
        assert_eq!(site.world.left(), neighbour, "died at {dies_at}");
        if lived.is_some() {
            break;
        }
        dies_at += 1;
    }
    assert!(dies_at > 60, "only {dies_at} steps");
}

#[test]
fn l26_killed_again_and_again_it_ends() {
    for pace in [9, 14, 23] {
        let site = Site::new();
        let job = site.failed("web");
        let planned = site.plan_of(&job);
        let id = &planned.spec.id;
        for life in 0..6 {
            site.live(pace + life * 7, &[], async |cleanups| executed(&cleanups, id).await);
            site.world.clock.advance(CONFIG.lease * 2);
        }
        goes_on(&site, id, &job, &format!("pace {pace}"));
    }
}

#[test]
fn l26_whatever_becomes_of_the_backends_answers_it_is_done_once() {
    for fate in [Fate::Lost, Fate::Unheard, Fate::Twice] {
        for at in 0..6 {
            let site = Site::new();
            let job = site.failed("web");
            let planned = site.plan_of(&job);
            let mut fates = vec![Fate::Answered; at];
            fates.push(fate);
            site.live(FOR_EVER, &fates, async |cleanups| executed(&cleanups, &planned.spec.id).await);
            goes_on(&site, &planned.spec.id, &job, &format!("{fate:?} at {at}"));
        }
    }
}

#[test]
fn l26_a_step_that_fails_is_kept_and_tried_again_and_never_completed() {
    let site = Site::new();
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    let planned = site.plan_of(&job);
    let tag =
        VolumeTag { instance: site.instance(), disk: volume.disk.clone(), generation: volume.generation };
    // Somebody on this machine looks into it.
    let server = site.server.clone();
    let (exports, _) = site.exports();
    paused().block_on(server.withdraw(&exports[0].name, Duration::ZERO)).unwrap();
    let open = paused().block_on(site.world.backend.open(&volume.id, &tag, Access::ReadOnly)).unwrap();
    for failures in 1..3 {
        let now = site.execute(&planned.spec.id);
        assert_eq!(now.status, CleanupStatus::Executing, "{now:#?}");
        assert_eq!((now.steps[1].status, now.steps[1].failures), (CleanupStepStatus::Failed, failures));
        assert!(now.steps[1].error.is_some());
        assert!(now.steps[2..].iter().all(|step| step.status == CleanupStepStatus::Pending));
        assert!(site.in_backend(&volume.id).is_some() && !site.jobs().is_empty());
    }
    drop(open);
    // Nobody asks: the daemon looks after it.
    let done = site.live(FOR_EVER, &[], async |cleanups| {
        cleanups.upkeep(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(61)).await;
        cleanups.wait(&planned.spec.id, Duration::MAX).await.unwrap()
    });
    assert_eq!(done.unwrap().status, CleanupStatus::Completed);
    site.assert_fresh("web", &job);
}

#[test]
fn l15_a_deletion_that_was_left_is_finished_before_a_plan_is_made() {
    let mut was_left = 0;
    for dies_at in 0..40 {
        let site = Site::new();
        site.replicated("neighbour");
        let job = site.failed("web");
        let disk = site.disk(&job);
        // An operator deleted half of it by hand, and his process died.
        let (exports, _) = site.exports();
        paused().block_on(site.server.withdraw(&exports[0].name, Duration::ZERO)).unwrap();
        let detach = request(&disk, VolumeChange::Detach);
        let delete = request(&disk, VolumeChange::Delete);
        site.live(FOR_EVER, &[], async |cleanups| {
            cleanups.volumes().submit(detach.clone()).await.unwrap();
            cleanups.volumes().wait(&detach.id, Duration::MAX).await.unwrap();
        });
        site.live(dies_at, &[], async |cleanups| {
            drop(cleanups.volumes().submit(delete.clone()).await);
            drop(cleanups.volumes().wait(&delete.id, Duration::MAX).await);
        });
        let planned = site.plan_of(&job);
        was_left += usize::from(!planned.spec.plan.first.is_empty());
        site.live(FOR_EVER, &[], async |cleanups| {
            if !planned.spec.plan.first.is_empty() {
                let refused = cleanups.execute(&planned.spec.id).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Conflict);
            }
            cleanups.volumes().finish_left_over().await.unwrap();
        });
        site.cleaned(&job);
        site.assert_fresh("web", &job);
    }
    assert!(was_left > 3, "only {was_left}");
}
