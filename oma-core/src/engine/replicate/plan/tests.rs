use super::*;
use crate::{ContextId, DiskKey, DiskRef, Epoch, PointId};

const OLD: &str = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446";

fn set(list: &[(u64, u64)]) -> ExtentSet {
    list.iter().map(|(offset, length)| Extent::new(*offset, *length).unwrap()).collect()
}

fn endpoint() -> &'static Endpoint {
    static ENDPOINT: std::sync::LazyLock<Endpoint> =
        std::sync::LazyLock::new(|| Endpoint::parse("e").unwrap());
    &ENDPOINT
}

/// A disk of 1000 bytes whose content and change id are `p` and `c` of a number.
fn point(number: u64) -> PointDisk {
    PointDisk {
        key: DiskKey::parse("disk-2000").unwrap(),
        capacity: ByteSize::new(1000),
        change_id: ChangeId::parse(format!("c{number}")).unwrap(),
        content: PointId::parse(format!("p{number}")).unwrap(),
    }
}

fn committed(change_id: &str) -> CommittedChange {
    CommittedChange {
        disk: DiskRef {
            context: ContextId::parse("ctx").unwrap(),
            key: DiskKey::parse("disk-2000").unwrap(),
        },
        change_id: ChangeId::parse(change_id).unwrap(),
        generation: Generation(1),
        endpoint: endpoint().clone(),
        epoch: Epoch(1),
        capacity: Some(ByteSize::new(1000)),
    }
}

/// The volume was rounded up and is large enough already; the source tells of no change there.
#[test]
fn l13_what_a_disk_has_grown_by_since_its_epoch_is_planned_whatever_its_volume_was_made_of() {
    let now = PointDisk { capacity: ByteSize::new(1500), ..point(2) };
    let (content, changes) = (VolumeContent::Epoch(Epoch(1)), since(&[(10, 5)]));
    let incremental = Facts { base: Some(committed("c1")), changes, content, ..facts(&now) };
    let plan = decide(&incremental);
    assert_eq!((plan.mode, plan.work), (ReplicationType::Incremental, set(&[(10, 5), (1000, 500)])));
    // Of an epoch that an older program committed only the volume's size is known.
    let base = CommittedChange { capacity: None, ..committed("c1") };
    let grown = Extent::between(1200, 1500);
    let plan = decide(&Facts { base: Some(base), grown, ..incremental });
    assert_eq!(plan.work, set(&[(10, 5), (1200, 300)]));
}

/// The journal of an unfinished copy of a point.
fn journal(of: u64, base: Option<&str>, planned: &[(u64, u64)], finished: &[(u64, u64)]) -> JournalEntry {
    let PointDisk { capacity, change_id, content, .. } = point(of);
    JournalEntry {
        basis: JournalBasis {
            generation: Generation(1),
            endpoint: endpoint().clone(),
            content,
            change_id,
            base: base.map(|id| ChangeId::parse(id).unwrap()),
            capacity,
        },
        planned: set(planned),
        finished: set(finished),
        recopied: ByteSize::ZERO,
    }
}

fn since(list: &[(u64, u64)]) -> Option<Changes> {
    Some(Changes::Since(set(list)))
}

/// A disk that was never replicated.
fn facts(point: &PointDisk) -> Facts<'_> {
    Facts {
        point,
        endpoint: endpoint(),
        generation: Generation(1),
        content: VolumeContent::Blank,
        base: None,
        changes: None,
        grown: None,
        journal: None,
        since_journal: None,
        untouched: true,
        trust: TrustPolicy::Trust,
        journal_step: ByteSize::new(64),
    }
}

/// A full copy that was interrupted.
fn full(point: &PointDisk, finished: &[(u64, u64)]) -> Facts<'static> {
    let point: &'static PointDisk = Box::leak(Box::new(point.clone()));
    let journal = Some(journal(1, None, &[], finished));
    Facts { content: VolumeContent::Inconsistent, journal, ..facts(point) }
}

/// An incremental copy from c1 to point 2 that was interrupted.
fn incremental(point: &PointDisk, planned: &[(u64, u64)], finished: &[(u64, u64)]) -> Facts<'static> {
    let journal = Some(journal(2, Some("c1"), planned, finished));
    Facts { journal, base: Some(committed("c1")), ..full(point, &[]) }
}

#[test]
fn a_disk_without_a_change_id_is_copied_in_full() {
    let plan = decide(&facts(&point(1)));
    assert_eq!((plan.mode, plan.blank, plan.recopied), (ReplicationType::Initial, true, ByteSize::ZERO));
    assert_eq!((plan.work, plan.resumed), (set(&[(0, 1000)]), ByteSize::ZERO));
}

#[test]
fn changed_extents_are_clipped_to_the_disk() {
    let content = VolumeContent::Epoch(Epoch(1));
    let changes = since(&[(10, 5), (990, 64)]);
    let plan = decide(&Facts { content, base: Some(committed("c1")), changes, ..facts(&point(2)) });
    assert_eq!((plan.mode, plan.work), (ReplicationType::Incremental, set(&[(10, 5), (990, 10)])));
}

#[test]
fn the_same_point_continues_from_the_journal() {
    let plan = decide(&full(&point(1), &[(0, 400)]));
    assert!(!plan.blank);
    assert_eq!((plan.recopied, &plan.finished), (ByteSize::new(64), &set(&[(0, 400)])));
    assert_eq!((plan.work, plan.resumed), (set(&[(400, 600)]), ByteSize::new(400)));
}

#[test]
fn a_full_copy_goes_on_at_a_new_point_with_what_changed_since() {
    let facts = Facts { since_journal: since(&[(100, 50), (390, 20)]), ..full(&point(2), &[(0, 400)]) };
    let plan = decide(&facts);
    assert!(!plan.blank && plan.note.is_none());
    assert_eq!(plan.finished, set(&[(0, 100), (150, 240)]));
    assert_eq!(plan.work, set(&[(100, 50), (390, 610)]));
    assert_eq!((plan.resumed, plan.recopied), (ByteSize::new(340), ByteSize::new(60 + 64)));
    assert_eq!((plan.basis.content, plan.basis.base), (point(2).content, None));
}

/// The source's two answers should agree; where they do not, whatever one of them names is copied.
#[test]
fn l09_what_changed_since_the_journal_is_planned_though_the_change_id_does_not_name_it() {
    let facts = Facts {
        changes: since(&[(10, 5)]),
        since_journal: since(&[(900, 10)]),
        ..incremental(&point(3), &[(10, 5)], &[(0, 30)])
    };
    let plan = decide(&facts);
    assert_eq!((plan.planned, plan.work), (set(&[(10, 5), (900, 10)]), set(&[(900, 10)])));
}

#[test]
fn an_incremental_copy_goes_on_at_a_new_point_with_the_union_of_changes() {
    let facts = Facts {
        changes: since(&[(10, 5), (50, 10), (500, 10)]),
        since_journal: since(&[(12, 1), (500, 10)]),
        ..incremental(&point(3), &[(10, 5), (50, 10)], &[(0, 30)])
    };
    let plan = decide(&facts);
    assert_eq!(plan.mode, ReplicationType::Incremental);
    assert_eq!(plan.planned, set(&[(10, 5), (50, 10), (500, 10)]));
    assert_eq!(plan.finished, set(&[(0, 12), (13, 17)]));
    assert_eq!(plan.work, set(&[(12, 1), (50, 10), (500, 10)]));
    assert_eq!(plan.resumed, ByteSize::new(4));
    assert_eq!(plan.basis.change_id, point(3).change_id);
}

#[test]
fn interruptions_add_up_and_nothing_unfinished_is_ever_left_out() {
    // Point 3 overwrote nothing yet and its changes are not in those since c1 any more: planned stays planned.
    let mut before = journal(3, Some("c1"), &[(10, 5), (70, 5)], &[(0, 12)]);
    for (number, changed) in [(4, (200, 5)), (5, (11, 1)), (6, (300, 1))] {
        let point = point(number);
        let facts = Facts {
            journal: Some(before.clone()),
            changes: since(&[changed]),
            since_journal: since(&[changed]),
            ..incremental(&point, &[], &[])
        };
        before = decide(&facts).journal();
    }
    assert_eq!(before.planned, set(&[(10, 5), (70, 5), (200, 5), (300, 1)]));
    assert_eq!(before.finished, set(&[(0, 11)]));
    assert_eq!(before.recopied, ByteSize::new(3 * 64 + 1), "a step for each interruption, and what changed");
    assert_eq!(before.scope().difference(&before.finished), set(&[(11, 4), (70, 5), (200, 5), (300, 1)]));
}

#[test]
fn l13_what_a_disk_has_grown_by_is_planned_though_the_source_cannot_tell_what_changed_since() {
    let larger = PointDisk { capacity: ByteSize::new(1_200), ..point(3) };
    for since_journal in [None, Some(Changes::Unknown("its snapshot is gone".to_owned()))] {
        let facts = Facts {
            changes: since(&[(10, 5)]),
            since_journal,
            ..incremental(&larger, &[(10, 5), (50, 10)], &[(0, 30)])
        };
        let plan = decide(&facts);
        assert_eq!(plan.mode, ReplicationType::Incremental);
        assert_eq!(plan.work, set(&[(10, 5), (50, 10), (1_000, 200)]));
    }
}

#[test]
fn a_source_that_cannot_tell_what_changed_since_has_everything_copied_again() {
    for since_journal in [None, Some(Changes::Unknown("its snapshot is gone".to_owned()))] {
        let plan = decide(&Facts { since_journal, ..full(&point(2), &[(0, 400)]) });
        assert!(plan.finished.is_empty());
        assert_eq!((plan.work.clone(), plan.recopied), (set(&[(0, 1000)]), ByteSize::new(400 + 64)));
        assert!(plan.note.unwrap().contains("copied again"));
    }
}

#[test]
fn l12_extents_of_an_unfinished_attempt_on_the_same_base_are_copied_again() {
    let unknown = Some(Changes::Unknown("why".to_owned()));
    let facts = Facts {
        changes: since(&[(500, 10)]),
        since_journal: unknown,
        ..incremental(&point(3), &[(10, 5)], &[(0, 100)])
    };
    let plan = decide(&facts);
    assert_eq!((plan.work, plan.recopied), (set(&[(10, 5), (500, 10)]), ByteSize::new(5 + 64)));
}

#[test]
fn more_changes_under_the_same_content_id_are_not_believed_to_be_finished() {
    let facts =
        Facts { changes: since(&[(10, 5), (50, 5)]), ..incremental(&point(2), &[(10, 5)], &[(0, 100)]) };
    let plan = decide(&facts);
    assert_eq!(plan.work, set(&[(50, 5)]));
}

#[test]
fn after_an_unfinished_full_copy_changed_extents_are_not_enough() {
    let facts = Facts {
        base: Some(committed("c1")),
        changes: since(&[(10, 5)]),
        since_journal: since(&[(20, 5)]),
        ..full(&point(3), &[(0, 100)])
    };
    let plan = decide(&facts);
    assert_eq!((plan.mode, plan.work), (ReplicationType::Initial, set(&[(20, 5), (100, 900)])));
    assert!(plan.note.is_some());
}

#[test]
fn l12_a_volume_in_mid_epoch_whose_journal_is_lost_is_copied_in_full() {
    let facts =
        Facts { journal: None, changes: since(&[(10, 5)]), ..incremental(&point(3), &[(10, 5)], &[]) };
    let plan = decide(&facts);
    assert_eq!((plan.mode, plan.work), (ReplicationType::Initial, set(&[(0, 1000)])));
    assert!(plan.note.unwrap().contains("lost"));
    let other = Facts { journal: Some(journal(2, Some("c0"), &[(10, 5)], &[])), ..facts };
    assert_eq!(decide(&other).mode, ReplicationType::Initial);
}

#[test]
fn l09_the_journal_of_another_generation_or_source_is_worth_nothing() {
    let before = Facts { since_journal: since(&[]), ..full(&point(2), &[(0, 400)]) };
    let mut of_other = before.journal.clone();
    of_other.as_mut().unwrap().basis.endpoint = Endpoint::parse("other").unwrap();
    for facts in [
        Facts { generation: Generation(2), ..before.clone() },
        Facts { journal: of_other, ..before.clone() },
        Facts { content: VolumeContent::Epoch(Epoch(1)), ..before },
    ] {
        let plan = decide(&facts);
        assert_eq!(plan.work, set(&[(0, 1000)]), "{facts:?}");
    }
}

#[test]
fn l13_the_new_part_of_a_disk_that_grew_is_never_finished() {
    let larger = PointDisk { capacity: ByteSize::new(1200), ..point(2) };
    let plan = decide(&Facts { since_journal: since(&[]), ..full(&larger, &[(0, 1000)]) });
    assert_eq!(plan.work, set(&[(1000, 200)]));
    let larger = PointDisk { capacity: ByteSize::new(1200), ..point(3) };
    let changed = Facts {
        changes: since(&[]),
        since_journal: since(&[]),
        ..incremental(&larger, &[(10, 5)], &[(0, 1000)])
    };
    assert_eq!(decide(&changed).work, set(&[(1000, 200)]));
    let smaller = PointDisk { capacity: ByteSize::new(900), ..point(2) };
    let plan = decide(&Facts { since_journal: since(&[]), ..full(&smaller, &[(0, 950)]) });
    assert_eq!((plan.work, plan.finished), (ExtentSet::new(), set(&[(0, 900)])));
}

#[test]
fn l09_a_reset_change_id_is_never_incremental_and_carries_nothing_over() {
    for reset in [OLD.replace("52 3c", "53 3c"), OLD.replace("446", "445")] {
        let content = VolumeContent::Epoch(Epoch(1));
        let point = PointDisk { change_id: ChangeId::parse(&reset).unwrap(), ..point(2) };
        let (base, changes) = (Some(committed(OLD)), since(&[(10, 5)]));
        let plan = decide(&Facts { content, base, changes, ..facts(&point) });
        assert_eq!(plan.mode, ReplicationType::Initial, "{reset}");

        let mut interrupted = Facts { since_journal: since(&[]), ..full(&point, &[(0, 400)]) };
        interrupted.journal.as_mut().unwrap().basis.change_id = ChangeId::parse(OLD).unwrap();
        let basis = &interrupted.journal.as_ref().unwrap().basis;
        assert!(!carries_over(basis, Generation(1), endpoint(), &point));
        assert_eq!(decide(&interrupted).work, set(&[(0, 1000)]), "{reset}");
    }
}
