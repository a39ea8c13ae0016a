//! Compares a VM's volumes with its source, without a job.

use tokio_util::sync::CancellationToken;

use super::compare::Comparison;
use super::config::ReplicateConfig;
use super::retry::retry;
use super::services::Services;
use crate::Clock as _;
use crate::record::{DiskRecord, VolumeContent, VolumeTag};
use crate::traits::{Access, PointDisk, PointInTime};
use crate::{
    ByteSize, DiskKey, Error, ErrorKind, Extent, ExtentSet, JobId, Result, SystemClock, VmPath, VolumeId,
};

/// How many differing extents an error text names.
const NAMED: usize = 16;

/// What a comparison of one disk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskVerification {
    /// The disk.
    pub key: DiskKey,
    /// Its volume.
    pub volume: VolumeId,
    /// What the volume holds, as recorded.
    pub content: VolumeContent,
    /// Bytes compared: the disk at the source.
    pub compared: ByteSize,
    /// Every extent that differs, in units of 4 KiB.
    pub differences: ExtentSet,
}

/// Compares every disk of a source with its volume, whole (L14). Nothing is changed.
///
/// A source that has moved on since the last epoch differs, rightly.
///
/// # Errors
/// `NotFound` for a VM, disk or volume without a record; `Busy` while a job writes; what the source and the backend answer.
pub async fn verify(
    services: &Services,
    config: &ReplicateConfig,
    vm: &VmPath,
    stop: &CancellationToken,
) -> Result<Vec<DiskVerification>> {
    let source = retry(&config.retry, stop, || services.source.discover(vm)).await?;
    let context =
        services.inventory.by_identity(&source.identity).await?.ok_or_else(|| never_replicated(vm))?;
    let records = services.inventory.disks(&context.id).await?;
    let job = JobId::mint(SystemClock.now());
    let point = retry(&config.retry, stop, || services.source.freeze(vm, &job)).await?;
    let mut found = Vec::new();
    let mut result = Ok(());
    for disk in &point.disks {
        let record = records.iter().find(|record| record.disk.key == disk.key);
        match verify_disk(services, config, &point, disk, record, stop).await {
            Ok(verification) => found.push(verification),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    services.source.release(&point.id).await?;
    result.map(|()| found)
}

async fn verify_disk(
    services: &Services,
    config: &ReplicateConfig,
    point: &PointInTime,
    disk: &PointDisk,
    record: Option<&DiskRecord>,
    stop: &CancellationToken,
) -> Result<DiskVerification> {
    let record = record.ok_or_else(|| never_replicated(&disk.key))?;
    let volume =
        services.volumes.volume_of(&record.disk).await?.ok_or_else(|| never_replicated(&disk.key))?;
    let instance = services.volumes.instance().await?;
    let tag = VolumeTag { instance, disk: record.disk.clone(), generation: volume.generation };
    let target = services.backend.open(&volume.id, &tag, Access::ReadOnly).await?;
    let whole: ExtentSet =
        Extent::between(0, disk.capacity.bytes().min(target.info().capacity.bytes())).into_iter().collect();
    let source = retry(&config.retry, stop, || services.source.open(&point.id, &disk.key)).await?;
    let mut differences = Comparison { source, target, config, stop }.run(&whole).await?.differences;
    // What the source has beyond the volume's end differs, whatever it holds.
    differences.extend(Extent::between(whole.bytes().bytes(), disk.capacity.bytes()));
    Ok(DiskVerification {
        key: disk.key.clone(),
        volume: volume.id,
        content: volume.content,
        compared: disk.capacity,
        differences,
    })
}

fn never_replicated(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, "verify", what)
        .because("it was never replicated here; replicate it first")
}

/// The error of a verification that found differences; names the first of them.
pub(super) fn mismatch(key: &DiskKey, differences: &ExtentSet) -> Error {
    let named: Vec<String> = differences.iter().take(NAMED).map(|extent| extent.to_string()).collect();
    let more = match differences.count().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Error::new(ErrorKind::Mismatch, "verify disk", key).because(format!(
        "source and target differ in {} bytes, at {}{more} (offset+length); \
         the source was written during the copy or a device lies; the next run copies it in full",
        differences.bytes().bytes(),
        named.join(", ")
    ))
}
