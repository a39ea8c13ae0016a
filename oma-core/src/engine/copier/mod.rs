//! Copies the work of one disk: a bounded pipeline of pieces, in order, with a journal of what is durable.
//!
//! ```text
//! pieces ──► memory ─► read ─► zero test ─► write ──► ledger ──► flush ─► journal
//!            └──── as deep as it pays, ≤ in_flight ───┘    └─ ≤ journal_step unrecorded ─┘
//! ```

mod admission;
mod buffers;
mod counters;
mod depth;
mod known_zero;
mod landing;
mod ledger;
mod memory;
mod mover;
mod pieces;
mod runs;
mod share;
mod shuttle;

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub(super) use self::admission::{Admission, Budget, Ticket};
pub(super) use self::counters::Counters;
use self::depth::Depth;
use self::ledger::Ledger;
pub(super) use self::memory::{Memory, Taken};
use self::mover::{Moved, Mover};
use self::pieces::{Cut, Piece, pieces};
use super::config::ReplicateConfig;
use super::explain::{Stage, StageTimes};
use super::progress::{Event, Progress};
use super::retry::retry;
use crate::traits::{BlockDevice, Zeroing};
use crate::{ByteSize, DiskKey, Error, ErrorKind, Extent, ExtentSet, Result};

/// Where a copy notes what is durable at the target.
#[async_trait]
pub(super) trait Recorder: fmt::Debug + Send + Sync {
    /// All work below the end of `finished` is durable; `durable` are its bytes.
    async fn record(&self, finished: Extent, durable: ByteSize) -> Result<()>;
}

/// What the copy of one disk works with.
#[derive(Debug)]
pub(super) struct Copier<'r> {
    pub(super) key: &'r DiskKey,
    pub(super) source: Arc<dyn BlockDevice>,
    pub(super) target: Arc<dyn BlockDevice>,
    /// The size of the disk.
    pub(super) capacity: ByteSize,
    /// What is copied.
    pub(super) work: &'r ExtentSet,
    /// Bytes that are durable already.
    pub(super) resumed: ByteSize,
    /// Whether the target reads as zero wherever nothing was written.
    pub(super) blank: bool,
    pub(super) zeroing: Zeroing,
    pub(super) recorder: &'r dyn Recorder,
    pub(super) admission: &'r Admission,
    pub(super) config: &'r ReplicateConfig,
    pub(super) progress: &'r dyn Progress,
    pub(super) stop: &'r CancellationToken,
}

/// A journal entry under way: answers the mark it reached and the time for the flush and the entry.
type Recording<'a> = BoxFuture<'a, Result<(u64, StageTimes)>>;

/// Pieces under way before anything was tried: few, because what is on its way fits the cache then; far sources get more soon.
const FIRST_DEPTH: usize = 4;

/// A piece that is moved between devices of this machine.
const LOCAL_PIECE: ByteSize = ByteSize::mib(8);

impl Copier<'_> {
    /// Copies everything, flushes and records it.
    ///
    /// However it ends, no write of it is under way any more afterwards, unless the target hangs.
    pub(super) async fn run(&self, counters: &mut Counters) -> Result<()> {
        let left = self.share(counters).await?;
        let mover = Mover::new(self);
        let mut flight = FuturesUnordered::new();
        let mut recording: OptionFuture<Recording<'_>> = None.into();
        let result = self.pump(&left, &mover, &mut flight, &mut recording, counters).await;
        if result.is_err() {
            mover.give_up();
            let drained = async { while flight.next().await.is_some() {} };
            // What is being made durable is not given up: its entry saves the next run that work.
            let recorded = async {
                if let Some(Ok((_, stages))) = recording.await {
                    counters.stages += stages;
                    counters.flush_in_doubt = false;
                }
            };
            let ended = futures_util::future::join(drained, recorded);
            if tokio::time::timeout(self.config.drain, ended).await.is_err() {
                tracing::error!(disk = %self.key, "writes are still under way on a device that does not answer");
            }
        }
        result
    }

    async fn pump<'m>(
        &'m self,
        work: &ExtentSet,
        mover: &'m Mover<'m>,
        flight: &mut FuturesUnordered<BoxFuture<'m, Result<Moved>>>,
        recording: &mut OptionFuture<Recording<'m>>,
        counters: &mut Counters,
    ) -> Result<()> {
        let mut is_local = mover.is_local();
        let piece = if is_local && self.admission.is_unlimited() { self.local_piece() } else { self.piece() };
        let mut ledger = Ledger::new(self.config.journal_step, self.resumed);
        let mut depth = self.depth(is_local);
        let planned = pieces(Arc::clone(&self.source), work, self.cut(piece), self.config.retry);
        let mut planned = std::pin::pin!(planned.peekable());
        let mut all_planned = false;
        let mut recording_under_way = false;
        let mut tick = self.ticker();
        loop {
            let may_read = !all_planned && ledger.has_room(piece);
            let has_room = depth.has_room(flight.len()) && ledger.has_room(piece);
            let stuck = flight.is_empty() && (all_planned || !has_room);
            if !recording_under_way && ledger.is_due(stuck) {
                *recording = Some(self.record(&ledger)).into();
                (recording_under_way, counters.flush_in_doubt) = (true, true);
            }
            if all_planned && flight.is_empty() && !recording_under_way {
                break;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(self.stopped()),
                Some(recorded) = &mut *recording, if recording_under_way => {
                    *recording = None.into();
                    let (mark, stages) = recorded?;
                    (recording_under_way, counters.flush_in_doubt) = (false, false);
                    counters.stages += stages;
                    ledger.recorded(mark);
                    counters.progress.durable = ledger.durable();
                    self.progress.event(Event::Recorded { disk: self.key, progress: counters.told() });
                }
                piece = next(&mut planned), if has_room && !all_planned => match piece {
                    None => all_planned = true,
                    Some(piece) => {
                        let piece = piece?;
                        ledger.dispatched(&piece);
                        flight.push(Box::pin(mover.carry(piece)));
                    }
                },
                Some(moved) = flight.next(), if !flight.is_empty() => {
                    let moved = moved?;
                    ledger.done(moved.extent);
                    depth.moved(moved.read, may_read, Instant::now());
                    if is_local != mover.is_local() {
                        is_local = mover.is_local();
                        depth = self.depth(is_local);
                    }
                    moved.count(counters);
                    self.progress.event(Event::Copied { disk: self.key, progress: counters.told() });
                }
                _ = tick.tick(), if !recording_under_way => ledger.is_time(),
            }
        }
        self.finish(counters).await
    }

    /// Makes everything below the ledger's mark durable, then says so in the journal.
    fn record<'m>(&'m self, ledger: &Ledger) -> Recording<'m> {
        let (from, mark, durable) = (ledger.recorded_mark(), ledger.mark(), ledger.durable_at_mark());
        Box::pin(async move {
            let mut stages = self.flush().await?;
            let flushed = Instant::now();
            if let Some(extent) = Extent::between(from, mark) {
                self.journal(extent, durable).await?;
                self.let_go(extent).await;
            }
            stages.add(Stage::Journal, flushed.elapsed());
            Ok((mark, stages))
        })
    }

    /// A copy larger than the memory would push everything else out of the cache, and wait for that.
    async fn let_go(&self, extent: Extent) {
        if self.target.in_place().is_none() {
            return;
        }
        let target = Arc::clone(&self.target);
        // Waited for: whoever comes next may want the target for itself. A hint has no failure to tell.
        let _ =
            tokio::task::spawn_blocking(move || target.in_place().map(|target| target.let_go(extent))).await;
    }

    /// The last flush, also of a disk that had nothing to do, and the entry that covers the whole disk.
    async fn finish(&self, counters: &mut Counters) -> Result<()> {
        counters.flush_in_doubt = true;
        counters.stages += self.flush().await?;
        counters.flush_in_doubt = false;
        let total = self.resumed + self.work.bytes();
        if let Some(whole) = Extent::between(0, self.capacity.bytes()) {
            self.journal(whole, total).await?;
        }
        counters.progress.durable = total;
        self.progress.event(Event::Recorded { disk: self.key, progress: counters.told() });
        Ok(())
    }

    async fn flush(&self) -> Result<StageTimes> {
        let begun = Instant::now();
        // Never retried: after a failed flush the kernel may have dropped the dirty pages.
        let mut flush = self.target.flush();
        tokio::select! {
            biased;
            flushed = &mut flush => flushed?,
            () = self.stop.cancelled() => match tokio::time::timeout(self.config.drain, flush).await {
                Ok(flushed) => flushed?,
                Err(_) => return Err(self.stopped()),
            },
        }
        let mut stages = StageTimes::default();
        stages.add(Stage::Flush, begun.elapsed());
        Ok(stages)
    }

    async fn journal(&self, extent: Extent, durable: ByteSize) -> Result<()> {
        retry(&self.config.retry, self.stop, || self.recorder.record(extent, durable)).await
    }

    /// A target of large blocks gets them whole: parts of one cost it as much.
    fn piece(&self) -> ByteSize {
        let preferred = ByteSize::new(self.target.info().block_sizes.preferred.into());
        self.config.piece.max(preferred.min(self.config.journal_step))
    }

    /// What a thread moves alone takes the memory of one stride, however large it is, and each piece costs a hand-over.
    fn local_piece(&self) -> ByteSize {
        let most = ByteSize::new(self.config.journal_step.bytes() / 16);
        self.piece().max(LOCAL_PIECE.min(most))
    }

    fn cut(&self, size: ByteSize) -> Cut {
        let Self { config, .. } = self;
        Cut { size, gap: config.merge_gap, trust_zeroes: config.trust_zeroes }
    }

    /// Spinning disks are fast only in order. Pieces that a thread each moves are kept from the processor, or from the lock that
    /// the kernel has for writers of one file, by more of them.
    fn depth(&self, is_local: bool) -> Depth {
        let threads = std::thread::available_parallelism().map_or(FIRST_DEPTH, NonZero::get);
        let (first, most) = match (self.source.info().is_rotational, is_local) {
            (true, _) => (1, self.config.in_flight),
            (false, true) => (threads + 1, (2 * threads).min(self.config.in_flight)),
            (false, false) => (FIRST_DEPTH, self.config.in_flight),
        };
        Depth::new(first, most)
    }

    fn ticker(&self) -> Interval {
        let period = self.config.journal_interval.max(std::time::Duration::from_millis(1));
        let mut tick = tokio::time::interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick
    }

    fn stopped(&self) -> Error {
        Error::new(ErrorKind::Cancelled, "copy disk", self.key).because("the run was stopped")
    }
}

async fn next<S: Stream<Item = Result<Piece>> + Unpin>(pieces: &mut S) -> Option<Result<Piece>> {
    pieces.next().await
}

#[cfg(test)]
mod tests;
