//! What a daemon needs to be ready.

use std::sync::Arc;

use oma_api::server::Readiness;
use oma_core::traits::{VolumeBackend, VolumeRegistry};
use oma_core::{Error, ErrorKind, Result, VolumeId};

use super::Content;

/// No volume has this id: whether there is one is a question to the backend that changes nothing.
const NO_VOLUME: &str = "00000000-0000-4000-8000-000000000000";

/// The database answers, the backend does, and clients of exports are let in.
///
/// # Errors
/// Never: the id of no volume is a good one.
pub(super) fn readiness(
    registry: Arc<dyn VolumeRegistry>,
    backend: Arc<dyn VolumeBackend>,
    content: &Content,
) -> Result<Readiness> {
    let nothing = VolumeId::parse(NO_VOLUME)
        .map_err(|error| Error::new(ErrorKind::Internal, "name", "no volume").with_source(error))?;
    Ok(Readiness::new()
        .needing("database", move || {
            let registry = Arc::clone(&registry);
            async move { registry.instance().await.map(drop) }
        })
        .needing("backend", move || {
            let (backend, nothing) = (Arc::clone(&backend), nothing.clone());
            async move { backend.get(&nothing).await.map(drop) }
        })
        .needing("exports", content.listens()))
}
