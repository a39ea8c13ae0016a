//! Compares the ends of a copy: before it, so that only what differs is copied, and after it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{CopyRequest, Original};
use crate::engine::compare::{Comparison, Doubt, Found, broken_promise};
use crate::engine::config::ReplicateConfig;
use crate::engine::copier::Admission;
use crate::engine::retry::retry;
use crate::engine::tally::Tally;
use crate::engine::verify::{leaves, named, scope};
use crate::record::{SampleSize, VerificationScope};
use crate::traits::BlockDevice;
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

/// Both ends of a copy, open.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    pub(super) request: &'a CopyRequest,
    /// Guarded against a source that hangs.
    pub(super) source: &'a Arc<dyn BlockDevice>,
    pub(super) admission: &'a Admission,
    pub(super) config: &'a ReplicateConfig,
    pub(super) stop: &'a CancellationToken,
}

impl Ends<'_> {
    /// What of the work differs, and how much does not.
    pub(super) async fn differing(
        &self,
        work: &ExtentSet,
        tally: &mut Tally<'_>,
    ) -> Result<(ExtentSet, ByteSize)> {
        // What is found equal counts as durable.
        self.request.target.flush().await?;
        let found = self.compare(work, Doubt::Some, tally).await?;
        if let Some(extent) = found.broken {
            return Err(broken_promise(extent));
        }
        let equal = work.difference(&found.differences).bytes();
        Ok((work.intersection(&found.differences), equal))
    }

    /// The end of a copy whose data is durable: it is compared as far as was asked for, its source has not moved on, and its
    /// journal goes. Answers how much was compared.
    pub(super) async fn finish(
        &self,
        copied: &ExtentSet,
        wanted: &ExtentSet,
        tally: &mut Tally<'_>,
    ) -> Result<ByteSize> {
        let found = self.verify(copied, wanted, tally).await?;
        // Before its differences: they may be those of a source that was written.
        self.confirm().await?;
        if let Some(found) = &found
            && !found.differences.is_empty()
        {
            if let Some(resume) = &self.request.resume {
                resume.journal.forget().await?;
            }
            return Err(self.differs(found));
        }
        if let Some(resume) = &self.request.resume {
            resume.journal.end().await?;
        }
        Ok(found.map_or(ByteSize::ZERO, |found| found.compared + found.promised))
    }

    /// Whether the source is still what was copied. If not, the journal stays: it is of a content that is gone, so nobody goes on
    /// with it, or takes the target for a blank one.
    async fn confirm(&self) -> Result<()> {
        let Some(Original { disk, content }) = &self.request.original else { return Ok(()) };
        let confirmed = retry(&self.config.retry, self.stop, || disk.confirm(content)).await;
        confirmed.map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::Conflict => "; then copy what differs (`oma copy --repair`, without --blank)",
                _ => "",
            };
            Error::new(
                error.kind(),
                "confirm the source of the copy to",
                &self.request.target.info().identity,
            )
            .because(format!("{}{advice}", error.chain()))
        })
    }

    async fn verify(
        &self,
        copied: &ExtentSet,
        wanted: &ExtentSet,
        tally: &mut Tally<'_>,
    ) -> Result<Option<Found>> {
        let (compared, doubt) = match scope(self.request.verify) {
            None => return Ok(None),
            Some(VerificationScope::Full) => (wanted.clone(), Doubt::Some),
            Some(VerificationScope::Changed) => (copied.clone(), Doubt::Some),
            Some(VerificationScope::Sample { size, seed }) => (sample(wanted, size, seed), Doubt::All),
        };
        self.compare(&compared, doubt, tally).await.map(Some)
    }

    pub(super) async fn compare(
        &self,
        extents: &ExtentSet,
        doubt: Doubt,
        tally: &mut Tally<'_>,
    ) -> Result<Found> {
        let (source, target) = (Arc::clone(self.source), Arc::clone(&self.request.target));
        let Self { admission, config, stop, .. } = *self;
        let comparison = Comparison { source, target, doubt, admission, config, stop };
        comparison.run_told(extents, tally, None).await
    }

    fn differs(&self, found: &Found) -> Error {
        let target = &self.request.target.info().identity;
        match found.broken {
            Some(extent) => broken_promise(extent),
            None => Error::new(ErrorKind::Mismatch, "verify the copy to", target).because(format!(
                "source and target differ in {} bytes, at {} (offset+length): one of both was written meanwhile, or a device \
                 lies; copy what differs (`oma copy --repair`, without --blank)",
                found.differences.bytes().bytes(),
                named(&found.differences)
            )),
        }
    }
}

/// As many bytes as the sample has, from leaves of the extents laid end to end.
pub(super) fn sample(extents: &ExtentSet, size: SampleSize, seed: u64) -> ExtentSet {
    let chosen = leaves(size, seed, extents.bytes());
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
