//! Writes pieces that were read elsewhere to a device of this machine, one after the other on one thread.
//!
//! A file has one writer at a time: several keep cores busy with waiting for each other, and each must be woken for its piece. With one,
//! a copy from our server over a unix socket took a tenth less time.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::pieces::Piece;
use super::runs::{index, runs};
use super::shuttle::STRIDE;
use crate::engine::explain::{Stage, StageTimes};
use crate::traits::{BlockDevice, InPlace};
use crate::{ByteSize, Extent, Result};

/// What became of data that came to its target.
#[derive(Debug, Default)]
pub(super) struct Landed {
    pub(super) written: u64,
    pub(super) zeroes: Vec<Extent>,
    pub(super) stages: StageTimes,
}

impl Landed {
    /// Looks at the bytes of an extent and writes them, but for zeroes; `false` when it was stopped before.
    pub(super) fn add(
        &mut self,
        target: &dyn InPlace,
        extent: Extent,
        data: &[u8],
        granule: ByteSize,
        stop: &CancellationToken,
    ) -> Result<bool> {
        let begun = Instant::now();
        let found = runs(data, extent, granule);
        let scanned = Instant::now();
        // What was before may have taken long: nothing is written for whoever gave up meanwhile.
        if stop.is_cancelled() {
            return Ok(false);
        }
        for run in found {
            if run.is_zero {
                self.add_zero(run.extent);
            } else {
                let from = index(run.extent.offset() - extent.offset());
                target.write(run.extent.offset(), &data[from..from + index(run.extent.length())])?;
                target.write_out(run.extent);
                self.written += run.extent.length();
            }
        }
        self.stages.add(Stage::Scan, scanned - begun);
        self.stages.add(Stage::Write, scanned.elapsed());
        Ok(true)
    }

    fn add_zero(&mut self, extent: Extent) {
        match self.zeroes.last_mut().filter(|last| last.end() == extent.offset()) {
            Some(last) => *last = Extent::between(last.offset(), extent.end()).expect("it has grown"),
            None => self.zeroes.push(extent),
        }
    }
}

/// A piece that was read, and where it goes.
#[derive(Debug)]
pub(super) struct Landing {
    pub(super) target: Arc<dyn BlockDevice>,
    pub(super) piece: Piece,
    /// The bytes of the piece's extent.
    pub(super) data: Bytes,
    pub(super) granule: ByteSize,
    pub(super) stop: CancellationToken,
    pub(super) since: Instant,
}

impl Landing {
    fn run(self) -> Option<Landed> {
        let target = self.target.in_place()?;
        let mut landed = Landed::default();
        // Those before it were written.
        landed.stages.add(Stage::Write, self.since.elapsed());
        for stride in self.piece.parts.iter().flat_map(|part| part.pieces(STRIDE)) {
            let from = index(stride.offset() - self.piece.extent.offset());
            let data = &self.data[from..from + index(stride.length())];
            match landed.add(target, stride, data, self.granule, &self.stop) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "not written in place");
                    return None;
                }
            }
        }
        Some(landed)
    }
}

/// The thread that lands pieces: there as long as there are some.
#[derive(Clone, Debug, Default)]
pub(super) struct Lander(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Landing, oneshot::Sender<Option<Landed>>)>,
    has_thread: bool,
}

impl Lander {
    /// Writes a piece, but for its zeroes, which are told; `None` when it must be written in another way, and may be in part.
    pub(super) async fn land(&self, landing: Landing) -> Option<Landed> {
        let (reply, landed) = oneshot::channel();
        let has_thread = {
            let mut queue = self.queue();
            queue.waiting.push_back((landing, reply));
            std::mem::replace(&mut queue.has_thread, true)
        };
        if !has_thread {
            let lander = self.clone();
            // Not waited for: each piece tells its own end.
            drop(tokio::task::spawn_blocking(move || lander.run()));
        }
        landed.await.ok().flatten()
    }

    fn run(&self) {
        while let Some((landing, reply)) = self.next() {
            // The other way meets the same panic.
            let landed = catch_unwind(AssertUnwindSafe(|| landing.run())).ok().flatten();
            // Nobody waits any more for what was dropped.
            let _ = reply.send(landed);
        }
    }

    fn next(&self) -> Option<(Landing, oneshot::Sender<Option<Landed>>)> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        queue.has_thread = next.is_some();
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
