//! What is left of a copy that was interrupted.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{CopyRequest, Resume};
use crate::engine::compare::{Comparison, Doubt};
use crate::engine::config::ReplicateConfig;
use crate::engine::copier::Admission;
use crate::engine::retry::retry;
use crate::engine::verify::{fresh_seed, leaves};
use crate::engine::zeroes::{windows, zeroes};
use crate::record::{CopyBasis, CopyEntry, SampleSize};
use crate::traits::BlockDevice;
use crate::tree::LeafHash;
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

/// So many leaves of what is finished are compared before a copy goes on.
const SAMPLE: u64 = 128;

/// Where a run begins.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) work: ExtentSet,
    /// Bytes of what was asked for that earlier runs made durable.
    pub(super) resumed: ByteSize,
    /// Bytes that are copied more than once, at most.
    pub(super) recopied: ByteSize,
    /// Whether the target reads as zero wherever nothing was written.
    pub(super) blank: bool,
}

/// What of the `wanted` extents is to be copied. Once it has answered, the journal knows of the run: what that writes is
/// never taken for a blank target's.
pub(super) async fn start(
    request: &CopyRequest,
    source: &Arc<dyn BlockDevice>,
    wanted: &ExtentSet,
    admission: &Admission,
    config: &ReplicateConfig,
    stop: &CancellationToken,
) -> Result<Start> {
    let Some(resume) = &request.resume else {
        let (resumed, recopied) = (ByteSize::ZERO, ByteSize::ZERO);
        return Ok(Start { work: wanted.clone(), resumed, recopied, blank: request.blank });
    };
    let basis = basis(request, resume);
    let found = resume.journal.load().await?;
    let entry = match found.as_ref().map(|entry| (entry, entry.basis.difference(&basis))) {
        Some((_, Some(difference))) => return Err(of_another_copy(request, &difference)),
        Some((entry, None)) => Some(entry),
        None => None,
    };
    let finished = entry.map_or_else(ExtentSet::new, |entry| entry.finished.intersection(wanted));
    still_holds(request, source, &finished, admission, config, stop).await?;
    let work = wanted.difference(&finished);
    let step = config.journal_step.max(config.piece).min(work.bytes());
    resume.journal.begin(&basis, step).await?;
    Ok(Start {
        resumed: finished.bytes(),
        recopied: entry.map_or(ByteSize::ZERO, |entry: &CopyEntry| entry.unrecorded),
        blank: request.blank && entry.is_none(),
        work,
    })
}

fn basis(request: &CopyRequest, resume: &Resume) -> CopyBasis {
    let hash = |extents: &ExtentSet| {
        let texts: Vec<String> = extents.compact().collect();
        LeafHash::of(texts.join(" ").as_bytes()).to_string()
    };
    CopyBasis {
        content: resume.content.clone(),
        capacity: request.source.info().capacity,
        target: resume.target.clone(),
        target_capacity: request.target.info().capacity,
        extents: request.extents.as_ref().map(hash),
    }
}

fn of_another_copy(request: &CopyRequest, difference: &str) -> Error {
    Error::new(ErrorKind::Conflict, "go on with the copy to", &request.target.info().identity).because(format!(
        "its journal is of another one: {difference}; name what it is of, or remove the journal to copy all again, over what the target holds (`oma copy --overwrite`, without --blank)"
    ))
}

/// Compares some leaves of what is finished, chosen at random from what the source does not promise to be zero: a target that
/// was cut, replaced or written since, or a source that was, is found by it, unless little of it changed.
async fn still_holds(
    request: &CopyRequest,
    source: &Arc<dyn BlockDevice>,
    finished: &ExtentSet,
    admission: &Admission,
    config: &ReplicateConfig,
    stop: &CancellationToken,
) -> Result<()> {
    let data = with_data(source, finished, config, stop).await?;
    let scope = sample(&data, fresh_seed());
    let (source, target) = (Arc::clone(source), Arc::clone(&request.target));
    let comparison = Comparison { source, target, doubt: Doubt::All, admission, config, stop };
    let found = comparison.run(&scope).await?;
    match found.differences.iter().next() {
        None => Ok(()),
        Some(first) => Err(Error::new(ErrorKind::Mismatch, "go on with the copy to", &request.target.info().identity)
            .because(format!(
                "{first} is not what the source has, though the journal tells that it was copied: one of both was written \
                 since, or replaced; remove the journal to copy all again, over what the target holds (`oma copy --overwrite`, without --blank)"
            ))),
    }
}

/// What the source does not promise to read as zero.
async fn with_data(
    source: &Arc<dyn BlockDevice>,
    extents: &ExtentSet,
    config: &ReplicateConfig,
    stop: &CancellationToken,
) -> Result<ExtentSet> {
    if !config.trust_zeroes || !source.info().can_block_status {
        return Ok(extents.clone());
    }
    let mut holes = ExtentSet::new();
    for window in windows(extents).filter_map(|window| window.span()) {
        holes.extend(retry(&config.retry, stop, || zeroes(&**source, window)).await?.iter());
    }
    Ok(extents.difference(&holes))
}

/// As many bytes as the sample has, from leaves of the extents laid end to end.
fn sample(extents: &ExtentSet, seed: u64) -> ExtentSet {
    let chosen = leaves(SampleSize::Leaves(SAMPLE), seed, extents.bytes());
    let mut before = 0;
    let mut sample = ExtentSet::new();
    for extent in extents.iter() {
        let place = Extent::new(before, extent.length()).expect("no more bytes than a disk has");
        for part in chosen.within(place) {
            let begin = extent.offset() + (part.offset() - before);
            sample.extend(Extent::new(begin, part.length()));
        }
        before += extent.length();
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDevice;
    use proptest::prelude::*;

    #[tokio::test]
    async fn a_thousand_finished_extents_are_asked_for_at_once() {
        let device = MemoryDevice::new("disk", ByteSize::mib(64));
        let extents: ExtentSet = (0..1000).map(|at| Extent::new(at << 16, 512).unwrap()).collect();
        let source: Arc<dyn BlockDevice> = Arc::new(device.clone());
        let (config, stop) = (ReplicateConfig::default(), CancellationToken::new());
        assert!(with_data(&source, &extents, &config, &stop).await.unwrap().is_empty());
        assert_eq!(device.calls().statuses, 1);
    }

    proptest! {
        #[test]
        fn a_sample_is_a_part_of_what_it_is_of_and_as_large_as_it_can_be(
            list in prop::collection::vec((0u64..1 << 34, 1u64..1 << 24), 0..40),
            seed in any::<u64>(),
        ) {
            let all: ExtentSet = list.iter().map(|(at, length)| Extent::new(*at, *length).unwrap()).collect();
            let some = sample(&all, seed);
            prop_assert_eq!(&some.intersection(&all), &some);
            let wanted = all.bytes().bytes().min(SAMPLE << 16);
            // The last leaf may be a part of one.
            prop_assert!(some.bytes().bytes() <= wanted && some.bytes().bytes() + (1 << 16) > wanted, "{:?}", some.bytes());
        }
    }
}
