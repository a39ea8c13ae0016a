use std::fmt;

use super::{AuditHash, AuditHead, AuditRecord};
use crate::{AuditId, Timestamp};

/// Where a trail stands: what its implementation keeps beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainState {
    /// The last entry.
    pub head: AuditHead,
    /// When that was recorded.
    pub at: Timestamp,
    /// The last entry that was pruned; 0 before the first.
    pub pruned: AuditId,
}

impl ChainState {
    /// Of a trail whose last row is `last`, none of which is chained; 0 for an empty one.
    #[must_use]
    pub const fn new(last: AuditId) -> Self {
        let head = AuditHead { id: last, hash: AuditHash::GENESIS };
        Self { head, at: Timestamp::MIN, pruned: AuditId::FIRST }
    }
}

/// What was done to a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// An entry is missing.
    Removed,
    /// An entry is not what it was.
    Altered,
    /// An entry was not recorded by this program.
    Inserted,
}

/// The first place where a trail was tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditBreak {
    /// The entry.
    pub id: AuditId,
    /// What was done to it.
    pub what: Tampering,
}

impl fmt::Display for AuditBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Tampering::Removed => "removed",
            Tampering::Altered => "altered",
            Tampering::Inserted => "inserted",
        };
        write!(f, "entry {} was {what}", self.id)
    }
}

/// What reading a trail gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// So many entries are as they were recorded, from the first on.
    pub entries: u64,
    /// The last of them.
    pub head: Option<AuditHead>,
    /// What was found behind them.
    pub broken: Option<AuditBreak>,
}

/// Reads a trail in the order of its ids.
#[derive(Debug)]
pub struct ChainWalk<'k> {
    chain: Option<ChainState>,
    known: Option<&'k AuditHead>,
    /// The last row that is in no chain, from before there was one.
    unchained: Option<AuditId>,
    last: Option<AuditHead>,
    entries: u64,
    /// What comes before the first entry and is not there: its id and hash.
    missing: Option<AuditHead>,
}

impl<'k> ChainWalk<'k> {
    /// Over a trail that stands so; `known` is a head that was kept elsewhere.
    #[must_use]
    pub const fn new(chain: Option<ChainState>, known: Option<&'k AuditHead>) -> Self {
        Self { chain, known, unchained: None, last: None, entries: 0, missing: None }
    }

    /// Looks at the next row.
    ///
    /// # Errors
    /// It breaks the chain: the walk is over.
    pub fn step(&mut self, row: &AuditRecord) -> Result<(), AuditBreak> {
        let broken = |id, what| Err(AuditBreak { id, what });
        let (Some(previous), Some(hash)) = (row.previous, row.hash) else {
            // From before the chain began.
            if self.last.is_some() || row.hash.is_some() || row.previous.is_some() {
                return broken(row.id, Tampering::Inserted);
            }
            self.unchained = Some(row.id);
            return Ok(());
        };
        if self.chain.is_none_or(|chain| row.id > chain.head.id) {
            return broken(row.id, Tampering::Inserted);
        }
        match self.last {
            None => self.begin(row.id, previous)?,
            Some(last) if row.id <= last.id => return broken(row.id, Tampering::Inserted),
            Some(last) if row.id > last.id.next() => return broken(last.id.next(), Tampering::Removed),
            Some(last) if previous != last.hash && row.computed(previous) == hash => {
                return broken(last.id, Tampering::Altered);
            }
            Some(last) if previous != last.hash => {
                return broken(row.id, Tampering::Altered);
            }
            Some(_) => {}
        }
        let is_another = self.known.is_some_and(|known| known.id == row.id && known.hash != hash);
        if row.computed(previous) != hash || is_another {
            return broken(row.id, Tampering::Altered);
        }
        if let (Some((through, hash)), Some(missing)) = (row.prunes(), self.missing)
            && (through > missing.id
                || (through == missing.id && hash.is_none_or(|hash| hash == missing.hash)))
        {
            self.missing = None;
        }
        self.entries += 1;
        self.last = Some(AuditHead { id: row.id, hash });
        Ok(())
    }

    /// The first row of the chain that is there.
    fn begin(&mut self, id: AuditId, previous: AuditHash) -> Result<(), AuditBreak> {
        if previous == AuditHash::GENESIS {
            return Ok(());
        }
        if let Some(id) = self.unchained {
            return Err(AuditBreak { id, what: Tampering::Inserted });
        }
        let pruned = self.pruned();
        let before = AuditId(id.0.saturating_sub(1));
        if before > pruned {
            return Err(AuditBreak { id: pruned.next(), what: Tampering::Removed });
        }
        self.missing = Some(AuditHead { id: before, hash: previous });
        Ok(())
    }

    fn pruned(&self) -> AuditId {
        self.chain.map_or(AuditId::FIRST, |chain| chain.pruned)
    }

    /// What the whole trail is, after its last row or the one that broke it.
    #[must_use]
    pub fn end(self, broken: Option<AuditBreak>) -> Verified {
        let broken = broken.or_else(|| self.lacks());
        Verified { entries: self.entries, head: self.last, broken }
    }

    /// What is missing at either end.
    fn lacks(&self) -> Option<AuditBreak> {
        let removed = |id| Some(AuditBreak { id, what: Tampering::Removed });
        if let Some(missing) = self.missing {
            return removed(missing.id);
        }
        let last = self.last.map(|last| last.id).or(self.unchained).unwrap_or(self.pruned());
        let head = self.chain.map(|chain| chain.head);
        if [head.as_ref(), self.known].into_iter().flatten().any(|head| head.id > last) {
            return removed(last.next());
        }
        let is_another = self.last.zip(head).is_some_and(|(last, head)| last.hash != head.hash);
        is_another.then_some(AuditBreak { id: last, what: Tampering::Altered })
    }
}

#[cfg(test)]
mod tests;
