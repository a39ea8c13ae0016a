//! Moves one piece: reads it, looks at every byte, writes what is not zero.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::buffers::Buffers;
use super::counters::Counters;
use super::known_zero::KnownZero;
use super::landing::{Landed, Lander, Landing};
use super::pieces::Piece;
use super::runs::{index, runs};
use super::shuttle::{Reads, STRIDE, Shuttle};
use super::{Copier, Ticket};
use crate::engine::explain::{Stage, StageTimes};
use crate::engine::guard::too_late;
use crate::engine::retry::retry;
use crate::traits::Durability;
use crate::{ByteSize, Error, ErrorKind, Extent, Result};

/// What became of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) extent: Extent,
    /// Bytes of the work that it covered.
    pub(super) bytes: u64,
    pub(super) read: u64,
    written: u64,
    promised_zero: u64,
    stages: StageTimes,
}

impl Moved {
    /// Adds it up.
    pub(super) fn count(&self, counters: &mut Counters) {
        counters.pieces += 1;
        counters.progress.done += ByteSize::new(self.bytes);
        counters.progress.read += ByteSize::new(self.read);
        counters.progress.written += ByteSize::new(self.written);
        counters.zero += ByteSize::new(self.bytes - self.written);
        counters.zero_promised += ByteSize::new(self.promised_zero);
        counters.stages += self.stages;
    }
}

/// Moves pieces of one disk.
#[derive(Debug)]
pub(super) struct Mover<'m> {
    copier: &'m Copier<'m>,
    known_zero: KnownZero,
    is_local: AtomicBool,
    lander: Lander,
    /// Ends what is under way, when the copy is stopped and when it failed.
    stop: CancellationToken,
    /// A thread does not see that a copy was dropped: it is told.
    _dropped: DropGuard,
}

impl<'m> Mover<'m> {
    pub(super) fn new(copier: &'m Copier<'m>) -> Self {
        let is_local = Shuttle::fits(&*copier.source, &*copier.target);
        let stop = copier.stop.child_token();
        Self {
            copier,
            known_zero: KnownZero::default(),
            is_local: AtomicBool::new(is_local),
            lander: Lander::default(),
            _dropped: stop.clone().drop_guard(),
            stop,
        }
    }

    fn buffers(&self) -> &Buffers {
        self.copier.admission.buffers()
    }

    /// Whether pieces are moved by a thread each.
    pub(super) fn is_local(&self) -> bool {
        self.is_local.load(Ordering::Relaxed)
    }

    /// Lets nothing begin any more: what waits gives up, what moves ends at its next step.
    pub(super) fn give_up(&self) {
        self.stop.cancel();
    }

    pub(super) async fn carry(&self, piece: Piece) -> Result<Moved> {
        let mut moved = Moved {
            extent: piece.extent,
            bytes: piece.bytes(),
            read: 0,
            written: 0,
            promised_zero: 0,
            stages: StageTimes::default(),
        };
        if piece.reads_zero {
            moved.promised_zero = moved.bytes;
            self.zero(&piece.parts, &mut moved).await?;
        } else if !self.shuttle(&piece, &mut moved).await? {
            for part in piece.cut(self.copier.piece()) {
                self.relay(&part, &mut moved).await?;
            }
        }
        Ok(moved)
    }

    /// Moves a piece between devices of this machine; `false` when they must be asked in another way.
    async fn shuttle(&self, piece: &Piece, moved: &mut Moved) -> Result<bool> {
        if !self.is_local() {
            return Ok(false);
        }
        let begun = Instant::now();
        let _ticket = self.admit(moved.bytes, STRIDE).await?;
        moved.stages.add(Stage::Wait, begun.elapsed());
        let reads = Arc::<Reads>::default();
        let shuttle = Shuttle {
            source: Arc::clone(&self.copier.source),
            target: Arc::clone(&self.copier.target),
            piece: piece.clone(),
            granule: self.copier.config.zero_granule,
            buffer: self.buffers().take(index(STRIDE)),
            stop: self.stop.clone(),
            reads: Arc::clone(&reads),
        };
        let ran = self.joined(tokio::task::spawn_blocking(move || shuttle.run()), &reads).await;
        let Some(ran) = ran else { return Err(self.hung(piece.extent)) };
        let shuttled = match ran.map_err(JoinError::try_into_panic) {
            Ok(Ok(shuttled)) => shuttled,
            // The other way meets the same failure, or tries again.
            Ok(Err(error)) => {
                tracing::debug!(error = %error.chain(), "not moved on one thread");
                return Ok(false);
            }
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => return Err(Error::new(ErrorKind::Cancelled, "copy", piece.extent)),
        };
        self.buffers().give_back(shuttled.buffer);
        let Some(Landed { written, zeroes, stages }) = shuttled.done else {
            // A device whose data is far: every further piece would be tried, and paid for, twice.
            self.is_local.store(false, Ordering::Relaxed);
            return Ok(false);
        };
        moved.read = moved.bytes;
        moved.written = written;
        moved.stages += stages;
        self.zero(&zeroes, moved).await?;
        Ok(true)
    }

    /// Waits for a shuttle; `None` when the source hangs. Its thread writes nothing any more once the copy has given up.
    async fn joined<T: Send>(
        &self,
        mut thread: JoinHandle<T>,
        reads: &Reads,
    ) -> Option<Result<T, JoinError>> {
        loop {
            let before = reads.now();
            match tokio::time::timeout(self.copier.config.read_limit, &mut thread).await {
                Ok(ran) => return Some(ran),
                Err(_) if before.is_some() && reads.now() == before => return None,
                Err(_) => {}
            }
        }
    }

    fn hung(&self, extent: Extent) -> Error {
        let Copier { source, config, .. } = self.copier;
        too_late("read", &format!("{extent} of {}", source.info().identity), config.read_limit)
    }

    /// Moves a piece between any devices.
    async fn relay(&self, piece: &Piece, moved: &mut Moved) -> Result<()> {
        let begun = Instant::now();
        let _ticket = self.admit(piece.extent.length(), piece.extent.length()).await?;
        let admitted = Instant::now();
        let data = self.read(piece.extent).await?.freeze();
        moved.read += piece.extent.length();
        moved.stages.add(Stage::Wait, admitted - begun);
        moved.stages.add(Stage::Read, admitted.elapsed());
        let zeroes = match self.land(piece, &data).await {
            Some(Landed { written, zeroes, stages }) => {
                moved.written += written;
                moved.stages += stages;
                zeroes
            }
            None => self.write_runs(piece, &data, moved).await?,
        };
        self.buffers().recycle(data);
        self.zero(&zeroes, moved).await
    }

    /// Writes a piece to a device of this machine, but for its zeroes; `None` when it must be written in another way.
    async fn land(&self, piece: &Piece, data: &Bytes) -> Option<Landed> {
        self.copier.target.in_place()?;
        let landing = Landing {
            target: Arc::clone(&self.copier.target),
            piece: piece.clone(),
            data: data.clone(),
            granule: self.copier.config.zero_granule,
            stop: self.stop.clone(),
            since: Instant::now(),
        };
        self.lander.land(landing).await
    }

    /// Writes a piece to any device, but for its zeroes, which are told.
    async fn write_runs(&self, piece: &Piece, data: &Bytes, moved: &mut Moved) -> Result<Vec<Extent>> {
        let mut zeroes = Vec::new();
        for part in &piece.parts {
            let scan = Instant::now();
            let data = slice(data, piece.extent, *part);
            let found = runs(&data, *part, self.copier.config.zero_granule);
            moved.stages.add(Stage::Scan, scan.elapsed());
            for run in found {
                if run.is_zero {
                    zeroes.push(run.extent);
                } else {
                    let write = Instant::now();
                    self.write(run.extent, slice(&data, *part, run.extent)).await?;
                    moved.stages.add(Stage::Write, write.elapsed());
                    moved.written += run.extent.length();
                }
            }
        }
        Ok(zeroes)
    }

    async fn admit(&self, bytes: u64, memory: u64) -> Result<Ticket> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.copier.stopped()),
            ticket = self.copier.admission.enter(bytes, memory) => Ok(ticket),
        }
    }

    /// Whoever was asked before may have taken long: nothing is written for one that gave up meanwhile.
    fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() { Err(self.copier.stopped()) } else { Ok(()) }
    }

    async fn read(&self, extent: Extent) -> Result<BytesMut> {
        let buffer = || self.buffers().take(index(extent.length()));
        let call = || self.copier.source.read_at(extent.offset(), buffer());
        retry(&self.copier.config.retry, &self.stop, call).await
    }

    async fn write(&self, extent: Extent, data: Bytes) -> Result<()> {
        self.check_stop()?;
        let call = || self.copier.target.write_at(extent.offset(), data.clone(), Durability::Cached);
        retry(&self.copier.config.retry, &self.stop, call).await
    }

    /// Makes extents of the target read as zero, unless they do already.
    async fn zero(&self, extents: &[Extent], moved: &mut Moved) -> Result<()> {
        if self.copier.blank {
            return Ok(());
        }
        let Copier { target, zeroing, config, .. } = self.copier;
        let begun = Instant::now();
        for extent in extents {
            let ask = || self.known_zero.missing(&**target, *extent);
            for missing in retry(&config.retry, &self.stop, ask).await? {
                self.check_stop()?;
                let call = || target.write_zeroes(missing, *zeroing, Durability::Cached);
                retry(&config.retry, &self.stop, call).await?;
            }
        }
        moved.stages.add(Stage::Write, begun.elapsed());
        Ok(())
    }
}

/// The bytes of `part` out of those of `whole`.
fn slice(data: &Bytes, whole: Extent, part: Extent) -> Bytes {
    let from = index(part.offset() - whole.offset());
    data.slice(from..from + index(part.length()))
}
