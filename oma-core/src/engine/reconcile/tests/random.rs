//! Random worlds.

use proptest::prelude::*;

use super::*;

fn cases() -> u32 {
    std::env::var("OMA_TEST_VOLUME_SCHEDULES")
        .map_or(200, |cases| cases.parse().expect("a number of schedules"))
}

fn harms() -> impl Strategy<Value = Vec<(usize, Harm)>> {
    let one = (0..4_usize, proptest::sample::select(HARMS.to_vec()));
    proptest::collection::vec(one, 0..7)
}

/// What is told, without what the second look tells otherwise.
fn told(finding: &Finding) -> (FindingClass, Option<VolumeId>, Option<OperationId>) {
    (finding.class, finding.volume.clone(), finding.operation.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l26_after_a_plan_only_that_is_left_which_it_left_to_an_operator(
        was_attached in proptest::collection::vec(any::<bool>(), 4),
        harms in harms(),
        dies_at in proptest::option::of(0..60_usize),
    ) {
        let world = World::new();
        let theirs = World { backend: world.backend.clone(), ..World::new() };
        attached(&theirs, "web");
        let names = ["web", "db", "mail", "files"];
        let made = names.iter().zip(was_attached);
        let records: Vec<_> =
            made.map(|(name, is)| if is { attached(&world, name) } else { volume(&world, name) }).collect();
        for (number, broken) in harms {
            // A VM that has failed over, or whose job is live, is harmed by nobody of ours.
            let free = paused().block_on(async {
                let vm = Inventory::context(&*world.store, &records[number].disk.context).await.unwrap().unwrap();
                vm.status.next(crate::state::ContextEvent::Replicate).is_ok() && vm.current_job.is_none()
            });
            if free {
                harm(&world, &records[number], broken);
            }
        }
        // Every lease of those who died has ended.
        world.clock.advance(CONFIG.lease * 2);
        let their = instance(&theirs);
        let before = all_of(&theirs, &their);
        let first = compare(&world);
        let untouched: Vec<_> = first.for_operator().filter_map(|finding| finding.volume.clone()).collect();
        let were: Vec<_> = untouched.iter().map(|id| found(&world, id)).collect();
        let plan = first.plan();
        if let Some(dies_at) = dies_at {
            live(&world, dies_at, async |_, reconciler| reconciler.execute(&plan).await.unwrap());
            world.clock.advance(CONFIG.lease * 2);
        }
        let done = execute(&world, &plan);
        // What an operation that was taken up brought to light.
        let again = execute(&world, &done.left.plan());
        let left = again.left.findings;
        prop_assert!(left.iter().all(|finding| finding.repair.is_none()), "{left:#?}");
        let known: Vec<_> = first.for_operator().chain(done.left.for_operator()).map(told).collect();
        for finding in &left {
            prop_assert!(known.contains(&told(finding)), "{finding:#?} of {known:#?}");
        }
        let are: Vec<_> = untouched.iter().map(|id| found(&world, id)).collect();
        let operated = plan.steps.iter().filter(|step| matches!(step.repair, Repair::TakeUp | Repair::Delete));
        let operated: Vec<_> = operated.filter_map(|step| step.volume.clone()).collect();
        for ((id, was), is) in untouched.iter().zip(were).zip(are) {
            prop_assert!(operated.contains(id) || was == is, "{was:?} became {is:?}");
        }
        prop_assert_eq!(all_of(&theirs, &their), before);
    }
}
