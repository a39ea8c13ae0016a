//! One disk is copied into its export.

use std::sync::Arc;

use oma_api::PushDiskRow;
use oma_api::client::ExportOpener as _;
use oma_core::engine::{CancellationToken, CopyRequest, Progress, ReplicateConfig, Resume, copy};
use oma_core::traits::{Access, Zeroing};
use oma_core::{ByteSize, Error, ErrorKind, ExtentSet, Result, Retry};
use oma_examples::NbdOpener;
use std::time::Duration;

use crate::job::{Job, Sides};
use crate::told::Told;

/// What is told of what is finished goes into the audit trail, and is told less often than a journal is written.
const TELL: Duration = Duration::from_secs(15);
const STEP: ByteSize = ByteSize::mib(1024);

/// Copies what is to be copied of a disk, and makes it durable there.
pub(crate) async fn push(
    sides: &Sides<'_>,
    job: &Job,
    (fence, disk): (u64, &PushDiskRow),
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<()> {
    let uri = disk.export.as_deref().ok_or_else(|| not_ready(disk))?;
    sides.api().check_export(uri)?;
    let opener =
        sides.cli.certificates.as_ref().map_or_else(NbdOpener::default, NbdOpener::with_certificates);
    let target = opener.open(uri, Access::ReadWrite).await?;
    let source = sides.source.open(&job.point.id, &disk.disk_id).await?;
    let (extents, repair) = work(job, disk);
    let told = Told {
        api: Arc::clone(sides.api()),
        job: job.id.clone(),
        disk: disk.disk_id.clone(),
        fence,
        moved: Arc::clone(&sides.moved),
        capacity: disk.capacity_bytes,
    };
    let resume = Resume { journal: Arc::new(told), content: disk.content.clone(), target: uri.to_owned() };
    let request = CopyRequest {
        key: disk.disk_id.clone(),
        source,
        target,
        // A whole disk is told as one.
        extents: Some(extents).filter(|extents| extents.bytes() < disk.capacity_bytes),
        blank: disk.blank,
        zeroing: Zeroing::Punch,
        limit: None,
        resume: Some(resume),
        repair,
        verify: sides.cli.verify.into(),
        original: None,
    };
    let config = ReplicateConfig {
        memory: sides.cli.memory,
        journal_interval: TELL,
        journal_step: STEP,
        ..ReplicateConfig::default()
    };
    copy(&request, &config, progress, stop).await.map(drop)
}

/// What is copied, and whether both ends are compared first. Where no attempt before has written, what changed is enough; of anything else
/// the volume holds something, and only what differs goes over the link: unless what the export reads may not be what its device holds.
fn work(job: &Job, disk: &PushDiskRow) -> (ExtentSet, bool) {
    let changed =
        job.changed.get(&disk.disk_id).filter(|changed| disk.base_change_id.as_ref() == Some(&changed.since));
    match changed {
        Some(changed) if disk.fresh => (disk.work.intersection(&changed.extents), false),
        _ => (disk.work.clone(), !disk.blank && disk.compare),
    }
}

fn not_ready(disk: &PushDiskRow) -> Error {
    Error::new(ErrorKind::Unavailable, "push", &disk.disk_id)
        .because("it has no export yet")
        .with_retry(Retry::Later)
}
