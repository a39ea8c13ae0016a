//! Block status of a file, as its file system tells it.

use std::sync::PoisonError;

use oma_core::Extent;
use oma_core::traits::{BlockStatus, BlockStatusKind};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::medium::{Medium, Sort};

/// No call answers more entries: on a shattered file each one costs a system call.
const ENTRIES: usize = 256;

impl Medium {
    /// The status of an extent from its start, up to [`ENTRIES`] entries. What the file system does not tell is data.
    ///
    /// Space allocated in advance and never written counts as a hole: it reads as zero, which is what matters.
    pub(super) fn status(&self, extent: Extent) -> Vec<BlockStatus> {
        let mut found = Vec::new();
        let mut rest = (self.sort == Sort::Regular).then_some(extent);
        while let Some(asked) = rest.filter(|_| found.len() < ENTRIES) {
            let Some(status) = self.next(asked) else { break };
            rest = Extent::between(status.extent.end(), extent.end());
            found.push(status);
        }
        if found.is_empty() {
            found.push(BlockStatus { extent, kind: BlockStatusKind::Data });
        }
        found
    }

    /// The first run of an extent; `None` when the file system does not tell.
    ///
    /// The last run of data is remembered: tmpfs walks page by page to the end of a run, and whoever copies asks for it part
    /// by part. That data is a hole by now does no harm, the other way round would (L10).
    pub(super) fn next(&self, asked: Extent) -> Option<BlockStatus> {
        let mut known = self.data_run.lock().unwrap_or_else(PoisonError::into_inner);
        let (end, kind) = match *known {
            Some(run) if run.contains(asked.offset()) => (run.end(), BlockStatusKind::Data),
            _ => {
                let (end, kind) = self.seek(asked)?;
                if kind == BlockStatusKind::Data {
                    *known = Extent::between(asked.offset(), end);
                }
                (end, kind)
            }
        };
        let extent = Extent::between(asked.offset(), end.min(asked.end()))?;
        Some(BlockStatus { extent, kind })
    }

    /// Forgets what was known of data, because some of it may go.
    pub(super) fn forget_data_run(&self) {
        *self.data_run.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where the run at the start of an extent ends, and what it is.
    fn seek(&self, asked: Extent) -> Option<(u64, BlockStatusKind)> {
        match seek(&self.file, SeekFrom::Data(asked.offset())) {
            Ok(data) if data <= asked.offset() => {
                let hole = seek(&self.file, SeekFrom::Hole(asked.offset())).ok()?;
                Some((hole, BlockStatusKind::Data))
            }
            Ok(data) => Some((data, BlockStatusKind::Hole)),
            // Nothing but a hole up to the end of the file; a file that was cut off ends too early to say so.
            Err(Errno::NXIO) if self.file.metadata().ok()?.len() >= asked.end() => {
                Some((asked.end(), BlockStatusKind::Hole))
            }
            Err(_) => None,
        }
    }
}
