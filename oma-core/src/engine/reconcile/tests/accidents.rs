//! What went wrong elsewhere, and must not here.

use super::*;

#[test]
fn l02_an_old_database_proves_nothing() {
    let world = World::new();
    let names = ["web", "db", "mail", "files"];
    let records: Vec<_> = names.iter().map(|name| attached(&world, name)).collect();
    // Since the backup that the database was restored from: one was reverted, one deleted, one made anew, one detached.
    harm(&world, &records[0], Harm::RetagBehind);
    harm(&world, &records[1], Harm::Lose);
    harm(&world, &records[1], Harm::PlantOrphan);
    harm(&world, &records[2], Harm::DetachBehind);
    harm(&world, &records[3], Harm::LeaveOperation);
    let before = all_of(&world, &instance(&world));
    let report = compare(&world);
    let plan = report.plan();
    assert!(plan.steps.is_empty(), "{plan:?}");
    let mut seen = classes(&report);
    seen.sort();
    use FindingClass as C;
    assert!(seen.contains(&C::Gone) && seen.contains(&C::Orphan) && seen.contains(&C::NewerGeneration));
    assert!(report.findings.iter().any(|finding| finding.withheld.is_some()));
    execute(&world, &plan);
    assert_eq!(all_of(&world, &instance(&world)), before);
}

#[test]
fn l03_a_disk_with_an_orphan_keeps_its_record_until_somebody_decides() {
    let world = World::new();
    let (record, _other) = (volume(&world, "web"), volume(&world, "db"));
    harm(&world, &record, Harm::PlantOrphan);
    harm(&world, &record, Harm::Lose);
    let report = compare(&world);
    assert_eq!(classes(&report), [FindingClass::Gone, FindingClass::Orphan]);
    assert!(report.plan().steps.is_empty());
}

#[test]
fn l02_two_appliances_on_one_account_leave_each_other_alone() {
    let ours = World::new();
    let theirs = World { backend: ours.backend.clone(), ..World::new() };
    let (record, _whole) = (attached(&ours, "web"), volume(&ours, "db"));
    // The same VM, the same names; and theirs are as broken as can be.
    let their = [attached(&theirs, "web"), volume(&theirs, "db")];
    harm(&theirs, &their[0], Harm::DetachBehind);
    harm(&theirs, &their[1], Harm::RetagBehind);
    harm(&theirs, &their[1], Harm::PlantOrphan);
    harm(&ours, &record, Harm::DetachBehind);
    let before = all_of(&theirs, &instance(&theirs));
    let report = compare(&ours);
    assert_eq!(classes(&report), [FindingClass::NotAttached]);
    assert!(execute(&ours, &report.plan()).left.is_whole());
    assert_eq!(all_of(&theirs, &instance(&theirs)), before);
}

#[test]
fn l21_an_empty_place_is_another_place() {
    let world = World::new();
    for record in [volume(&world, "web"), attached(&world, "db")] {
        harm(&world, &record, Harm::Lose);
    }
    let report = compare(&world);
    assert_eq!(classes(&report), [FindingClass::Gone, FindingClass::Gone]);
    assert!(report.plan().steps.is_empty());
    assert_eq!(report.for_operator().count(), 2);
}

#[test]
fn l07_production_is_told_about_and_not_touched() {
    for broken in HARMS {
        let world = World::new();
        let (record, _other) = (attached(&world, "web"), volume(&world, "db"));
        harm(&world, &record, broken);
        harm(&world, &record, Harm::FailOver);
        let before = all_of(&world, &instance(&world));
        let plan = compare(&world).plan();
        assert!(plan.steps.is_empty(), "{broken:?}: {plan:?}");
        execute(&world, &plan);
        assert_eq!(all_of(&world, &instance(&world)), before);
    }
}

/// Every job runs in a task of whoever embeds this.
#[test]
fn what_compares_and_executes_can_be_spawned() {
    fn spawned<T: Send>(_: &T) {}
    let world = World::new();
    live(&world, FOR_EVER, async |_, reconciler| {
        let plan = reconciler.compare(None).await.unwrap().plan();
        let (compares, executes) = (reconciler.compare(None), reconciler.execute(&plan));
        spawned(&compares);
        spawned(&executes);
        assert!(compares.await.unwrap().is_whole());
        assert!(executes.await.unwrap().left.is_whole());
    });
}
