use super::stamp;
use crate::engine::config::CopyMode;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::record::Lease;
use crate::state::ExportEvent;
use crate::traits::{Access, BlockDevice, ExportSpec};
use crate::{Error, ErrorKind, ExportName, Result};
use std::sync::Arc;

/// Opens every volume for writing, the only writer there is (L06), and publishes it for reading.
///
/// In pull mode the engine itself writes, so clients of the export may only look. What an agent pushes into is published once it is
/// known what that may write.
pub(super) async fn publish(run: &mut Run<'_>) -> Result<()> {
    for index in 0..run.disks.len() {
        let result = publish_disk(run, index).await;
        let note = result.inspect_err(|error| run.disks[index].error = Some(error.chain()))?;
        note.into_iter().for_each(|note| run.warn(note));
    }
    Ok(())
}

async fn publish_disk(run: &mut Run<'_>, index: usize) -> Result<Option<String>> {
    let (services, lease) = (run.services, run.lease.clone());
    let disk = &mut run.disks[index];
    let volume = disk.ready_volume();
    let id = volume.record.id.clone();
    let open = || services.backend.open(&id, &volume.tag, Access::ReadWrite);
    let device = retry(&run.config.retry, run.stop, open).await?;
    if device.info().capacity < disk.point.capacity {
        // Whoever mends it: what was recorded of its content does not hold any more (L09).
        stamp::end_generation(services, run.config, &lease, volume).await?;
        return Err(Error::new(ErrorKind::Corrupt, "open volume", &id).because(format!(
            "it has {} bytes and the source {}: it was cut from outside",
            device.info().capacity.bytes(),
            disk.point.capacity.bytes()
        )));
    }
    let note = stamp::check(services, run.config, &lease, disk).await?;
    disk.target = Some(Arc::clone(&device));
    if run.request.mode == CopyMode::Push {
        return Ok(note);
    }
    let name = ExportName::for_disk(&run.context.identity.instance_uuid, &disk.point.key)
        .map_err(|error| Error::new(ErrorKind::Invalid, "name export", &disk.point.key).with_source(error))?;
    services.exports.begin(&lease, &name, &disk.point.key, &id).await?;
    disk.export = Some(name.clone());
    services.server.publish(spec(&lease, &name, device)).await?;
    services.exports.advance(&lease, &name, ExportEvent::Started).await?;
    Ok(note)
}

fn spec(lease: &Lease, name: &ExportName, device: Arc<dyn BlockDevice>) -> ExportSpec {
    ExportSpec {
        name: name.clone(),
        description: format!("replica written by {}", lease.job),
        access: Access::ReadOnly,
        fence: lease.fence,
        device,
    }
}
