//! Compares two devices by the hashes of their leaves and names each extent that differs (L14).
//!
//! ```text
//!  window ── both promise zero, and are believed? ────────────── equal, but for a leaf that is read
//!     └ no ── hashes of the source ┐
//!             hashes of the target ┴ equal? ──────────────────── equal
//!                                     └ no ── bytes of both ──── granules that differ
//! ```
//!
//! Both sides hash at once, each where its data is ([`LeafHasher`](crate::traits::LeafHasher)); only what differs is read from
//! both and compared byte by byte. Whatever is read passes the limits of its way before, and takes memory where it is read here;
//! nothing waits for a right while it has another.

mod legs;

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::legs::Legs;
pub(super) use self::legs::{Leg, Listener};
use super::config::{ReplicateConfig, RetryConfig};
use super::copier::{Admission, Ticket};
use super::retry::retry;
use super::tally::{Hashed, Tally};
use super::zeroes::{windows, zeroes};
use crate::traits::{BlockDevice, LeafHasher, ReadFrom, ReadManner};
use crate::tree::{LEAF, LeafHash, LeafRun, READ, TreeBuilder, TreeRoot, leaf_hashes, read_leaf_hashes};
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result, page_aligned};

/// Unit in which differences are named.
const GRANULE: u64 = 4096;
/// So much is hashed by one task on both sides.
pub(super) const STRETCH: u64 = 4 << 20;
/// No more tasks are under way at once: more would only hold memory.
pub(super) const MOST_TASKS: usize = 16;
/// What differs is read in pieces of at most this.
const PIECE: u64 = 1 << 20;

/// Source and target of a comparison.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub(super) source: Arc<dyn BlockDevice>,
    pub(super) target: Arc<dyn BlockDevice>,
    pub(super) doubt: Doubt,
    /// What reads of the source pass through.
    pub(super) admission: &'a Admission,
    pub(super) config: &'a ReplicateConfig,
    pub(super) stop: &'a CancellationToken,
}

/// How much is read at the source of what both sides promise to be zero, when they are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// A leaf, chosen at random, of every window that has some.
    Some,
    /// All of it.
    All,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Every extent that differs.
    pub(super) differences: ExtentSet,
    /// The first of them where both sides promise zeroes, and the source holds data: a copy that believes it would not mend it.
    pub(super) broken: Option<Extent>,
    /// Bytes whose content was compared.
    pub(super) compared: ByteSize,
    /// Bytes that both sides promise to be zero, not read.
    pub(super) promised: ByteSize,
    /// How the target was read.
    pub(super) manner: ReadManner,
    /// The roots of source and target, when one extent from the start on was compared.
    pub(super) roots: Option<Roots>,
}

/// Roots of the trees over what was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roots {
    pub(super) source: TreeRoot,
    pub(super) target: TreeRoot,
}

/// A part of the scope.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Whole leaves that both sides promise to read as zero.
    Zero(Extent),
    /// The same, but they are read.
    Doubted(Extent),
    Unknown(Extent),
}

/// A part that was compared.
#[derive(Debug)]
struct Compared {
    extent: Extent,
    promised: u64,
    hashed: Hashed,
    source: Vec<LeafRun>,
    target: Vec<LeafRun>,
    differences: Vec<Extent>,
    /// The first of them where both sides promise zeroes.
    broken: Option<Extent>,
    manner: ReadManner,
}

impl Comparison<'_> {
    /// Compares what lies in the `scope`, which ends within both devices.
    ///
    /// # Errors
    /// Whatever a device answers: what could not be read is not equal (L11). `Cancelled` once stopped.
    pub(super) async fn run(&self, scope: &ExtentSet) -> Result<Found> {
        self.run_told(scope, &mut Tally::silent(), None).await
    }

    /// The same, and tells how far it is, and a listener what was found so far.
    ///
    /// # Errors
    /// As [`Comparison::run`]; what the listener answers.
    pub(super) async fn run_told(
        &self,
        scope: &ExtentSet,
        tally: &mut Tally<'_>,
        listener: Option<&mut dyn Listener>,
    ) -> Result<Found> {
        tally.begin(scope.bytes());
        let is_whole = scope.iter().eq(Extent::between(0, scope.bytes().bytes()));
        let tasks = self.config.in_flight.clamp(1, MOST_TASKS);
        let mut compared = stream::iter(windows(scope))
            .map(|window| self.parts(window))
            .buffered(2)
            .map_ok(|parts| stream::iter(parts).map(Ok))
            .try_flatten()
            .map_ok(|part| self.compare(part))
            .try_buffered(tasks);
        let (mut legs, mut promised) = (Legs::new(listener), 0);
        let (mut source, mut target) = (TreeBuilder::default(), TreeBuilder::default());
        while let Some(part) = compared.try_next().await? {
            part.source.iter().for_each(|run| source.push_many(run.hash, run.leaves()));
            part.target.iter().for_each(|run| target.push_many(run.hash, run.leaves()));
            promised += part.promised;
            tally.add(part.hashed.bytes + ByteSize::new(part.promised), part.hashed);
            legs.add(&part).await?;
        }
        legs.end_leg().await?;
        let roots = is_whole
            .then(|| Roots { source: source.root(scope.bytes()), target: target.root(scope.bytes()) });
        let (promised, compared) = (ByteSize::new(promised), ByteSize::new(scope.bytes().bytes() - promised));
        let Legs { differences, broken, manner, .. } = legs;
        Ok(Found { differences, broken, compared, promised, manner, roots })
    }

    /// Cuts a window into what needs no look and what does, in order.
    async fn parts(&self, window: ExtentSet) -> Result<Vec<Part>> {
        let Some(span) = window.span() else { return Ok(Vec::new()) };
        self.check_stop(span)?;
        let mut parts = Vec::new();
        if !self.config.trust_zeroes {
            parts.extend(window.iter().flat_map(|extent| extent.pieces(STRETCH)).map(Part::Unknown));
            return Ok(parts);
        }
        let ask = |device: Arc<dyn BlockDevice>| async move {
            retry(&self.config.retry, self.stop, || zeroes(&*device, span)).await
        };
        let (source, target) = futures_util::try_join!(ask(self.source.clone()), ask(self.target.clone()))?;
        let both: ExtentSet = source.intersection(&target).iter().filter_map(whole_leaves).collect();
        let doubted = match self.doubt {
            Doubt::All => both.clone(),
            Doubt::Some => one_leaf(&both.intersection(&window)),
        };
        for (extent, is_zero) in window.iter().flat_map(|extent| both.runs(extent)) {
            match is_zero {
                true => parts.extend(doubted.runs(extent).flat_map(|(part, is_doubted)| match is_doubted {
                    true => part.pieces(STRETCH).map(Part::Doubted).collect(),
                    false => vec![Part::Zero(part)],
                })),
                false => parts.extend(extent.pieces(STRETCH).map(Part::Unknown)),
            }
        }
        Ok(parts)
    }

    fn check_stop(&self, extent: Extent) -> Result<()> {
        if self.stop.is_cancelled() { Err(stopped(extent)) } else { Ok(()) }
    }

    async fn compare(&self, part: Part) -> Result<Compared> {
        let (extent, is_doubted) = match part {
            Part::Zero(extent) => return Ok(Compared::promised(extent)),
            Part::Doubted(extent) => (extent, true),
            Part::Unknown(extent) => (extent, false),
        };
        let pair = Arc::new(Pair {
            source: self.source.clone(),
            target: self.target.clone(),
            retry: self.config.retry,
            trust_zeroes: self.config.trust_zeroes && !is_doubted,
            stop: self.stop.clone(),
        });
        let mut hashed = Hashed { bytes: ByteSize::new(extent.length()), ..Hashed::default() };
        let hashes = {
            let pair = pair.clone();
            async move { pair.hashes(extent).await }
        };
        let hashes = self.admitted(extent, self.right_to_hash(&pair, extent), hashes, &mut hashed).await?;
        let (source, (target, manner)) = hashes;
        let mut differences = Vec::new();
        for suspect in suspects(extent, &source, &target).iter().flat_map(|extent| extent.pieces(PIECE)) {
            let right = self.admission.enter(suspect.length(), 2 * suspect.length());
            let pair = pair.clone();
            let narrow = async move { pair.narrow(suspect).await };
            differences.extend(self.admitted(suspect, right, narrow, &mut hashed).await?);
        }
        let broken = differences.first().copied().filter(|_| is_doubted);
        Ok(Compared { extent, promised: 0, hashed, source, target, differences, broken, manner })
    }

    async fn right_to_hash(&self, pair: &Pair, extent: Extent) -> Ticket {
        let (length, memory) = (extent.length(), pair.memory_to_hash(extent));
        match pair.source_hasher() {
            Some(_) => self.admission.enter_at_source(length, memory).await,
            None => self.admission.enter(length, memory).await,
        }
    }

    /// Until a comparison that was stopped is not waited for any more.
    async fn given_up(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(self.config.drain).await;
    }

    /// Works on an extent in a task of its own, once it may, and gives the right back.
    async fn admitted<T: Send + 'static>(
        &self,
        extent: Extent,
        right: impl Future<Output = Ticket>,
        work: impl Future<Output = Result<T>> + Send + 'static,
        hashed: &mut Hashed,
    ) -> Result<T> {
        let begun = Instant::now();
        let ticket = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopped(extent)),
            ticket = right => ticket,
        };
        let admitted = Instant::now();
        let mut working = std::pin::pin!(on_a_task(extent, async move {
            let _ticket = ticket;
            work.await
        }));
        let done = tokio::select! {
            biased;
            done = &mut working => done,
            // A device that does not answer keeps neither the run nor the rights of others.
            () = self.given_up() => Err(stopped(extent)),
        };
        hashed.waited += admitted - begun;
        hashed.time += admitted.elapsed();
        done
    }
}

impl Compared {
    /// What both sides promise to be zero.
    fn promised(extent: Extent) -> Self {
        let run = vec![LeafRun { extent, hash: LeafHash::of_zeroes(LEAF) }];
        Self {
            extent,
            promised: extent.length(),
            hashed: Hashed::default(),
            source: run.clone(),
            target: run,
            differences: Vec::new(),
            broken: None,
            manner: ReadManner::PastCache,
        }
    }
}

fn stopped(extent: Extent) -> Error {
    Error::new(ErrorKind::Cancelled, "compare", extent).because("it was stopped")
}

/// The error of a run that came upon a promise of zeroes that its source does not keep.
pub(super) fn broken_promise(extent: Extent) -> Error {
    Error::new(ErrorKind::Corrupt, "compare", extent).because(
        "the source promises that it reads as zero, but holds data there: believe no such promise (--distrust-zeroes; \
         a replication of this disk believes none any more)",
    )
}

/// Works on an extent in a task of its own, so that hashes are made on all processors. It ends when nobody waits for it.
pub(super) async fn on_a_task<T: Send + 'static>(
    extent: Extent,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match AbortOnDropHandle::new(tokio::spawn(work)).await {
        Ok(done) => done,
        Err(error) => {
            match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::new(ErrorKind::Cancelled, "compare", extent)
                    .because("the program is shutting down")),
            }
        }
    }
}

/// The hashes of all leaves of an extent, and how it was read. Without `from`, the device's own word is not believed: every byte
/// is read here.
pub(super) async fn hash_all(
    device: &dyn BlockDevice,
    extent: Extent,
    from: Option<ReadFrom>,
    config: &RetryConfig,
    stop: &CancellationToken,
) -> Result<(Vec<LeafRun>, ReadManner)> {
    let (mut runs, mut manner) = (Vec::new(), ReadManner::PastCache);
    let mut rest = Some(extent);
    while let Some(asked) = rest {
        let hash = || async move {
            match from {
                Some(from) => leaf_hashes(device, asked, from).await,
                None => read_leaf_hashes(device, asked).await,
            }
        };
        let found = retry(config, stop, hash).await?;
        manner = manner.min(found.manner);
        let end = found.runs.last().map_or(asked.offset(), |run| run.extent.end());
        runs.extend(found.runs);
        rest = Extent::between(end, extent.end());
    }
    Ok((runs, manner))
}

/// Both sides, as a task has them.
struct Pair {
    source: Arc<dyn BlockDevice>,
    target: Arc<dyn BlockDevice>,
    retry: RetryConfig,
    /// Whether the source is believed when it says what is zero (L10).
    trust_zeroes: bool,
    stop: CancellationToken,
}

impl Pair {
    /// Who hashes the source where it is, if anybody is believed to.
    fn source_hasher(&self) -> Option<&dyn LeafHasher> {
        self.source.leaf_hasher().filter(|_| self.trust_zeroes)
    }

    /// What the reads of whoever does not hash by itself hold at once.
    fn memory_to_hash(&self, extent: Extent) -> u64 {
        let hashers = [self.source_hasher(), self.target.leaf_hasher()];
        hashers.into_iter().filter(Option::is_none).map(|_| READ.min(extent.length())).sum()
    }

    /// The hashes of both, and how the target was read.
    async fn hashes(&self, extent: Extent) -> Result<(Vec<LeafRun>, (Vec<LeafRun>, ReadManner))> {
        let source = self.trust_zeroes.then_some(ReadFrom::Anywhere);
        let ((source, _), target) = futures_util::try_join!(
            hash_all(&*self.source, extent, source, &self.retry, &self.stop),
            hash_all(&*self.target, extent, Some(ReadFrom::Device), &self.retry, &self.stop)
        )?;
        Ok((source, target))
    }

    /// The granules that differ of leaves that do.
    ///
    /// When none is found, the leaf itself counts as different: what is read now is not what was hashed, so nobody knows
    /// which of both is kept.
    async fn narrow(&self, extent: Extent) -> Result<Vec<Extent>> {
        let (source, target) =
            futures_util::try_join!(self.read(&self.source, extent), self.read(&self.target, extent))?;
        let mut found = Vec::new();
        for leaf in extent.pieces(LEAF) {
            let before = found.len();
            found.extend(leaf.pieces(GRANULE).filter(|granule| {
                let at =
                    |position: u64| usize::try_from(position - extent.offset()).expect("a piece fits memory");
                let range = at(granule.offset())..at(granule.end());
                source[range.clone()] != target[range]
            }));
            if found.len() == before {
                found.push(leaf);
            }
        }
        Ok(found)
    }

    async fn read(&self, device: &Arc<dyn BlockDevice>, extent: Extent) -> Result<bytes::BytesMut> {
        let length = usize::try_from(extent.length()).expect("a piece fits memory");
        let read = || device.read_at(extent.offset(), page_aligned(length));
        let bytes = retry(&self.retry, &self.stop, read).await?;
        if bytes.len() == length {
            return Ok(bytes);
        }
        Err(Error::new(ErrorKind::Corrupt, "read", &device.info().identity)
            .because("it answered another number of bytes"))
    }
}

/// The leaves whose hashes differ.
fn suspects(extent: Extent, source: &[LeafRun], target: &[LeafRun]) -> ExtentSet {
    let pairs = each(source).zip(each(target));
    extent.pieces(LEAF).zip(pairs).filter(|(_, (one, other))| one != other).map(|(leaf, _)| leaf).collect()
}

/// The hash of each leaf.
fn each(runs: &[LeafRun]) -> impl Iterator<Item = LeafHash> {
    runs.iter().flat_map(|run| run.extent.pieces(LEAF).map(|_| run.hash))
}

/// The whole leaves of an extent.
fn whole_leaves(extent: Extent) -> Option<Extent> {
    Extent::between(extent.offset().next_multiple_of(LEAF), extent.end() / LEAF * LEAF)
}

/// One of the leaves of a set, at random.
fn one_leaf(extents: &ExtentSet) -> ExtentSet {
    let leaves = || extents.iter().flat_map(|extent| extent.pieces(LEAF));
    let number =
        u128::try_from(leaves().count()).ok().and_then(|count| Uuid::new_v4().as_u128().checked_rem(count));
    number
        .and_then(|number| usize::try_from(number).ok())
        .and_then(|number| leaves().nth(number))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests;
