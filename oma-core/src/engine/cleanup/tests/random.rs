//! Random messes, and processes that die at random.

use proptest::prelude::*;

use super::*;

/// What happens to a VM before it is cleaned up. Each run is another process, with an export server of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    Completes,
    FailsAt(&'static str),
    LosesVolume,
    Restarts,
    FailsOver,
}

const ALL: [Happens; 9] = [
    Happens::Completes,
    Happens::FailsAt("provision"),
    Happens::FailsAt("publish"),
    Happens::FailsAt("copy"),
    Happens::FailsAt("withdraw"),
    Happens::FailsAt("commit"),
    Happens::LosesVolume,
    Happens::Restarts,
    Happens::FailsOver,
];

fn cases() -> u32 {
    std::env::var("OMA_TEST_VOLUME_SCHEDULES")
        .map_or(200, |cases| cases.parse().expect("a number of schedules"))
}

fn happens(site: &mut Site, what: Happens) {
    let job = site.jobs().into_iter().next();
    let volume = job.as_ref().and_then(|job| site.volume(job));
    if !matches!(what, Happens::LosesVolume | Happens::FailsOver) {
        site.server = Arc::default();
    }
    match what {
        Happens::Completes => {
            site.source.forget_points();
            site.replicated("web");
        }
        Happens::FailsAt(step) => {
            site.source.forget_points();
            site.failed_at("web", step);
        }
        Happens::LosesVolume => volume.iter().for_each(|volume| site.world.backend.lose(&volume.id)),
        Happens::Restarts => {}
        Happens::FailsOver => {
            let context = &site.jobs().into_iter().next().unwrap().context;
            site.world.store.stands(context, ContextStatus::FailedOverLive);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l26_whatever_happened_and_wherever_it_died_a_cleanup_removes_what_is_owned_and_nothing_else(
        before in proptest::collection::vec(proptest::sample::select(ALL[..6].to_vec()), 1..4),
        after in proptest::option::of(proptest::sample::select(ALL[6..].to_vec())),
        deaths in proptest::collection::vec(0..120_usize, 0..4),
        condemns in any::<bool>(),
        points in any::<bool>(),
    ) {
        let mut site = Site { points, ..Site::new() };
        site.replicated("neighbour");
        let neighbour = site.world.left();
        for what in before {
            happens(&mut site, what);
        }
        if let Some(what) = after {
            happens(&mut site, what);
        }
        let jobs: Vec<_> = site.jobs();
        let job = jobs[0].clone();
        let volume = site.volume(&job);
        let held = volume.as_ref().is_some_and(|volume| volume.held_epoch);
        let failed_over = after == Some(Happens::FailsOver);
        let volumes = match condemns && job.status != JobStatus::Completed {
            true => KeepVolumes::Condemn,
            false => KeepVolumes::Keep,
        };
        let planned = site.plan(&CleanupRequest { volumes, ..CleanupRequest::new(job.id.clone()) });
        if !planned.spec.plan.first.is_empty() {
            // An export of a VM that failed over is all that nobody may take back.
            prop_assert!(failed_over, "{planned:#?}");
            return Ok(());
        }
        for dies_at in deaths {
            site.live(dies_at, &[], async |cleanups| executed(&cleanups, &planned.spec.id).await);
            site.world.clock.advance(CONFIG.lease * 2);
        }
        let done = site.execute(&planned.spec.id);
        prop_assert_eq!(done.status, CleanupStatus::Completed, "{:#?}", done);
        prop_assert_eq!(done.left, Some(Orphans::default()));
        let stays = failed_over || held || job.status == JobStatus::Completed;
        if let Some(volume) = volume {
            let was_lost = after == Some(Happens::LosesVolume);
            prop_assert_eq!(site.in_backend(&volume.id).is_some(), stays && !was_lost, "{:#?}", done);
        }
        let all = site.world.left();
        prop_assert!(neighbour.iter().all(|left| all.contains(left)), "{neighbour:?} {all:?}");
        let again = site.plan(&CleanupRequest { volumes, ..CleanupRequest::new(job.id.clone()) });
        prop_assert!(again.spec.plan.is_empty(), "{again:#?}");
    }
}
