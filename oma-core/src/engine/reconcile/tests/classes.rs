//! One world for each class.

use super::*;
use crate::SnapshotId;
use crate::engine::reconcile::judge::Viewer;
use crate::traits::SnapshotSpec;

/// What one harm to a volume is found as, whether a plan repairs it, and what is left once it did.
fn one(broken: Harm, was: Was) -> (Vec<FindingClass>, usize, Vec<FindingClass>) {
    let world = World::new();
    let (record, other) = (was(&world, "web"), volume(&world, "db"));
    assert!(compare(&world).is_whole());
    let before = found(&world, &other.id);
    harm(&world, &record, broken);
    let report = compare(&world);
    let plan = report.plan();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<ReconcilePlan>(&text).unwrap(), plan);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Reconciliation>(&text).unwrap(), report);
    assert_eq!(compare(&world).findings, report.findings, "comparing and planning change nothing");
    let done = execute(&world, &plan);
    for (step, outcome) in &done.steps {
        assert_eq!(*outcome, StepOutcome::Done, "{step:?}");
    }
    assert_eq!(found(&world, &other.id), before);
    (classes(&report), plan.steps.len(), classes(&done.left))
}

#[test]
fn what_records_and_marks_prove_is_repaired() {
    use FindingClass as C;
    let harmed: [(Harm, Was, C); 6] = [
        (Harm::Lose, volume, C::Gone),
        (Harm::DetachBehind, attached, C::NotAttached),
        (Harm::AttachBehind, volume, C::DeviceDiffers),
        (Harm::AdvanceOnly, attached, C::OlderGeneration),
        (Harm::LeaveOperation, volume, C::Undriven),
        (Harm::Condemn, volume, C::Due),
    ];
    for (broken, was, class) in harmed {
        assert_eq!(one(broken, was), (vec![class], 1, vec![]), "{broken:?}");
    }
}

#[test]
fn what_nothing_proves_is_left_to_an_operator() {
    use FindingClass as C;
    for (broken, class) in [
        (Harm::RetagBehind, C::NewerGeneration),
        (Harm::Cut, C::Smaller),
        (Harm::Grow, C::Larger),
        (Harm::TakenByDisk, C::OtherDisk),
        (Harm::TakenByInstance, C::OtherInstance),
        (Harm::PlantOrphan, C::Orphan),
        (Harm::AttachThere, C::AttachedElsewhere),
    ] {
        assert_eq!(one(broken, volume), (vec![class], 0, vec![class]), "{broken:?}");
        assert!(!class.advice().is_empty());
    }
}

#[test]
fn l02_a_volume_without_a_mark_is_judged_by_nothing_else() {
    let world = World::new();
    let record = attached(&world, "web");
    let (instance, worker) = (instance(&world), WorkerId::parse("daemon").unwrap());
    let viewer = Viewer { instance: &instance, worker: &worker, devices: Some(&[]) };
    let mut volume: SeenVolume = found(&world, &record.id).unwrap().into();
    (volume.tag, volume.capacity, volume.device_path) = (None, ByteSize::mib(7), None);
    let judged = viewer.judge(&record.id, &SeenRecord::of(&record, true), &volume);
    assert_eq!(judged, [(FindingClass::NoMark, "it bears no mark of ours".to_owned(), None)]);
}

#[test]
fn a_volume_that_is_no_disks_any_more_is_left_to_an_operator() {
    let world = World::new();
    let record = volume(&world, "web");
    let (instance, worker) = (instance(&world), WorkerId::parse("daemon").unwrap());
    let viewer = Viewer { instance: &instance, worker: &worker, devices: None };
    let volume: SeenVolume = found(&world, &record.id).unwrap().into();
    let judged = viewer.judge(&record.id, &SeenRecord::of(&record, false), &volume);
    assert_eq!(judged.iter().map(|(class, _, _)| *class).collect::<Vec<_>>(), [FindingClass::Superseded]);
}

#[test]
fn l05_the_machines_own_disks_are_believed_more_than_the_backend() {
    let world = World::new();
    let record = attached(&world, "web");
    let path = record.device_path.clone().unwrap();
    let device = |path: &str, volume| LocalDevice { path: path.to_owned(), volume };
    let root = device("/dev/vda", None);
    let right = [root.clone(), device(&path, Some(record.id.clone()))];
    let seen = compare_with(&world, Some(&right));
    assert_eq!((classes(&seen), seen.foreign), (vec![], 1), "the root disk is only counted");
    let twice = [right[1].clone(), device("/dev/vdx", Some(record.id.clone()))];
    for wrong in [vec![root], vec![device("/dev/vdx", Some(record.id.clone()))], twice.to_vec()] {
        let seen = compare_with(&world, Some(&wrong));
        assert_eq!(classes(&seen), [FindingClass::DeviceContradicts]);
        assert!(seen.plan().steps.is_empty());
    }
}

#[test]
fn l20_a_snapshot_that_nobody_knows_is_told_and_stays() {
    let world = World::new();
    let record = volume(&world, "web");
    change(&world, "daemon", &request(&record.disk, VolumeChange::Snapshot));
    assert!(compare(&world).is_whole(), "an operation knows it");
    let job = JobId::mint(SystemClock.now());
    let id = SnapshotId::mint(&job);
    let spec = SnapshotSpec { id: id.clone(), volume: record.id.clone(), tag: tag(&world, &record), job };
    paused().block_on(world.backend.snapshot(&spec)).unwrap();
    let found = compare(&world);
    assert_eq!(classes(&found), [FindingClass::UnknownSnapshot]);
    assert_eq!(found.findings[0].snapshot, Some(id.clone()));
    execute(&world, &found.plan());
    assert!(world.backend.frozen().contains(&id));
}

#[test]
fn l21_a_backend_that_cannot_be_asked_has_lost_nothing() {
    let world = World::new();
    let (lost, kept) = (volume(&world, "web"), attached(&world, "db"));
    harm(&world, &lost, Harm::Lose);
    let plan = compare(&world).plan();
    assert_eq!(plan.steps.len(), 1);
    world.backend.disconnect();
    let blind = compare(&world);
    assert!(classes(&blind).iter().all(|class| *class == FindingClass::CouldNotAsk), "{blind:?}");
    assert!(blind.findings.iter().any(|finding| finding.volume.as_ref() == Some(&kept.id)));
    assert!(blind.plan().steps.is_empty());
    let done = execute(&world, &plan);
    assert!(matches!(done.steps[0].1, StepOutcome::Failed(_)), "{:?}", done.steps);
    assert_eq!(record(&world, &lost.disk), lost);
    world.backend.reconnect();
    assert!(execute(&world, &plan).left.is_whole());
}

#[test]
fn l21_what_cannot_be_listed_is_not_gone_whatever_else_is_answered() {
    let world = World::new();
    let (missing, _other) = (volume(&world, "web"), volume(&world, "db"));
    harm(&world, &missing, Harm::Lose);
    let plan = compare(&world).plan();
    let seen =
        lost(&world, FOR_EVER, &[Fate::Lost], async |_, reconciler| reconciler.compare(None).await.unwrap());
    let seen = seen.unwrap();
    assert_eq!(classes(&seen), [FindingClass::CouldNotAsk, FindingClass::CouldNotAsk]);
    assert!(seen.plan().steps.is_empty());
    let done =
        lost(&world, FOR_EVER, &[Fate::Lost], async |_, reconciler| reconciler.execute(&plan).await.unwrap());
    assert!(matches!(done.unwrap().steps[0].1, StepOutcome::Failed(_)));
    assert_eq!(record(&world, &missing.disk), missing);
}

#[test]
fn l09_one_generation_too_many_is_told() {
    let world = World::new();
    let record = volume(&world, "web");
    let newer = VolumeTag { generation: record.generation.next(), ..tag(&world, &record) };
    paused().block_on(world.backend.retag(&record.id, &newer)).unwrap();
    assert_eq!(classes(&compare(&world)), [FindingClass::NewerGeneration]);
}

#[test]
fn an_operation_that_somebody_drives_is_let_be() {
    let world = World::new();
    let record = volume(&world, "web");
    assert!(leave(&world, "rival", &record));
    assert_eq!(classes(&compare(&world)), [], "his lease has not ended");
    world.clock.advance(CONFIG.lease * 2);
    let left = compare(&world);
    assert_eq!(classes(&left), [FindingClass::Undriven]);
    let done = execute(&world, &left.plan());
    assert!(matches!(done.steps[0].1, StepOutcome::Refused(_)), "an attach is finished at its machine");
    assert_eq!(classes(&done.left), [FindingClass::Undriven]);
    world.live("rival", FOR_EVER, &[], async |service| {
        service.finish_left_over().await.unwrap();
        service.finish_left_over().await.unwrap();
    });
    assert_eq!(classes(&compare(&world)), [FindingClass::AttachedElsewhere], "at the rival's");
}

#[test]
fn the_labels_are_those_of_json() {
    for class in [FindingClass::CouldNotAsk, FindingClass::NewerGeneration, FindingClass::UnknownSnapshot] {
        assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        assert_eq!(class.to_string(), class.as_str());
    }
}
