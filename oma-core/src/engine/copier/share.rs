//! What needs no copy, because the file system of both files lets the target share its blocks (reflink).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use futures_util::TryStreamExt;

use super::Copier;
use super::counters::Counters;
use super::pieces::{Cut, pieces};
use crate::engine::explain::Stage;
use crate::engine::guard::too_late;
use crate::engine::progress::Event;
use crate::traits::{BlockDevice, Zeroing};
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

/// At most so much is shared at once: that takes a moment, and a copy can be stopped in between.
const AT_ONCE: ByteSize = ByteSize::mib(256);
/// Blocks are shared whole; no file system has larger ones.
const BLOCK: u64 = 64 << 10;

impl Copier<'_> {
    /// Shares what can be shared; answers the work that is left. Nothing is noted in the journal: after a crash it is shared once
    /// more.
    pub(super) async fn share(&self, counters: &mut Counters) -> Result<Cow<'_, ExtentSet>> {
        if !self.may_share() {
            return Ok(Cow::Borrowed(self.work));
        }
        let cut = Cut { size: AT_ONCE, gap: ByteSize::ZERO, trust_zeroes: true };
        let mut planned = std::pin::pin!(pieces(Arc::clone(&self.source), self.work, cut, self.config.retry));
        let mut shared = ExtentSet::new();
        while let Some(piece) = planned.try_next().await? {
            if self.stop.is_cancelled() {
                return Err(self.stopped());
            }
            if piece.reads_zero || !self.has_whole_blocks(piece.extent) {
                continue;
            }
            let begun = Instant::now();
            if !self.share_extent(piece.extent).await? {
                break;
            }
            shared.insert(piece.extent);
            counters.stages.add(Stage::Write, begun.elapsed());
            counters.pieces += 1;
            counters.shared += ByteSize::new(piece.extent.length());
            counters.progress.done += ByteSize::new(piece.extent.length());
            self.progress.event(Event::Copied { disk: self.key, progress: counters.told() });
        }
        Ok(if shared.is_empty() {
            Cow::Borrowed(self.work)
        } else {
            Cow::Owned(self.work.difference(&shared))
        })
    }

    /// Not when every byte shall be read, or space be the target's own.
    fn may_share(&self) -> bool {
        let files = [&self.source, &self.target].map(|device| file(&**device));
        let wanted = self.config.share_blocks && self.config.trust_zeroes && self.zeroing == Zeroing::Punch;
        wanted && files == [true; 2]
    }

    /// The last block of a file may be cut, when both end there.
    fn has_whole_blocks(&self, extent: Extent) -> bool {
        let end = extent.end();
        extent.offset().is_multiple_of(BLOCK) && (end.is_multiple_of(BLOCK) || end == self.capacity.bytes())
    }

    async fn share_extent(&self, extent: Extent) -> Result<bool> {
        let (source, target) = (Arc::clone(&self.source), Arc::clone(&self.target));
        let call = move || match (source.in_place().and_then(|source| source.file()), target.in_place()) {
            (Some(file), Some(target)) => target.share(extent, file),
            _ => Ok(false),
        };
        let mut thread = tokio::task::spawn_blocking(call);
        let ended = tokio::select! {
            ended = tokio::time::timeout(self.config.read_limit, &mut thread) => ended,
            () = self.stop.cancelled() => {
                // It takes a moment, or hangs.
                let _ = tokio::time::timeout(self.config.drain, thread).await;
                return Err(self.stopped());
            }
        };
        // A thread that hangs keeps the target to itself.
        let ended = ended.map_err(|_| too_late("share blocks", self.key, self.config.read_limit))?;
        match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(Ok(is_shared)) => Ok(is_shared),
            // A copy meets the same failure, or has none.
            Ok(Err(error)) => {
                tracing::debug!(error = %error.chain(), "blocks are not shared");
                Ok(false)
            }
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => Err(Error::new(ErrorKind::Cancelled, "copy", extent)),
        }
    }
}

fn file(device: &dyn BlockDevice) -> bool {
    device.in_place().is_some_and(|device| device.file().is_some())
}
