//! Copies one device to another, without records: an agent that pushes into an export, or a tool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::config::ReplicateConfig;
use super::copier::{Admission, Copier, Counters, Memory, Recorder};
use super::explain::StageTimes;
use super::limits::Limit;
use super::progress::{DiskProgress, Event, Progress};
use crate::state::ReplicationType;
use crate::traits::{BlockDevice, Zeroing};
use crate::{ByteSize, DiskKey, Error, ErrorKind, Extent, ExtentSet, Result};

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
}

/// What a copy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// Bytes that were to be covered.
    pub bytes_total: ByteSize,
    /// Bytes read from the source.
    pub bytes_read: ByteSize,
    /// Bytes written to the target, zeroes not counted.
    pub bytes_written: ByteSize,
    /// Bytes whose blocks the target shares with the source (reflink).
    pub bytes_shared: ByteSize,
    /// Bytes that are zero at the source, by its promise or by looking at them.
    pub bytes_zero: ByteSize,
    /// How long it took, the last flush included.
    pub duration: Duration,
    /// Where the time went.
    pub stages: StageTimes,
}

/// Copies, and flushes the target: when it answers, the copy is durable.
///
/// It stops soon after `stop`; the target then holds a part of the copy.
///
/// ```
/// use std::sync::Arc;
/// use oma_core::engine::{CopyRequest, ReplicateConfig, Silent, copy};
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
/// };
/// let report = copy(&request, &ReplicateConfig::default(), &Silent, &Default::default()).await?;
/// assert_eq!(target.bytes(), source.bytes());
/// assert!(report.bytes_read < ByteSize::mib(1));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Invalid` when the target is smaller, or is the source, and for extents beyond the source; `Cancelled`; what the devices answer.
pub async fn copy(
    request: &CopyRequest,
    config: &ReplicateConfig,
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<CopyReport> {
    let begun = Instant::now();
    let CopyRequest { key, source, target, extents, blank, zeroing, limit } = request;
    let capacity = source.info().capacity;
    check(&**source, &**target)?;
    if let Some(last) =
        extents.as_ref().and_then(ExtentSet::last).filter(|last| last.end() > capacity.bytes())
    {
        return Err(Error::new(ErrorKind::Invalid, "copy", last)
            .because(format!("it ends beyond the source, which has {} bytes", capacity.bytes())));
    }
    let whole: ExtentSet = Extent::between(0, capacity.bytes()).into_iter().collect();
    let work = extents.clone().unwrap_or(whole);
    let planned = DiskProgress { total: work.bytes(), ..DiskProgress::default() };
    let mut counters = Counters { progress: planned, ..Counters::default() };
    let mode = if extents.is_none() { ReplicationType::Initial } else { ReplicationType::Incremental };
    progress.event(Event::Planned { disk: key, mode, note: None, progress: planned });
    let copier = Copier {
        key,
        source: Arc::clone(source),
        target: Arc::clone(target),
        capacity,
        work: &work,
        resumed: ByteSize::ZERO,
        blank: *blank,
        zeroing: *zeroing,
        recorder: &Unrecorded,
        admission: &Admission::new(limit.iter().cloned().collect(), Memory::new(config.memory)),
        config,
        progress,
        stop,
    };
    copier.run(&mut counters).await?;
    Ok(CopyReport {
        bytes_total: counters.progress.total,
        bytes_read: counters.progress.read,
        bytes_written: counters.progress.written,
        bytes_shared: counters.shared,
        bytes_zero: counters.zero,
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

/// Nobody continues a copy without records.
#[derive(Debug)]
struct Unrecorded;

#[async_trait]
impl Recorder for Unrecorded {
    async fn record(&self, _finished: Extent, _durable: ByteSize) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Silent;
    use crate::memory::MemoryDevice;
    use crate::traits::Durability;

    fn device(name: &str, bytes: u64) -> MemoryDevice {
        MemoryDevice::new(name, ByteSize::new(bytes))
    }

    fn request(source: &MemoryDevice, target: &MemoryDevice) -> CopyRequest {
        CopyRequest {
            key: DiskKey::parse("disk").unwrap(),
            source: Arc::new(source.clone()),
            target: Arc::new(target.clone()),
            extents: None,
            blank: false,
            zeroing: Zeroing::Punch,
            limit: None,
        }
    }

    async fn run(request: &CopyRequest) -> Result<CopyReport> {
        copy(request, &ReplicateConfig::default(), &Silent, &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn only_the_extents_asked_for_are_copied_and_none_beyond_the_source_is_taken() {
        let (source, target) = (device("a", 100_000), device("b", 200_000));
        source.write_at(0, vec![7; 100_000].into(), Durability::Cached).await.unwrap();
        let extents = [Extent::new(5, 10).unwrap(), Extent::new(90_000, 10_000).unwrap()];
        let request =
            CopyRequest { extents: Some(extents.into_iter().collect()), ..request(&source, &target) };
        let report = run(&request).await.unwrap();
        assert_eq!(report.bytes_written, ByteSize::new(10_010));
        let written: Vec<usize> =
            target.bytes().iter().enumerate().filter(|b| *b.1 != 0).map(|b| b.0).collect();
        assert_eq!(written.len(), 10_010);
        assert!(target.unflushed().is_empty(), "the copy is durable");
        let beyond = [Extent::new(99_999, 2).unwrap()].into_iter().collect();
        let refused = run(&CopyRequest { extents: Some(beyond), ..request }).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn a_target_that_is_smaller_or_the_source_itself_is_refused() {
        let (source, target) = (device("a", 100), device("b", 99));
        assert_eq!(run(&request(&source, &target)).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(run(&request(&source, &source)).await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn l11_a_stopped_copy_is_no_success() {
        let (source, target) = (device("a", 100), device("b", 100));
        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = copy(&request(&source, &target), &ReplicateConfig::default(), &Silent, &stop).await;
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
