//! Plans that meet another world, and processes that die while they execute one.

use super::*;

/// A world with every repair to be done, and one volume in order.
fn broken() -> (World, Vec<VolumeRecord>) {
    let world = World::new();
    let records = vec![
        volume(&world, "gone"),
        attached(&world, "away"),
        volume(&world, "here"),
        volume(&world, "older"),
        volume(&world, "left"),
        volume(&world, "due"),
        volume(&world, "whole"),
    ];
    let harms = [
        Harm::Lose,
        Harm::DetachBehind,
        Harm::AttachBehind,
        Harm::AdvanceOnly,
        Harm::LeaveOperation,
        Harm::Condemn,
    ];
    for (record, broken) in records.iter().zip(harms) {
        harm(&world, record, broken);
    }
    (world, records)
}

#[test]
fn l15_killed_at_any_step_the_same_plan_is_executed_to_its_end() {
    let mut dies_at = 0;
    loop {
        let (world, _) = broken();
        let plan = compare(&world).plan();
        assert_eq!(plan.steps.len(), 6);
        let lived = live(&world, dies_at, async |_, reconciler| reconciler.execute(&plan).await.unwrap());
        let again = execute(&world, &plan);
        for (step, outcome) in &again.steps {
            let fine = matches!(outcome, StepOutcome::Done | StepOutcome::DoneBefore);
            assert!(fine, "killed at {dies_at}: {outcome:?} {step:?}");
        }
        assert_eq!(classes(&again.left), [], "killed at {dies_at}");
        live(&world, FOR_EVER, async |service, _| service.recover().await.unwrap());
        world.assert_whole();
        if let Some(first) = lived {
            assert!(first.left.is_whole());
            assert!(again.steps.iter().all(|(_, outcome)| *outcome == StepOutcome::DoneBefore), "{again:?}");
            assert!(dies_at > 60, "each repair has many steps");
            break;
        }
        dies_at += 1;
    }
}

#[test]
fn l15_what_died_while_it_repaired_is_finished_by_recovery_too() {
    for dies_at in 0..90 {
        let (world, _) = broken();
        let plan = compare(&world).plan();
        live(&world, dies_at, async |_, reconciler| reconciler.execute(&plan).await.unwrap());
        live(&world, FOR_EVER, async |service, _| {
            let recovered = service.recover().await.unwrap();
            for id in recovered.resumed.iter().chain(&recovered.due) {
                service.wait(id, CONFIG.answer_limit).await.unwrap();
            }
        });
        assert!(execute(&world, &plan).left.is_whole(), "killed at {dies_at}");
    }
}

/// Plans for one harm, lets something else happen, and executes: nothing may be done.
fn refused(broken: Harm, was: Was, meanwhile: impl FnOnce(&World, &VolumeRecord)) {
    let world = World::new();
    let (record, _other) = (was(&world, "web"), volume(&world, "db"));
    harm(&world, &record, broken);
    let plan = compare(&world).plan();
    assert_eq!(plan.steps.len(), 1);
    meanwhile(&world, &record);
    let before = (all_of(&world, &instance(&world)), records(&world));
    let done = execute(&world, &plan);
    assert!(matches!(done.steps[0].1, StepOutcome::Refused(_)), "{broken:?}: {:?}", done.steps);
    assert_eq!((all_of(&world, &instance(&world)), records(&world)), before);
}

fn records(world: &World) -> Vec<VolumeRecord> {
    paused().block_on(world.store.volumes(crate::record::VolumeFilter::default()).try_collect()).unwrap()
}

#[test]
fn l26_a_step_whose_world_has_changed_is_refused() {
    refused(Harm::Lose, volume, |world, lost| {
        plant(world, &maker(world, &lost.disk), tag(world, lost));
    });
    refused(Harm::Lose, volume, |world, _| {
        for volume in all_of(world, &instance(world)) {
            world.backend.lose(&volume.id);
        }
    });
    refused(Harm::DetachBehind, attached, |world, record| harm(world, record, Harm::Grow));
    refused(Harm::AttachBehind, volume, |world, record| harm(world, record, Harm::TakenByInstance));
    refused(Harm::AdvanceOnly, volume, |world, record| harm(world, record, Harm::AdvanceOnly));
    refused(Harm::AdvanceOnly, volume, |world, record| harm(world, record, Harm::RetagBehind));
    refused(Harm::AdvanceOnly, volume, |world, record| harm(world, record, Harm::TakenByDisk));
}

#[test]
fn l07_nothing_is_done_once_the_vm_has_failed_over() {
    let harmed: [(Harm, Was); 5] = [
        (Harm::Lose, volume),
        (Harm::DetachBehind, attached),
        (Harm::AttachBehind, volume),
        (Harm::AdvanceOnly, volume),
        (Harm::Condemn, volume),
    ];
    for (broken, was) in harmed {
        refused(broken, was, |world, record| harm(world, record, Harm::FailOver));
    }
}

#[test]
fn l16_nothing_is_done_while_a_job_of_the_vm_is_live() {
    refused(Harm::DetachBehind, attached, |world, record| {
        let job = JobSpec::operate(JobId::mint(SystemClock.now()), record.disk.clone());
        let (id, worker) = (job.id.clone(), WorkerId::parse("rival").unwrap());
        paused().block_on(async {
            world.store.insert(job).await.unwrap();
            world.store.claim(&id, &worker, CONFIG.lease).await.unwrap();
        });
        let seen = compare(world);
        assert!(seen.plan().steps.is_empty());
        assert!(seen.findings[0].withheld.as_ref().is_some_and(|why| why.contains(id.as_str())));
    });
}

#[test]
fn a_pardon_between_plan_and_execution_keeps_the_volume() {
    let world = World::new();
    let record = volume(&world, "web");
    harm(&world, &record, Harm::Condemn);
    let plan = compare(&world).plan();
    let id = plan.steps[0].operation.clone();
    live(&world, FOR_EVER, async |service, _| service.pardon(&id, "needed").await.unwrap());
    let done = execute(&world, &plan);
    assert_eq!(done.steps[0].1, StepOutcome::DoneBefore);
    assert!(done.left.is_whole() && found(&world, &record.id).is_some());
}

#[test]
fn a_plan_of_another_deployment_is_refused() {
    let (world, other) = (World::new(), World::new());
    let plan = compare(&other).plan();
    let refused = live(&world, FOR_EVER, async |_, reconciler| reconciler.execute(&plan).await.unwrap_err());
    assert_eq!(refused.unwrap().kind(), crate::ErrorKind::Invalid);
}

#[test]
fn marks_go_before_devices_on_one_volume() {
    let world = World::new();
    let record = attached(&world, "web");
    harm(&world, &record, Harm::DetachBehind);
    harm(&world, &record, Harm::AdvanceOnly);
    let plan = compare(&world).plan();
    assert_eq!(plan.steps.len(), 2);
    let done = execute(&world, &plan);
    assert!(done.steps.iter().all(|(_, outcome)| *outcome == StepOutcome::Done), "{:?}", done.steps);
    world.assert_whole();
}
