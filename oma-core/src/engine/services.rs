use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::config::ReplicateConfig;
use super::guard::GuardedSource;
use super::push::Pushes;
use super::stoppable::StoppableBackend;
use crate::seal::Signer;
use crate::traits::{
    ChangeIdRepo, DiskSource, ExportRegistry, ExportServer, ExtentJournal, Inventory, JobLog, JobStore,
    RecoveryPoints, ReportStore, VolumeBackend, VolumeRegistry,
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
    /// Recovery points.
    pub points: Arc<dyn RecoveryPoints>,
    /// Steps of jobs and what is told of them; without, nobody keeps that.
    pub job_log: Option<Arc<dyn JobLog>>,
    /// Verification reports.
    pub reports: Arc<dyn ReportStore>,
    /// Who signs them; without, they are stored as they are.
    pub signer: Option<Arc<dyn Signer>>,
    /// Where blocks are read.
    pub source: Arc<dyn DiskSource>,
    /// Where volumes live.
    pub backend: Arc<dyn VolumeBackend>,
    /// Who serves volumes.
    pub server: Arc<dyn ExportServer>,
    /// Where agents that push meet whoever drives their jobs.
    pub pushes: Pushes,
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
        S: JobStore
            + Inventory
            + ChangeIdRepo
            + ExtentJournal
            + VolumeRegistry
            + ExportRegistry
            + JobLog
            + ReportStore
            + RecoveryPoints,
    {
        Self {
            jobs: store.clone(),
            inventory: store.clone(),
            change_ids: store.clone(),
            journal: store.clone(),
            volumes: store.clone(),
            exports: store.clone(),
            reports: store.clone(),
            job_log: Some(store.clone()),
            points: store,
            signer: None,
            source,
            backend,
            server,
            pushes: Pushes::default(),
        }
    }

    /// The same with somebody who signs verification reports.
    #[must_use]
    pub fn with_signer(self, signer: Arc<dyn Signer>) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// The same with a source that is waited for only so long, and checked.
    pub(super) fn guarded(self, config: &ReplicateConfig) -> Self {
        Self { source: Arc::new(GuardedSource::new(self.source, config)), ..self }
    }

    /// The same with a backend that is waited for only so long after a stop.
    pub(super) fn stoppable(self, stop: &CancellationToken, patience: Duration) -> Self {
        Self { backend: Arc::new(StoppableBackend::new(self.backend, stop.clone(), patience)), ..self }
    }
}
