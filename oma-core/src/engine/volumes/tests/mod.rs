//! The service over a world that forgets nothing, driven by processes that die.

mod abandons;
mod accidents;
mod deletes;
mod doubts;
mod machines;
pub(in crate::engine) mod meanwhile;
mod restored;
mod schedules;
mod steps;
mod submits;
mod upkeep;
mod whole;
pub(in crate::engine) mod world;

use std::time::Duration;

use self::world::{Fate, World};
use super::{VolumeChange, VolumeRequest, VolumeService};
use crate::record::Operation;
use crate::state::OperationStatus;
use crate::traits::Provisioning;
use crate::{ByteSize, DiskRef, OperationId};

/// A process that does not die.
pub(in crate::engine) const FOR_EVER: usize = usize::MAX;
const LONG: Duration = Duration::from_secs(3600);

pub(in crate::engine) fn create() -> VolumeChange {
    VolumeChange::Create {
        name: "web-disk-2000".to_owned(),
        capacity: ByteSize::mib(1),
        provisioning: Provisioning::Thin,
    }
}

pub(in crate::engine) fn request(disk: &DiskRef, change: VolumeChange) -> VolumeRequest {
    VolumeRequest { id: OperationId::mint(), disk: disk.clone(), volume: None, change }
}

/// Asks and waits for the end.
pub(in crate::engine) async fn done(service: &VolumeService, request: &VolumeRequest) -> Operation {
    service.submit(request.clone()).await.unwrap();
    let ended = service.wait(&request.id, LONG).await.unwrap();
    assert_ne!(ended.status, OperationStatus::Executing, "{ended:?}");
    ended
}
