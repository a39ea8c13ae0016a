use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::{DiskKey, Error, ErrorKind, Result};

/// Freezes the source at one point in time, under the job's name (L20).
pub(super) async fn freeze(run: &mut Run<'_>) -> Result<()> {
    let freeze = || run.services.source.freeze(&run.request.vm, &run.job.id);
    let point = retry(&run.config.retry, run.stop, freeze).await?;
    let records = run.services.inventory.disks(&run.context.id).await?;
    let mut disks = Vec::new();
    for disk in point.disks.iter().cloned() {
        let known = records.iter().find(|record| record.disk.key == disk.key);
        let broken = known.is_some_and(|record| record.zeroes_broken);
        if broken && run.config.trust_zeroes {
            run.warn(format!(
                "disk {}: its source once promised zeroes where it held data, so all is read",
                disk.key
            ));
        }
        disks.push(RunDisk::new(disk, run.config.but_for_zeroes(broken)));
    }
    disks.sort_by(|a, b| a.point.key.cmp(&b.point.key));
    let frozen: Vec<&DiskKey> = disks.iter().map(|disk| &disk.point.key).collect();
    let mut wanted: Vec<&DiskKey> = run.job.disks.iter().collect();
    wanted.sort();
    let same = frozen == wanted;
    run.point = Some(point);
    run.disks = disks;
    if same {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, "freeze", &run.context.path)
        .because("its disks changed between discovery and snapshot; run again"))
}
