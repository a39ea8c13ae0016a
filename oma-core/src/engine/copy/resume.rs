//! What is left of a copy that was interrupted.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::proof::{Ends, sample};
use super::{CopyRequest, Resume};
use crate::engine::compare::Doubt;
use crate::engine::config::ReplicateConfig;
use crate::engine::retry::retry;
use crate::engine::tally::Tally;
use crate::engine::verify::fresh_seed;
use crate::engine::zeroes::{windows, zeroes};
use crate::record::{CopyBasis, CopyEntry, SampleSize};
use crate::traits::BlockDevice;
use crate::tree::LeafHash;
use crate::{ByteSize, Error, ErrorKind, ExtentSet, Result};

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
pub(super) async fn start(ends: &Ends<'_>, wanted: &ExtentSet) -> Result<Start> {
    let Ends { request, config, .. } = *ends;
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
    // A repair looks at everything itself.
    let believed = entry.filter(|_| !request.repair);
    let finished = believed.map_or_else(ExtentSet::new, |entry| entry.finished.intersection(wanted));
    still_holds(ends, &finished).await?;
    let work = wanted.difference(&finished);
    let step = config.journal_step.max(config.piece).min(work.bytes());
    resume.journal.begin(&basis, step).await?;
    if request.repair && entry.is_some() {
        resume.journal.forget().await?;
    }
    Ok(Start {
        resumed: finished.bytes(),
        recopied: entry.map_or(ByteSize::ZERO, |entry: &CopyEntry| entry.unrecorded),
        blank: request.blank && entry.is_none(),
        work,
    })
}

pub(super) fn basis(request: &CopyRequest, resume: &Resume) -> CopyBasis {
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
        "its journal is of another one: {difference}; name what it is of, or remove the journal and copy what differs (`oma copy --repair`, without --blank)"
    ))
}

/// Compares some leaves of what is finished, chosen at random from what the source does not promise to be zero: a target that
/// was cut, replaced or written since, or a source that was, is found by it, unless little of it changed.
async fn still_holds(ends: &Ends<'_>, finished: &ExtentSet) -> Result<()> {
    let data = with_data(ends.source, finished, ends.config, ends.stop).await?;
    let scope = sample(&data, SampleSize::Leaves(SAMPLE), fresh_seed());
    let found = ends.compare(&scope, Doubt::All, &mut Tally::silent()).await?;
    match found.differences.iter().next() {
        None => Ok(()),
        Some(first) => Err(Error::new(ErrorKind::Mismatch, "go on with the copy to", &ends.request.target.info().identity)
            .because(format!(
                "{first} is not what the source has, though the journal tells that it was copied: one of both was written \
                 since, or replaced; remove the journal and copy what differs (`oma copy --repair`, without --blank)"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Extent;
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
            let some = sample(&all, SampleSize::Leaves(SAMPLE), seed);
            prop_assert_eq!(&some.intersection(&all), &some);
            let wanted = all.bytes().bytes().min(SAMPLE << 16);
            // The last leaf may be a part of one.
            prop_assert!(some.bytes().bytes() <= wanted && some.bytes().bytes() + (1 << 16) > wanted, "{:?}", some.bytes());
        }
    }
}
