use tokio_util::sync::CancellationToken;

use crate::engine::config::RetryConfig;
use crate::engine::retry::retry;
use crate::engine::services::Services;
use crate::record::{ContentStamp, Lease, PointVolume, RecoveryPointSpec};
use crate::traits::Snapshots;
use crate::{Error, ErrorKind, RecoveryPointId, Result};

/// Makes a snapshot of every volume of a job, all or nothing: the point is `taken` when this is `Ok`. A volume that does not
/// look any more as the run left it has no snapshot that counts. What a failure leaves is recorded as begun, and swept once
/// the job has ended.
pub(crate) async fn take(
    services: &Services,
    lease: &Lease,
    volumes: Vec<(PointVolume, Option<ContentStamp>)>,
    config: &RetryConfig,
    stop: &CancellationToken,
) -> Result<RecoveryPointId> {
    if services.backend.capabilities().snapshots == Snapshots::None {
        return Err(Error::new(ErrorKind::Unsupported, "take recovery point", &lease.job)
            .because("the place where the volumes live makes no snapshots"));
    }
    let (volumes, stamps): (Vec<_>, Vec<_>) = volumes.into_iter().unzip();
    let spec = RecoveryPointSpec { id: RecoveryPointId::mint(), volumes };
    retry(config, stop, || services.points.begin_point(lease, &spec)).await?;
    for volume in &spec.volumes {
        let freeze = retry(config, stop, || services.backend.snapshot(&volume.snapshot));
        tokio::select! {
            made = freeze => made?,
            // A copy may take long. A backend ends one that nobody waits for; whatever it leaves is swept as unfinished.
            () = stop.cancelled() => {
                let stopped = Error::new(ErrorKind::Cancelled, "snapshot volume", &volume.snapshot.volume);
                return Err(stopped.because("the run was stopped"));
            }
        };
    }
    for (volume, left) in spec.volumes.iter().zip(&stamps) {
        let id = &volume.snapshot.volume;
        let now = retry(config, stop, || services.backend.content_stamp(id)).await?;
        if left.is_some() && now != *left {
            return Err(Error::new(ErrorKind::Conflict, "take recovery point", id)
                .because("somebody else wrote to it since the run closed it"));
        }
    }
    retry(config, stop, || services.points.take_point(lease, &spec.id)).await?;
    Ok(spec.id)
}
