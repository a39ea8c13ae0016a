//! Block status of a file, as its file system tells it.

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
    fn next(&self, asked: Extent) -> Option<BlockStatus> {
        let (start, kind) = match seek(&self.file, SeekFrom::Data(asked.offset())) {
            Ok(data) if data <= asked.offset() => {
                let hole = seek(&self.file, SeekFrom::Hole(asked.offset())).ok()?;
                (hole, BlockStatusKind::Data)
            }
            Ok(data) => (data, BlockStatusKind::Hole),
            // Nothing but a hole up to the end of the file; a file that was cut off ends too early to say so.
            Err(Errno::NXIO) if self.file.metadata().ok()?.len() >= asked.end() => {
                (asked.end(), BlockStatusKind::Hole)
            }
            Err(_) => return None,
        };
        let extent = Extent::between(asked.offset(), start.min(asked.end()))?;
        Some(BlockStatus { extent, kind })
    }
}
