//! Copies one device to another, without records but its own journal: an agent that pushes into an export, or a tool.

mod proof;
mod resume;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use self::proof::Ends;
use self::resume::{Start, start};
use super::config::{ReplicateConfig, VerifyLevel};
use super::copier::{Admission, Copier, Counters, Memory, Recorder};
use super::explain::StageTimes;
use super::guard::GuardedDevice;
use super::limits::{Limit, Way};
use super::progress::{DiskProgress, Event, Progress};
use super::tally::Tally;
use crate::direct::DirectDisk;
use crate::state::ReplicationType;
use crate::traits::{BlockDevice, CopyJournal, Zeroing};
use crate::{ByteSize, DiskKey, Error, ErrorKind, Extent, ExtentSet, PointId, Result};

/// What is to be copied.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// The name of the disk in what is told of the progress.
    pub key: DiskKey,
    /// Where it is read.
    pub source: Arc<dyn BlockDevice>,
    /// Where it is written; at least as large as the source.
    pub target: Arc<dyn BlockDevice>,
    /// Only these extents; all of it without.
    pub extents: Option<ExtentSet>,
    /// Whether the target is known to read as zero: zeroes are left out then.
    pub blank: bool,
    /// How zeroes are written.
    pub zeroing: Zeroing,
    /// What it may take, alone or together with other copies.
    pub limit: Option<Arc<Limit>>,
    /// From where it goes on when it was interrupted; without, it begins again.
    pub resume: Option<Resume>,
    /// Whether hashes of both ends are compared first, so that only what differs is copied: for a target that holds an older
    /// copy. Not for one that is blank.
    pub repair: bool,
    /// How much of what was asked for is compared at the end.
    pub verify: VerifyLevel,
    /// What is asked at the end whether the source is still what was copied; without, nobody wrote it.
    pub original: Option<Original>,
}

/// The disk behind the source of a copy, as it was when it was opened.
#[derive(Clone, Debug)]
pub struct Original {
    /// The disk.
    pub disk: Arc<dyn DirectDisk>,
    /// Its content: see [`DirectDescription::content`](crate::direct::DirectDescription::content).
    pub content: PointId,
}

/// How a copy goes on that was interrupted.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The journal of this copy and no other.
    pub journal: Arc<dyn CopyJournal>,
    /// Names the content of the source: equal ids mean equal content.
    pub content: PointId,
    /// Names the target: equal names mean the same device or file.
    pub target: String,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// Bytes that were to be covered.
    pub bytes_total: ByteSize,
    /// Bytes of them that earlier runs had made durable.
    pub bytes_resumed: ByteSize,
    /// Bytes that all runs copied more than once, at most.
    pub bytes_recopied: ByteSize,
    /// Bytes read from the source.
    pub bytes_read: ByteSize,
    /// Bytes written to the target, zeroes not counted.
    pub bytes_written: ByteSize,
    /// Bytes whose blocks the target shares with the source (reflink).
    pub bytes_shared: ByteSize,
    /// Bytes that are zero at the source, by its promise or by looking at them.
    pub bytes_zero: ByteSize,
    /// Bytes that were equal at both ends before, and not copied: see [`CopyRequest::repair`].
    pub bytes_equal: ByteSize,
    /// Bytes that were compared at the end and are equal: see [`CopyRequest::verify`].
    pub bytes_verified: ByteSize,
    /// How long it took, the last flush and the comparisons included.
    pub duration: Duration,
    /// Where the time went.
    pub stages: StageTimes,
}

/// Copies, and flushes the target: when it answers, the copy is durable.
///
/// It stops soon after `stop`; the target then holds a part of the copy. A source that hangs is waited for as long as
/// [`ReplicateConfig::read_limit`] says.
///
/// With a journal the next run copies what is missing: whatever the journal has, is durable at the target. Some of that is
/// compared with the source before it goes on; a complete copy ends its journal, once it was verified as far as was asked for.
///
/// ```
/// use std::sync::Arc;
/// use oma_core::engine::{CopyRequest, ReplicateConfig, Silent, VerifyLevel, copy};
/// use oma_core::memory::MemoryDevice;
/// use oma_core::traits::{BlockDevice, Durability, Zeroing};
/// use oma_core::{ByteSize, DiskKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = MemoryDevice::new("source", ByteSize::mib(1));
/// source.write_at(4096, vec![7; 512].into(), Durability::Cached).await?;
/// let target = MemoryDevice::new("target", ByteSize::mib(1));
/// let request = CopyRequest {
///     key: DiskKey::parse("disk-2000")?,
///     source: Arc::new(source.clone()),
///     target: Arc::new(target.clone()),
///     extents: None,
///     blank: true,
///     zeroing: Zeroing::Punch,
///     limit: None,
///     resume: None,
///     repair: false,
///     verify: VerifyLevel::Full,
///     original: None,
/// };
/// let report = copy(&request, &ReplicateConfig::default(), &Silent, &Default::default()).await?;
/// assert_eq!(target.bytes(), source.bytes());
/// assert!(report.bytes_read < ByteSize::mib(1));
/// assert_eq!(report.bytes_verified, ByteSize::mib(1));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Invalid` when the target is smaller, or is the source, and for extents beyond the source; `Cancelled`; what the devices
/// and the journal answer. `Conflict` when the journal is of another copy, `Mismatch` when the target does not hold what it
/// says, or not what was copied; what [`DirectDisk::confirm`] answers of a source that was written meanwhile.
pub async fn copy(
    request: &CopyRequest,
    config: &ReplicateConfig,
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<CopyReport> {
    let begun = Instant::now();
    let CopyRequest { key, source, target, extents, zeroing, limit, .. } = request;
    let capacity = source.info().capacity;
    check(&**source, &**target)?;
    if let Some(last) =
        extents.as_ref().and_then(ExtentSet::last).filter(|last| last.end() > capacity.bytes())
    {
        return Err(Error::new(ErrorKind::Invalid, "copy", last)
            .because(format!("it ends beyond the source, which has {} bytes", capacity.bytes())));
    }
    let whole: ExtentSet = Extent::between(0, capacity.bytes()).into_iter().collect();
    let wanted = extents.as_ref().unwrap_or(&whole);
    let guarded: Arc<dyn BlockDevice> = Arc::new(GuardedDevice::new(Arc::clone(source), config));
    // Whatever is read in place of being hashed where it is, comes over the link.
    let way = Way { source: Vec::new(), link: limit.clone() };
    let admission = &Admission::new(way, Memory::new(config.memory));
    let ends = Ends { request, source: &guarded, admission, config, stop };
    let mut tally = Tally::new(key, progress);
    let Start { work, resumed, recopied, blank } = start(&ends, wanted).await?;
    let (work, equal) = match request.repair && !blank {
        true => ends.differing(&work, &mut tally).await?,
        false => (work, ByteSize::ZERO),
    };
    let settled = resumed + equal;
    let planned = DiskProgress {
        capacity,
        total: settled + work.bytes(),
        done: settled,
        durable: settled,
        ..DiskProgress::default()
    };
    let mut counters = Counters { progress: planned, ..Counters::default() };
    let mode = if extents.is_none() { ReplicationType::Initial } else { ReplicationType::Incremental };
    progress.event(Event::Planned { disk: key, mode, note: None, progress: planned });
    let copier = Copier {
        key,
        source: Arc::clone(&guarded),
        target: Arc::clone(target),
        capacity,
        work: &work,
        resumed: settled,
        blank,
        zeroing: *zeroing,
        recorder: &Journal(request.resume.as_ref().map(|resume| &*resume.journal)),
        admission,
        config,
        progress,
        stop,
    };
    copier.run(&mut counters).await?;
    // What earlier runs copied counts as well; a repair has compared all.
    let copied = if equal > ByteSize::ZERO { &work } else { wanted };
    let verified = ends.finish(copied, wanted, &mut tally).await?;
    counters.count(tally.hashed());
    Ok(CopyReport {
        bytes_total: counters.progress.total,
        bytes_resumed: resumed,
        bytes_recopied: recopied,
        bytes_read: counters.progress.read,
        bytes_written: counters.progress.written,
        bytes_shared: counters.shared,
        bytes_zero: counters.zero,
        bytes_equal: equal,
        bytes_verified: verified,
        duration: begun.elapsed(),
        stages: counters.stages,
    })
}

fn check(source: &dyn BlockDevice, target: &dyn BlockDevice) -> Result<()> {
    let (from, to) = (source.info(), target.info());
    let refused =
        |reason: String| Err(Error::new(ErrorKind::Invalid, "copy to", &to.identity).because(reason));
    if from.identity == to.identity {
        return refused("it is the source; name another target".to_owned());
    }
    if to.capacity < from.capacity {
        return refused(format!(
            "it has {} bytes and the source {}; name a target that is as large",
            to.capacity.bytes(),
            from.capacity.bytes()
        ));
    }
    Ok(())
}

/// Nobody continues a copy without one.
#[derive(Debug)]
struct Journal<'j>(Option<&'j dyn CopyJournal>);

#[async_trait]
impl Recorder for Journal<'_> {
    async fn record(&self, finished: Extent, _durable: ByteSize) -> Result<()> {
        match self.0 {
            Some(journal) => journal.record(finished).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
