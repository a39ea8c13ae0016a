//! Copies the work of one disk: a bounded pipeline of pieces, in order, with a journal of what is durable.
//!
//! ```text
//! pieces ──► read ─► zero test ─► write ──► ledger ──► flush ─► journal
//!            └──── in_flight at once ───┘    └─ ≤ journal_step unrecorded ─┘
//! ```

mod ledger;
mod mover;
mod pieces;

use std::sync::Arc;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::ledger::Ledger;
use self::mover::{Moved, Mover};
use self::pieces::{Piece, pieces};
use super::disk::Counters;
use super::plan::DiskPlan;
use crate::engine::config::ReplicateConfig;
use crate::engine::progress::{Event, Progress};
use crate::engine::retry::retry;
use crate::record::Lease;
use crate::traits::{BlockDevice, ExtentJournal, Zeroing};
use crate::{ByteSize, DiskKey, Error, ErrorKind, Extent, Result};

/// What the copy of one disk works with.
#[derive(Clone, Debug)]
pub(super) struct Copier<'r> {
    pub(super) key: &'r DiskKey,
    pub(super) plan: &'r DiskPlan,
    pub(super) source: Arc<dyn BlockDevice>,
    pub(super) target: Arc<dyn BlockDevice>,
    pub(super) zeroing: Zeroing,
    pub(super) journal: &'r dyn ExtentJournal,
    pub(super) lease: &'r Lease,
    pub(super) config: &'r ReplicateConfig,
    pub(super) progress: &'r dyn Progress,
    pub(super) stop: &'r CancellationToken,
}

/// A journal entry under way: answers the mark it reached.
type Recording<'a> = BoxFuture<'a, Result<u64>>;

impl Copier<'_> {
    /// Copies everything, flushes and records it.
    ///
    /// However it ends, no write of it is under way any more afterwards, unless the target hangs.
    pub(super) async fn run(&self, counters: &mut Counters) -> Result<()> {
        let mover = Mover::new(self);
        let mut flight = FuturesUnordered::new();
        let result = self.pump(&mover, &mut flight, counters).await;
        if result.is_err() {
            let drained = async { while flight.next().await.is_some() {} };
            if tokio::time::timeout(self.config.drain, drained).await.is_err() {
                tracing::error!(disk = %self.key, "writes are still under way on a device that does not answer");
            }
        }
        result
    }

    async fn pump<'m>(
        &'m self,
        mover: &'m Mover<'m>,
        flight: &mut FuturesUnordered<BoxFuture<'m, Result<Moved>>>,
        counters: &mut Counters,
    ) -> Result<()> {
        let mut ledger = Ledger::new(self.config.journal_step, self.plan.resumed);
        let planned = pieces(Arc::clone(&self.source), &self.plan.work, self.config.piece);
        let mut planned = std::pin::pin!(planned.peekable());
        let mut all_planned = false;
        let mut recording: OptionFuture<Recording<'m>> = None.into();
        let mut recording_under_way = false;
        let mut tick = self.ticker();
        loop {
            let has_room = flight.len() < self.config.in_flight.max(1) && ledger.has_room(self.config.piece);
            let stuck = flight.is_empty() && (all_planned || !has_room);
            if !recording_under_way && ledger.is_due(stuck) {
                recording = Some(self.record(&ledger)).into();
                recording_under_way = true;
            }
            if all_planned && flight.is_empty() && !recording_under_way {
                break;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(self.stopped()),
                Some(mark) = &mut recording, if recording_under_way => {
                    recording_under_way = false;
                    ledger.recorded(mark?);
                    counters.progress.durable = ledger.durable();
                    self.progress.event(Event::Recorded { disk: self.key, progress: counters.progress });
                }
                piece = next(&mut planned), if has_room && !all_planned => match piece {
                    None => all_planned = true,
                    Some(piece) => {
                        let piece = piece?;
                        ledger.dispatched(piece);
                        flight.push(Box::pin(mover.carry(piece)));
                    }
                },
                Some(moved) = flight.next(), if !flight.is_empty() => {
                    let moved = moved?;
                    ledger.done(moved.extent);
                    moved.count(counters);
                    self.progress.event(Event::Copied { disk: self.key, progress: counters.progress });
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
            self.flush().await?;
            if let Some(extent) = Extent::between(from, mark) {
                self.journal_extent(extent, durable).await?;
            }
            Ok(mark)
        })
    }

    /// The last flush, also of a disk that had nothing to do, and the entry that covers the whole disk.
    async fn finish(&self, counters: &mut Counters) -> Result<()> {
        self.flush().await?;
        let total = self.plan.scope.bytes();
        if let Some(whole) = Extent::between(0, self.plan.basis.capacity.bytes()) {
            self.journal_extent(whole, total).await?;
        }
        counters.progress.durable = total;
        self.progress.event(Event::Recorded { disk: self.key, progress: counters.progress });
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        // Never retried: after a failed flush the kernel may have dropped the dirty pages.
        self.target.flush().await
    }

    async fn journal_extent(&self, extent: Extent, durable: ByteSize) -> Result<()> {
        let call = || self.journal.record(self.lease, self.key, extent, durable);
        retry(&self.config.retry, self.stop, call).await
    }

    fn ticker(&self) -> Interval {
        let period = self.config.journal_interval.max(std::time::Duration::from_millis(1));
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
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
