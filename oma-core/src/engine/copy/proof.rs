//! Compares the ends of a copy: before it, so that only what differs is copied, and after it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{CopyRequest, Original};
use crate::engine::compare::{Comparison, Doubt, Found};
use crate::engine::config::ReplicateConfig;
use crate::engine::copier::Admission;
use crate::engine::guard::too_late;
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
            return Err(Error::new(ErrorKind::Corrupt, "compare", extent).because(
                "the source promises that it reads as zero, but holds data there: believe no such promise (--distrust-zeroes)",
            ));
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
        let forgotten = match (&found, &self.request.resume) {
            (Some(found), Some(resume)) if !found.differences.is_empty() => resume.journal.forget().await,
            _ => Ok(()),
        };
        // What differs may do so because the source was written.
        let confirmed = self.confirm().await;
        if let Some(found) = &found
            && !found.differences.is_empty()
        {
            return Err(self.differs(found, confirmed.err(), forgotten.err()));
        }
        confirmed?;
        if let Some(resume) = &self.request.resume {
            resume.journal.end().await?;
        }
        Ok(found.map_or(ByteSize::ZERO, |found| found.compared + found.promised))
    }

    /// Whether the source is still what was copied. If not, the journal stays: it is of a content that is gone, so nobody goes on
    /// with it, or takes the target for a blank one.
    async fn confirm(&self) -> Result<()> {
        let Some(Original { disk, content }) = &self.request.original else { return Ok(()) };
        let limit = self.config.answer_limit;
        let ask = || async {
            let answer = tokio::time::timeout(limit, disk.confirm(content)).await;
            answer.unwrap_or_else(|_| Err(too_late("confirm", &self.request.key, limit)))
        };
        let confirmed = tokio::select! {
            biased;
            confirmed = retry(&self.config.retry, self.stop, ask) => confirmed,
            () = self.stop.cancelled() => {
                return Err(Error::new(ErrorKind::Cancelled, "confirm the source of", &self.request.key));
            }
        };
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

    /// What was found, and what could not be done about it.
    fn differs(&self, found: &Found, moved: Option<Error>, kept: Option<Error>) -> Error {
        let (target, info) = (&self.request.target, "verify the copy to");
        let mut told = format!(
            "source and target differ in {} bytes, at {} (offset+length)",
            found.differences.bytes().bytes(),
            named(&found.differences)
        );
        told += &match (moved, found.broken) {
            (Some(moved), _) => format!(": {}", moved.chain()),
            (None, Some(_)) => {
                ": the source promises zeroes where it holds data; copy what differs (`oma copy --repair --distrust-zeroes`)"
                    .to_owned()
            }
            (None, None) => ": one of both was written meanwhile, or a device lies; copy what differs (`oma copy \
                             --repair`, without --blank)"
                .to_owned(),
        };
        if let Some(kept) = kept {
            told += &format!("; its journal says that all is finished, remove it: {}", kept.chain());
        }
        Error::new(ErrorKind::Mismatch, info, &target.info().identity).because(told)
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
