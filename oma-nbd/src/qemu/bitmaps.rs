//! The chain of dirty bitmaps of a disk: which there are, which one follows, and which tell what changed. Nothing here does I/O.
//!
//! ```text
//!  point 5        point 7        point 9      now
//!    ├── bitmap 5 ──┤├── bitmap 7 ──┤├── bitmap 9 ──▶  recording
//!  changes from 5 up to 9 = bitmap 5 ∪ bitmap 7
//! ```
//! A bitmap begins a moment before its point in time and ends a moment after the next one, so what happens meanwhile stands in
//! two of them: a union is never short. Each names the one before it, so that a gap shows.

use oma_core::{ChangeId, Extent, JobId, WorkerId};
use serde::Deserialize;
use uuid::Uuid;

/// With more bitmaps that no epoch was committed for, a new chain begins: each costs memory and time of every write.
pub(super) const MOST: usize = 128;

/// A bitmap as QEMU reports it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Bitmap {
    pub(super) name: Option<String>,
    pub(super) recording: bool,
    pub(super) busy: bool,
    pub(super) inconsistent: bool,
}

/// What the name of a bitmap of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Whose chain it is.
    pub(super) owner: WorkerId,
    /// The chain; another one when the last was lost.
    pub(super) chain: Uuid,
    /// Its point in time. It follows the clock, so that an image brought back from a backup never gives out a number twice.
    pub(super) sequence: u64,
    /// The link before; 0 for the first.
    pub(super) previous: u64,
    /// The size of the disk then.
    pub(super) capacity: u64,
    /// The job that made it (L20).
    pub(super) job: JobId,
}

impl Link {
    pub(super) fn name(&self) -> String {
        let Self { owner, chain, sequence, previous, capacity, job } = self;
        format!("oma/{owner}/{}/{sequence}/{previous}/{capacity}/{job}", chain.simple())
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        let ["oma", owner, chain, sequence, previous, capacity, job] = parts[..] else { return None };
        let link = Self {
            owner: WorkerId::parse(owner).ok()?,
            chain: Uuid::try_parse(chain).ok()?,
            sequence: sequence.parse().ok()?,
            previous: previous.parse().ok()?,
            capacity: capacity.parse().ok()?,
            job: JobId::parse(job).ok()?,
        };
        (link.name() == name).then_some(link)
    }

    /// Whether it only says whose point in time it is: that one serves to look, nothing follows it.
    pub(super) fn is_look(&self) -> bool {
        self.owner.as_str().ends_with(LOOK)
    }

    /// The marker of its point in time, in the form whose parts a [`ChangeId`] knows.
    pub(super) fn change_id(&self) -> ChangeId {
        let half = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        let (first, last) = self.chain.as_bytes().split_at(8);
        let text = format!("{}-{}/{}", half(first), half(last), self.sequence);
        ChangeId::parse(text).expect("a UUID and a number are a change id")
    }
}

/// A link with what QEMU says of its bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) link: Link,
    pub(super) bitmap: Bitmap,
}

const LOOK: &str = "#look";

/// Who owns the points in time that an owner makes only to look: a chain of its own, so that no other is touched.
pub(super) fn look_of(owner: &WorkerId) -> WorkerId {
    let kept = owner.as_str().len().min(MOST_OWNER - LOOK.len());
    let kept = owner.as_str().floor_char_boundary(kept);
    WorkerId::parse(format!("{}{LOOK}", &owner.as_str()[..kept]))
        .expect("a worker id with a word behind it is one")
}

/// Bytes of a worker id.
const MOST_OWNER: usize = 191;

/// The links of all owners among the bitmaps of a disk, oldest first.
pub(super) fn links(bitmaps: &[Bitmap]) -> Vec<Known> {
    let known =
        |bitmap: &Bitmap| Some(Known { link: Link::parse(bitmap.name.as_deref()?)?, bitmap: bitmap.clone() });
    let mut links: Vec<_> = bitmaps.iter().filter_map(known).collect();
    links.sort_by_key(|known| known.link.sequence);
    links
}

/// The link that the next point in time adds, and the links it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) link: Link,
    /// Recording links of the same owner, which the new one relieves.
    pub(super) relieved: Vec<String>,
    /// Links of the same owner that nothing can follow.
    pub(super) lost: Vec<String>,
}

/// What the next point in time needs to know.
#[derive(Clone, Debug)]
pub(super) struct Moment<'a> {
    pub(super) owner: &'a WorkerId,
    pub(super) job: &'a JobId,
    pub(super) capacity: u64,
    /// Milliseconds of the clock.
    pub(super) now: u64,
    /// For a new chain.
    pub(super) fresh: Uuid,
}

/// Continues the owner's newest chain if every part of it can be trusted, else begins a new one.
pub(super) fn next(bitmaps: &[Bitmap], moment: &Moment<'_>) -> Next {
    let mut own = links(bitmaps);
    own.retain(|known| known.link.owner == *moment.owner);
    let newest = own.last().map(|known| known.link.clone());
    let sequence = moment.now.max(newest.as_ref().map_or(0, |link| link.sequence.saturating_add(1)));
    let name = |known: &Known| known.link.name();
    let sound = |chain: Uuid| {
        let mut parts = own.iter().filter(|known| known.link.chain == chain);
        parts.clone().all(|known| !known.bitmap.inconsistent)
            && parts.next_back().is_some_and(|k| k.bitmap.recording)
    };
    // Nothing comes after the last number there is: two points of one chain must not have the same.
    let follows = newest.filter(|link| sound(link.chain) && own.len() < MOST && link.sequence < u64::MAX);
    let (chain, previous) = follows.as_ref().map_or((moment.fresh, 0), |link| (link.chain, link.sequence));
    let (owner, job) = (moment.owner.clone(), moment.job.clone());
    let link = Link { owner, chain, sequence, previous, capacity: moment.capacity, job };
    let (kept, lost): (Vec<_>, Vec<_>) = own.iter().partition(|known| known.link.chain == chain);
    let relieved = kept.into_iter().filter(|known| known.bitmap.recording).map(name).collect();
    Next { link, relieved, lost: lost.into_iter().map(name).collect() }
}

/// What tells the changes from a change id up to a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Between {
    /// These bitmaps together.
    pub(super) bitmaps: Vec<String>,
    /// What the disk has grown by.
    pub(super) grown: Option<Extent>,
    /// Links of the same owner that are older than the change id.
    pub(super) older: Vec<String>,
}

/// Walks the chain back from a point in time to a change id; an error says why the changes are unknown (L09).
pub(super) fn between(bitmaps: &[Bitmap], point: &Link, since: &ChangeId) -> Result<Between, String> {
    let (Some(chain), Some(sequence)) = (since.uuid(), since.sequence()) else {
        return Err(format!("the change id {since} is not one of a chain of dirty bitmaps"));
    };
    if chain != point.chain {
        return Err(format!("the chain of dirty bitmaps of {since} is lost; a new one has begun"));
    }
    let mut own = links(bitmaps);
    own.retain(|known| known.link.owner == point.owner);
    let find =
        |sequence: u64| own.iter().find(|known| known.link.chain == chain && known.link.sequence == sequence);
    let (mut names, mut capacity, mut at) = (Vec::new(), point.capacity, point.clone());
    while at.sequence != sequence {
        if at.previous == 0 || at.previous >= at.sequence || at.sequence < sequence {
            return Err(format!("no dirty bitmap began at {since}"));
        }
        let Some(Known { link, bitmap }) = find(at.previous) else {
            return Err(format!("the dirty bitmap of sequence {} is missing", at.previous));
        };
        if bitmap.inconsistent {
            return Err(format!("the dirty bitmap of sequence {} was lost with the machine", link.sequence));
        }
        if bitmap.busy {
            return Err(format!("the dirty bitmap of sequence {} is in use by somebody else", link.sequence));
        }
        if link.capacity > at.capacity {
            return Err(format!("the disk shrank from {} to {} bytes", link.capacity, at.capacity));
        }
        names.push(link.name());
        capacity = link.capacity;
        at = link.clone();
    }
    let older = own.iter().filter(|known| known.link.chain != chain || known.link.sequence < sequence);
    Ok(Between {
        bitmaps: names,
        grown: Extent::between(capacity, point.capacity),
        older: older.map(|known| known.link.name()).collect(),
    })
}

#[cfg(test)]
mod tests;
