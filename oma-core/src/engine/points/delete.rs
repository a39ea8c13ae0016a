use super::sweep::delete;
use crate::engine::services::Services;
use crate::record::Needless;
use crate::{Error, ErrorKind, RecoveryPointId, Result};

/// Deletes a recovery point with its snapshots, as an operator asks for it. May run twice.
///
/// # Errors
/// `NotFound`; `Conflict` while its job makes it, and for the newest ready one while a job of the VM is live or one of its
/// volumes holds no epoch (L12). When a snapshot cannot be deleted, the backend's error: the point stays `deleting`, and the
/// same call or the next run goes on.
pub async fn delete_point(services: &Services, id: &RecoveryPointId, reason: &str) -> Result<()> {
    services.points.condemn_point(id, Needless::Unwanted, reason).await?;
    let found = services.points.point(id).await?;
    let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "delete recovery point", id))?;
    delete(&*services.backend, &*services.points, &found).await
}
