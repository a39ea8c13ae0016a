use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::engine::volumes::{LeasedVolumes, VolumeNeed};
use crate::{DiskRef, Result};

/// Gives every disk its volume: of its own, large enough, attached.
pub(super) async fn provision(run: &mut Run<'_>) -> Result<()> {
    super::snapshot::make_room(run).await;
    let service = LeasedVolumes::new(run.services, &run.lease);
    let mut notes = Vec::new();
    for disk in &mut run.disks {
        let need = VolumeNeed {
            disk: DiskRef { context: run.context.id.clone(), key: disk.point.key.clone() },
            name: format!("migration-{}-{}", run.context.name, disk.point.key),
            capacity: disk.point.capacity,
            provisioning: run.request.provisioning,
        };
        let ready = retry(&run.config.retry, run.stop, || service.ensure(&need)).await;
        let ready = ready.inspect_err(|error| disk.error = Some(error.chain()))?;
        notes.extend(ready.note.clone());
        disk.volume = Some(ready);
    }
    notes.into_iter().for_each(|note| run.warn(note));
    Ok(())
}
