//! Decides what has to be copied of a disk: a pure function of what the source and the stores say.

use crate::engine::config::TrustPolicy;
use crate::record::{CommittedChange, JournalBasis, JournalEntry, VolumeContent};
use crate::state::ReplicationType;
use crate::traits::{Changes, PointDisk};
use crate::{ByteSize, ChangeId, Endpoint, Extent, ExtentSet, Generation};

/// What is known of a disk before it is copied.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    /// The disk at the source's point in time.
    pub(super) point: &'a PointDisk,
    /// The source.
    pub(super) endpoint: &'a Endpoint,
    /// The generation of its volume.
    pub(super) generation: Generation,
    /// What its volume holds.
    pub(super) content: VolumeContent,
    /// Whether the volume is known to be as the last writer of ours left it.
    pub(super) untouched: bool,
    /// What is believed without a look.
    pub(super) trust: TrustPolicy,
    /// The last committed change id that this generation still matches.
    pub(super) base: Option<CommittedChange>,
    /// What the source says has changed since `base`.
    pub(super) changes: Option<Changes>,
    /// What the volume was made larger by just now: nothing of it was ever copied.
    pub(super) grown: Option<Extent>,
    /// What earlier runs left.
    pub(super) journal: Option<JournalEntry>,
    /// What the source says has changed since the point in time that the journal's finished extents hold, when that is
    /// another one and the source could be asked (see [`carries_over`]).
    pub(super) since_journal: Option<Changes>,
    /// No run leaves more data written that it has not recorded.
    pub(super) journal_step: ByteSize,
}

/// What has to be copied of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskPlan {
    pub(super) mode: ReplicationType,
    pub(super) basis: JournalBasis,
    /// Changed extents, and those of unfinished attempts on the same base; empty for a full copy.
    pub(super) planned: ExtentSet,
    /// What is durable at the target and equal to the point in time, by earlier runs.
    pub(super) finished: ExtentSet,
    /// What the epoch has to cover.
    pub(super) scope: ExtentSet,
    /// What of it is still to be done, by this run.
    pub(super) work: ExtentSet,
    /// Bytes of the scope that earlier runs made durable.
    pub(super) resumed: ByteSize,
    /// Bytes of the scope that were found equal at both ends by comparing, in place of copying.
    pub(super) equal: ByteSize,
    /// What earlier runs copied and this one does not believe without comparing it.
    pub(super) doubted: ExtentSet,
    /// Bytes that earlier runs copied for this epoch and that are copied again, at most.
    pub(super) recopied: ByteSize,
    /// Whether the target reads as zero wherever nothing was written.
    pub(super) blank: bool,
    /// Whether the volume is known to read as zero behind the end of the disk.
    pub(super) ends_zeroed: bool,
    /// What an operator should know.
    pub(super) note: Option<String>,
}

impl DiskPlan {
    /// The journal to begin with.
    pub(super) fn journal(&self) -> JournalEntry {
        JournalEntry {
            basis: self.basis.clone(),
            planned: self.planned.clone(),
            finished: self.finished.clone(),
            recopied: self.recopied,
        }
    }

    /// Takes out of the work what was found equal at both ends and is durable: it is finished.
    pub(super) fn settle(&mut self, equal: &ExtentSet) {
        let equal = self.work.intersection(equal);
        self.work = self.work.difference(&equal);
        self.finished.extend(equal.iter());
        self.equal += equal.bytes();
    }

    /// Tells an operator how much was found equal, once all is compared.
    pub(super) fn note_equal(&mut self) {
        if self.equal == ByteSize::ZERO {
            return;
        }
        let (all, found) = (self.work.bytes() + self.equal, self.equal);
        let compared = format!("{found} of {all} are equal by their hashes and are not copied");
        self.note = Some(self.note.take().map_or(compared.clone(), |note| format!("{note}; {compared}")));
    }
}

/// Whether the finished extents of a journal may hold at a later point in time, so that the source is worth asking what
/// changed in between: the same volume content, the same source, tracking that was not reset (L09).
pub(super) fn carries_over(
    journal: &JournalBasis,
    generation: Generation,
    endpoint: &Endpoint,
    point: &PointDisk,
) -> bool {
    journal.generation == generation
        && journal.endpoint == *endpoint
        && (journal.content == point.content || point.change_id.continues(&journal.change_id))
}

/// Decides. When in doubt, the whole disk is covered (L09): what of it is equal already, a comparison finds.
pub(super) fn decide(facts: &Facts<'_>) -> DiskPlan {
    let (base, changes, mut note) = base_and_changes(facts);
    let basis = JournalBasis {
        generation: facts.generation,
        endpoint: facts.endpoint.clone(),
        content: facts.point.content.clone(),
        change_id: facts.point.change_id.clone(),
        base,
        capacity: facts.point.capacity,
    };
    let (planned, finished) = match carry_over(facts, &basis, &changes) {
        Ok(carried) => carried,
        Err(reason) => {
            note = note.or(reason);
            (with_attempts(facts, &basis, changes), ExtentSet::new())
        }
    };
    let doubted = match &facts.journal {
        Some(journal) if doubts(facts) => journal.finished.clone(),
        _ => ExtentSet::new(),
    };
    let mut entry = JournalEntry { finished, ..JournalEntry::new(basis, planned) };
    let scope = entry.scope();
    let work = scope.difference(&entry.finished);
    entry.recopied = recopied(facts, &work);
    let is_blank = facts.content == VolumeContent::Blank && facts.untouched;
    DiskPlan {
        mode: if entry.basis.base.is_some() {
            ReplicationType::Incremental
        } else {
            ReplicationType::Initial
        },
        resumed: ByteSize::new(scope.bytes().bytes() - work.bytes().bytes()),
        basis: entry.basis,
        planned: entry.planned,
        finished: entry.finished,
        scope,
        work,
        equal: ByteSize::ZERO,
        doubted,
        recopied: entry.recopied,
        blank: is_blank,
        ends_zeroed: is_blank || ended_there(facts),
        note,
    }
}

/// Bytes that are copied again, at most: those of earlier interruptions, finished ones that are so no more, and what the
/// last run wrote without recording it.
fn recopied(facts: &Facts<'_>, work: &ExtentSet) -> ByteSize {
    let mid_epoch = facts.content == VolumeContent::Inconsistent;
    match &facts.journal {
        Some(journal) => {
            let again = journal.scope().intersection(&journal.finished).intersection(work).bytes();
            let same = journal.basis.generation == facts.generation;
            let unrecorded = if mid_epoch || !same { facts.journal_step } else { ByteSize::ZERO };
            journal.recopied + again + unrecorded
        }
        // It is in mid-epoch because a run was interrupted; without its journal nobody knows what that one copied.
        None if mid_epoch && facts.base.is_some() => work.bytes(),
        None => ByteSize::ZERO,
    }
}

/// What earlier runs planned and what of their finished extents is right at this point in time: all of them but what
/// changed since. Or why nothing is, if an operator should know.
fn carry_over(
    facts: &Facts<'_>,
    basis: &JournalBasis,
    changes: &ExtentSet,
) -> Result<(ExtentSet, ExtentSet), Option<String>> {
    let journal = same_base(facts, basis).ok_or(None)?;
    if !carries_over(&journal.basis, facts.generation, facts.endpoint, facts.point) {
        return Err(lost(journal, "tracking was reset"));
    }
    if doubts(facts) {
        return Err(unseen(journal));
    }
    let since = match &facts.since_journal {
        _ if journal.basis.content == basis.content => ExtentSet::new(),
        Some(Changes::Since(extents)) => extents.clone(),
        Some(Changes::Unknown(reason)) => return Err(lost(journal, reason)),
        None => return Err(lost(journal, "it was not asked")),
    };
    // A byte beyond the end of one of the two points was never compared.
    let (old, new) = (journal.basis.capacity.bytes(), basis.capacity.bytes());
    let known: ExtentSet = Extent::between(0, old.min(new)).into_iter().collect();
    // More changes than the interrupted run was told of: its journal cannot know that they are finished.
    let unplanned = changes.difference(&journal.planned);
    let finished = journal.finished.intersection(&known).difference(&since).difference(&unplanned);
    let mut planned = ExtentSet::new();
    if basis.base.is_some() {
        planned = changes.clone();
        // What an unfinished attempt began to overwrite is neither old nor new: it stays planned until it is finished.
        planned.extend(journal.planned.iter());
        planned.extend(since.iter());
        planned.extend(Extent::between(old, new));
    }
    Ok((planned, finished))
}

/// The changed extents, and those that unfinished attempts on the same base may have overwritten.
fn with_attempts(facts: &Facts<'_>, basis: &JournalBasis, mut changes: ExtentSet) -> ExtentSet {
    if let Some(journal) = same_base(facts, basis).filter(|_| basis.base.is_some()) {
        changes.extend(journal.planned.iter());
        // What the disk has grown by since, the source need not tell of.
        changes.extend(Extent::between(journal.basis.capacity.bytes(), basis.capacity.bytes()));
    }
    changes
}

/// The journal, when it is of this volume content and started from the same change id. Only a volume in mid-epoch can have
/// finished extents.
fn same_base<'a>(facts: &'a Facts<'_>, basis: &JournalBasis) -> Option<&'a JournalEntry> {
    facts.journal.as_ref().filter(|journal| {
        let of = &journal.basis;
        let mid_epoch = facts.content == VolumeContent::Inconsistent || journal.finished.is_empty();
        mid_epoch
            && of.generation == basis.generation
            && of.endpoint == basis.endpoint
            && of.base == basis.base
    })
}

fn lost(journal: &JournalEntry, reason: &str) -> Option<String> {
    let bytes = journal.synced();
    (bytes != ByteSize::ZERO).then(|| {
        format!("{bytes} that an interrupted run had copied are copied again: the source cannot tell what changed since ({reason})")
    })
}

/// Whether what earlier runs copied is compared before it counts.
fn doubts(facts: &Facts<'_>) -> bool {
    facts.trust == TrustPolicy::AlwaysCompare && !facts.untouched
}

fn unseen(journal: &JournalEntry) -> Option<String> {
    let bytes = journal.synced();
    (bytes != ByteSize::ZERO).then(|| {
        format!("{bytes} that an interrupted run had copied are compared: nobody knows who wrote to the volume since")
    })
}

/// The change id to start from with what changed since, or why there is none.
fn base_and_changes(facts: &Facts<'_>) -> (Option<ChangeId>, ExtentSet, Option<String>) {
    let full = |note: Option<String>| (None, ExtentSet::new(), note);
    let (Some(base), Some(changes)) = (&facts.base, &facts.changes) else {
        return full(None);
    };
    // What an interrupted run has overwritten is known from its journal and from nowhere else.
    if facts.content == VolumeContent::Inconsistent {
        let journal = facts.journal.as_ref().filter(|journal| {
            journal.basis.generation == facts.generation && journal.basis.endpoint == *facts.endpoint
        });
        let reason = match journal.map(|journal| &journal.basis.base) {
            Some(Some(begun)) if *begun == base.change_id => None,
            Some(None) => Some("a full copy of it was not finished: the whole disk is covered"),
            _ => Some("the journal of its unfinished copy is lost: the whole disk is covered"),
        };
        if let Some(reason) = reason {
            return full(Some(reason.to_owned()));
        }
    }
    if !facts.point.change_id.continues(&base.change_id) {
        return full(Some(format!(
            "its change id {} does not continue {}: tracking was reset, so the whole disk is covered",
            facts.point.change_id, base.change_id
        )));
    }
    match changes {
        Changes::Since(extents) => {
            let mut changes = extents.clone();
            changes.extend(grown(facts, base));
            (Some(base.change_id.clone()), changes, None)
        }
        Changes::Unknown(reason) => full(Some(format!("the whole disk is covered: {reason}"))),
    }
}

/// What the disk has grown by since its last epoch: nothing of it was ever copied, and the source need not tell of it. Where
/// the size of then was not recorded, that of the volume stands for it, which may have been rounded up.
fn grown(facts: &Facts<'_>, base: &CommittedChange) -> Option<Extent> {
    match base.capacity {
        Some(then) => Extent::between(then.bytes(), facts.point.capacity.bytes()),
        None => facts.grown,
    }
}

/// Whether the disk was as large at the epoch that the volume holds.
fn ended_there(facts: &Facts<'_>) -> bool {
    let then = facts.base.as_ref().and_then(|base| base.capacity);
    matches!(facts.content, VolumeContent::Epoch(_)) && then == Some(facts.point.capacity)
}

#[cfg(test)]
mod tests;
