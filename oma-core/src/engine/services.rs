use std::sync::Arc;

use crate::traits::{
    ChangeIdRepo, DiskSource, ExportRegistry, ExportServer, ExtentJournal, Inventory, JobStore,
    VolumeBackend, VolumeRegistry,
};

/// What the engine works with. Each part may be anybody's implementation.
#[derive(Clone, Debug)]
pub struct Services {
    /// Jobs and leases.
    pub jobs: Arc<dyn JobStore>,
    /// VMs and disks.
    pub inventory: Arc<dyn Inventory>,
    /// Change ids.
    pub change_ids: Arc<dyn ChangeIdRepo>,
    /// Finished extents.
    pub journal: Arc<dyn ExtentJournal>,
    /// Volumes and operations.
    pub volumes: Arc<dyn VolumeRegistry>,
    /// Exports as recorded.
    pub exports: Arc<dyn ExportRegistry>,
    /// Where blocks are read.
    pub source: Arc<dyn DiskSource>,
    /// Where volumes live.
    pub backend: Arc<dyn VolumeBackend>,
    /// Who serves volumes.
    pub server: Arc<dyn ExportServer>,
}

impl Services {
    /// Services whose records all lie in one store.
    pub fn new<S>(
        store: Arc<S>,
        source: Arc<dyn DiskSource>,
        backend: Arc<dyn VolumeBackend>,
        server: Arc<dyn ExportServer>,
    ) -> Self
    where
        S: JobStore + Inventory + ChangeIdRepo + ExtentJournal + VolumeRegistry + ExportRegistry,
    {
        Self {
            jobs: store.clone(),
            inventory: store.clone(),
            change_ids: store.clone(),
            journal: store.clone(),
            volumes: store.clone(),
            exports: store,
            source,
            backend,
            server,
        }
    }
}
