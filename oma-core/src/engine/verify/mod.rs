//! Compares a VM's volumes with its source, without a job.

mod disk;
mod root;
mod sample;

use tokio_util::sync::CancellationToken;

use super::config::{PathPolicy, ReplicateConfig, VerifyLevel};
use super::copier::Budget;
use super::known::{check_path, left_out};
use super::limits::Limits;
use super::progress::{Event, Progress};
use super::retry::retry;
use super::services::Services;
use super::tally::Tally;
use crate::Clock as _;
use crate::record::{
    DiskRecord, DiskVerification, SourceVm, VerificationReport, VerificationScope, VolumeContent, VolumeTag,
};
use crate::seal::SealedReport;
use crate::traits::{Access, PointDisk, PointInTime};
use crate::tree::LEAF;
use crate::{DiskKey, Epoch, Error, ErrorKind, ExtentSet, JobId, Result, SystemClock, VmPath};

pub(super) use disk::{DiskPair, VerifiedDisk};
pub use root::tree_root;
pub(super) use sample::{fresh_seed, leaves};

/// How many differing extents an error text names.
const NAMED: usize = 16;

/// What a level means now; `None` when nothing is to be compared. A sample gets a seed of its own.
pub(super) fn scope(level: VerifyLevel) -> Option<VerificationScope> {
    match level {
        VerifyLevel::None => None,
        VerifyLevel::Sample(size) => Some(VerificationScope::Sample { size, seed: fresh_seed() }),
        VerifyLevel::Changed => Some(VerificationScope::Changed),
        VerifyLevel::Full => Some(VerificationScope::Full),
    }
}

/// What is to be compared without a job.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The VM as the source knows it.
    pub vm: VmPath,
    /// How much of each disk: whole disks or a sample.
    pub level: VerifyLevel,
    /// What its reads may take, alone or together with replications; without, nothing is limited.
    pub limits: Option<Limits>,
}

impl VerifyRequest {
    /// Compares whole disks, without limits.
    #[must_use]
    pub const fn new(vm: VmPath) -> Self {
        Self { vm, level: VerifyLevel::Full, limits: None }
    }
}

/// Compares every disk of a source with its volume, whole or by a sample (L14). Nothing is changed, and nothing recorded.
/// [`Event::Compared`] tells how far it is, [`Event::Warning`] of each disk of the last epoch that the source does not have.
///
/// A source that has moved on since the last epoch differs, rightly.
///
/// # Errors
/// `NotFound` for a VM, disk or volume without a record; `Conflict` for a VM that is known by another path; `Busy` while a job
/// writes; `Invalid` for a level that is about an epoch, of which there is none here; `Cancelled` once stopped; what the source and
/// the backend answer.
pub async fn verify(
    services: &Services,
    config: &ReplicateConfig,
    request: &VerifyRequest,
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<SealedReport> {
    let VerifyRequest { vm, level, limits } = request;
    let scope = match scope(*level) {
        Some(scope @ (VerificationScope::Full | VerificationScope::Sample { .. })) => scope,
        Some(VerificationScope::Changed) | None => {
            return Err(Error::new(ErrorKind::Invalid, "verify", vm)
                .because("without a job there is no epoch; compare whole disks or a sample"));
        }
    };
    let begun = SystemClock.now();
    let budget = Budget::new(config.memory);
    let budget = limits.iter().fold(budget, |budget, limits| budget.with_limits(limits.clone()));
    let services = &services.clone().guarded(config);
    let source = retry(&config.retry, stop, || services.source.discover(vm)).await?;
    let context =
        services.inventory.by_identity(&source.identity).await?.ok_or_else(|| never_replicated(vm))?;
    let inventory = &*services.inventory;
    check_path(inventory, "verify", PathPolicy::Keep, Some(&context), &source).await?;
    for disk in left_out(inventory, &context, &source).await? {
        let (key, epoch) = (disk.disk.key, disk.epoch);
        progress.event(Event::Warning(&format!(
            "disk {key} is of epoch {epoch}, too, and is left out: it is not compared"
        )));
    }
    let records = inventory.disks(&context.id).await?;
    let job = JobId::mint(begun);
    let point = retry(&config.retry, stop, || services.source.freeze(vm, &job)).await?;
    let (of, records) = (&source, &*records);
    let look = Look { services, config, budget, of, point: &point, records, scope: &scope, progress, stop };
    let found = look.all().await;
    let released = services.source.release(&point.id).await;
    let (disks, epochs): (Vec<_>, Vec<_>) = found?.into_iter().unzip();
    if let Err(error) = released {
        tracing::warn!(point = %point.id, error = %error.chain(), "the source still holds the point in time");
    }
    let epoch = epochs.first().copied().flatten().filter(|first| epochs.iter().all(|e| *e == Some(*first)));
    let report = VerificationReport {
        version: VerificationReport::VERSION,
        job: None,
        context: context.id,
        vm: vm.clone(),
        epoch,
        scope,
        leaf_bytes: LEAF,
        begun,
        ended: SystemClock.now(),
        disks,
    };
    SealedReport::new(report, services.signer.as_deref())
}

/// What the comparisons of one VM share.
struct Look<'a> {
    services: &'a Services,
    config: &'a ReplicateConfig,
    budget: Budget,
    of: &'a SourceVm,
    point: &'a PointInTime,
    records: &'a [DiskRecord],
    scope: &'a VerificationScope,
    progress: &'a dyn Progress,
    stop: &'a CancellationToken,
}

impl Look<'_> {
    async fn all(&self) -> Result<Vec<(DiskVerification, Option<Epoch>)>> {
        let mut found = Vec::new();
        for disk in &self.point.disks {
            let record = self.records.iter().find(|record| record.disk.key == disk.key);
            found.push(self.one(disk, record).await?);
        }
        Ok(found)
    }

    /// One disk, and the epoch that its volume holds.
    async fn one(
        &self,
        point: &PointDisk,
        record: Option<&DiskRecord>,
    ) -> Result<(DiskVerification, Option<Epoch>)> {
        let (services, stop) = (self.services, self.stop);
        let record = record.ok_or_else(|| never_replicated(&point.key))?;
        let config = &self.config.but_for_zeroes(record.zeroes_broken);
        let volume = services.volumes.volume_of(&record.disk).await?;
        let volume = volume.ok_or_else(|| never_replicated(&point.key))?;
        let instance = services.volumes.instance().await?;
        let tag = VolumeTag { instance, disk: record.disk.clone(), generation: volume.generation };
        let target = services.backend.open(&volume.id, &tag, Access::ReadOnly).await?;
        let source = retry(&config.retry, stop, || services.source.open(&self.point.id, &point.key)).await?;
        let admission = &self.budget.admission(self.of, &point.key);
        let changed = &ExtentSet::new();
        let pair = DiskPair { point, volume: &volume, source, target, changed, admission };
        let mut tally = Tally::new(&point.key, self.progress);
        // The report names it as what it is, a difference.
        let found = pair.verify(self.scope, config, &mut tally, stop).await?.record;
        let epoch = match volume.content {
            VolumeContent::Epoch(epoch) => Some(epoch),
            VolumeContent::Blank | VolumeContent::Inconsistent => None,
        };
        Ok((found, epoch))
    }
}

fn never_replicated(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, "verify", what)
        .because("it was never replicated here; replicate it first")
}

/// The error of a verification that found differences; names the first of them.
pub(super) fn mismatch(key: &DiskKey, differences: &ExtentSet) -> Error {
    Error::new(ErrorKind::Mismatch, "verify disk", key).because(format!(
        "source and target differ in {} bytes, at {} (offset+length); \
         the source was written during the copy or a device lies; the next run compares and mends it",
        differences.bytes().bytes(),
        named(differences)
    ))
}

/// The first extents, and how many more there are.
pub(super) fn named(extents: &ExtentSet) -> String {
    let named: Vec<String> = extents.iter().take(NAMED).map(|extent| extent.to_string()).collect();
    match extents.count().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
