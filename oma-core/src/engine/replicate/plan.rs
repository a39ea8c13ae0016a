//! Decides what has to be copied of a disk: a pure function of what the source and the stores say.

use crate::record::{CommittedChange, JournalBasis, JournalEntry, VolumeContent};
use crate::state::ReplicationType;
use crate::traits::{Changes, PointDisk};
use crate::{ByteSize, ChangeId, Extent, ExtentSet, Generation};

/// What is known of a disk before it is copied.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    /// The disk at the source's point in time.
    pub(super) point: &'a PointDisk,
    /// The generation of its volume.
    pub(super) generation: Generation,
    /// What its volume holds.
    pub(super) content: VolumeContent,
    /// The last committed change id that this generation still matches.
    pub(super) base: Option<CommittedChange>,
    /// What the source says has changed since `base`.
    pub(super) changes: Option<Changes>,
    /// What earlier runs left.
    pub(super) journal: Option<JournalEntry>,
}

/// What has to be copied of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskPlan {
    pub(super) mode: ReplicationType,
    pub(super) basis: JournalBasis,
    /// Changed extents, and those of unfinished attempts on the same base; empty for a full copy.
    pub(super) planned: ExtentSet,
    /// What the epoch has to cover.
    pub(super) scope: ExtentSet,
    /// What of it is still to be done, by this run.
    pub(super) work: ExtentSet,
    /// Bytes of the scope that earlier runs made durable.
    pub(super) resumed: ByteSize,
    /// Whether the journal of earlier runs goes on.
    pub(super) continues: bool,
    /// Whether the target reads as zero wherever nothing was written.
    pub(super) blank: bool,
    /// What an operator should know.
    pub(super) note: Option<String>,
}

/// Decides. When in doubt, everything is copied (L09).
pub(super) fn decide(facts: &Facts<'_>) -> DiskPlan {
    let (base, mut planned, note) = base_and_changes(facts);
    let basis = JournalBasis {
        generation: facts.generation,
        content: facts.point.content.clone(),
        base,
        capacity: facts.point.capacity,
    };
    let mut finished = ExtentSet::new();
    let mut continues = false;
    if let Some(journal) = &facts.journal {
        let same_base = journal.basis.generation == basis.generation && journal.basis.base == basis.base;
        if same_base && basis.base.is_some() {
            let grown = !planned.difference(&journal.planned).is_empty();
            // What an unfinished attempt began to overwrite is neither old nor new: copy it again.
            planned.extend(journal.planned.iter());
            continues = journal.basis == basis && !grown;
        } else {
            continues = journal.basis == basis;
        }
        if continues {
            finished = journal.finished.clone();
        }
    }
    let whole: ExtentSet = Extent::between(0, facts.point.capacity.bytes()).into_iter().collect();
    let scope = if basis.base.is_some() { planned.intersection(&whole) } else { whole };
    let work = scope.difference(&finished);
    DiskPlan {
        mode: if basis.base.is_some() { ReplicationType::Incremental } else { ReplicationType::Initial },
        resumed: ByteSize::new(scope.bytes().bytes() - work.bytes().bytes()),
        basis,
        planned,
        scope,
        work,
        continues,
        blank: facts.content == VolumeContent::Blank,
        note,
    }
}

/// The change id to start from with what changed since, or why there is none.
fn base_and_changes(facts: &Facts<'_>) -> (Option<ChangeId>, ExtentSet, Option<String>) {
    let full = |note: Option<String>| (None, ExtentSet::new(), note);
    let (Some(base), Some(changes)) = (&facts.base, &facts.changes) else {
        return full(None);
    };
    let unfinished_full = facts
        .journal
        .as_ref()
        .is_some_and(|journal| journal.basis.generation == facts.generation && journal.basis.base.is_none());
    if unfinished_full && facts.content == VolumeContent::Inconsistent {
        return full(Some("a full copy of it was not finished: it is copied in full".to_owned()));
    }
    if !facts.point.change_id.continues(&base.change_id) {
        return full(Some(format!(
            "its change id {} does not continue {}: tracking was reset, so it is copied in full",
            facts.point.change_id, base.change_id
        )));
    }
    match changes {
        Changes::Since(extents) => (Some(base.change_id.clone()), extents.clone(), None),
        Changes::Unknown(reason) => full(Some(format!("copied in full: {reason}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextId, DiskKey, DiskRef, Endpoint, Epoch, PointId};

    fn set(list: &[(u64, u64)]) -> ExtentSet {
        list.iter().map(|(offset, length)| Extent::new(*offset, *length).unwrap()).collect()
    }

    fn point(content: &str, change_id: &str) -> PointDisk {
        PointDisk {
            key: DiskKey::parse("disk-2000").unwrap(),
            capacity: ByteSize::new(1000),
            change_id: ChangeId::parse(change_id).unwrap(),
            content: PointId::parse(content).unwrap(),
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
            endpoint: Endpoint::parse("e").unwrap(),
            epoch: Epoch(1),
        }
    }

    fn journal(
        content: &str,
        base: Option<&str>,
        planned: &[(u64, u64)],
        finished: &[(u64, u64)],
    ) -> JournalEntry {
        JournalEntry {
            basis: JournalBasis {
                generation: Generation(1),
                content: PointId::parse(content).unwrap(),
                base: base.map(|id| ChangeId::parse(id).unwrap()),
                capacity: ByteSize::new(1000),
            },
            planned: set(planned),
            finished: set(finished),
        }
    }

    fn facts<'a>(point: &'a PointDisk) -> Facts<'a> {
        Facts {
            point,
            generation: Generation(1),
            content: VolumeContent::Epoch(Epoch(1)),
            base: None,
            changes: None,
            journal: None,
        }
    }

    #[test]
    fn a_disk_without_a_change_id_is_copied_in_full() {
        let point = point("p1", "c1");
        let plan = decide(&Facts { content: VolumeContent::Blank, ..facts(&point) });
        assert_eq!((plan.mode, plan.blank, plan.continues), (ReplicationType::Initial, true, false));
        assert_eq!((plan.work, plan.resumed), (set(&[(0, 1000)]), ByteSize::ZERO));
    }

    #[test]
    fn changed_extents_are_clipped_to_the_disk() {
        let point = point("p2", "c2");
        let changes = Some(Changes::Since(set(&[(10, 5), (990, 64)])));
        let plan = decide(&Facts { base: Some(committed("c1")), changes, ..facts(&point) });
        assert_eq!((plan.mode, plan.work), (ReplicationType::Incremental, set(&[(10, 5), (990, 10)])));
    }

    #[test]
    fn the_same_basis_continues_from_the_journal() {
        let point = point("p1", "c1");
        let plan = decide(&Facts {
            content: VolumeContent::Inconsistent,
            journal: Some(journal("p1", None, &[], &[(0, 400)])),
            ..facts(&point)
        });
        assert!(plan.continues && !plan.blank);
        assert_eq!((plan.work, plan.resumed), (set(&[(400, 600)]), ByteSize::new(400)));
    }

    #[test]
    fn another_content_starts_a_full_copy_over() {
        let point = point("p2", "c2");
        let plan = decide(&Facts { journal: Some(journal("p1", None, &[], &[(0, 400)])), ..facts(&point) });
        assert!(!plan.continues);
        assert_eq!(plan.work, set(&[(0, 1000)]));
    }

    #[test]
    fn l12_extents_of_an_unfinished_attempt_on_the_same_base_are_copied_again() {
        let point = point("p3", "c3");
        let plan = decide(&Facts {
            content: VolumeContent::Inconsistent,
            base: Some(committed("c1")),
            changes: Some(Changes::Since(set(&[(500, 10)]))),
            journal: Some(journal("p2", Some("c1"), &[(10, 5)], &[(0, 100)])),
            ..facts(&point)
        });
        assert!(!plan.continues);
        assert_eq!(plan.work, set(&[(10, 5), (500, 10)]));
    }

    #[test]
    fn more_changes_under_the_same_content_id_do_not_trust_the_journal() {
        let point = point("p2", "c2");
        let plan = decide(&Facts {
            base: Some(committed("c1")),
            changes: Some(Changes::Since(set(&[(10, 5), (50, 5)]))),
            journal: Some(journal("p2", Some("c1"), &[(10, 5)], &[(0, 100)])),
            ..facts(&point)
        });
        assert_eq!((plan.continues, plan.work), (false, set(&[(10, 5), (50, 5)])));
    }

    #[test]
    fn after_an_unfinished_full_copy_changed_extents_are_not_enough() {
        let point = point("p3", "c3");
        let plan = decide(&Facts {
            content: VolumeContent::Inconsistent,
            base: Some(committed("c1")),
            changes: Some(Changes::Since(set(&[(10, 5)]))),
            journal: Some(journal("p2", None, &[], &[(0, 100)])),
            ..facts(&point)
        });
        assert_eq!((plan.mode, plan.work), (ReplicationType::Initial, set(&[(0, 1000)])));
        assert!(plan.note.is_some());
    }

    #[test]
    fn l09_a_reset_change_id_is_never_incremental() {
        let old = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446";
        let changes = Some(Changes::Since(set(&[(10, 5)])));
        for reset in [old.replace("52 3c", "53 3c"), old.replace("446", "445")] {
            let point = point("p2", &reset);
            let plan =
                decide(&Facts { base: Some(committed(old)), changes: changes.clone(), ..facts(&point) });
            assert_eq!(plan.mode, ReplicationType::Initial, "{reset}");
        }
    }
}
