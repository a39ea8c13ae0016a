//! Opens a data directory and wires the engine's services to it.

use std::fmt;
use std::sync::Arc;

use oma_core::audit::AuditEntry;
use oma_core::engine::{ReplicateConfig, Replicator, Services, VolumeService, VolumeServices, VolumesConfig};
use oma_core::seal::SigningKey;
use oma_core::traits::{Cleanups, VolumeRegistry};
use oma_core::{Error, ErrorKind, Result, WorkerId};
use oma_nbd::{Server, ServerConfig};
use oma_store::{SqlStore, StoreConfig};
use oma_volume::file::{FileBackend, FileConfig};

use oma_examples::data_dir::{DataDir, Lock};
use oma_examples::placement;
use oma_examples::signing_key;
use oma_examples::source::Source;
use oma_examples::trail;

/// The services of one process on one data directory.
#[derive(Debug)]
pub(crate) struct Appliance {
    pub(crate) services: Services,
    /// The same in every run on this data directory: a run gets the jobs of a killed one back at once.
    pub(crate) worker: WorkerId,
    store: Arc<SqlStore>,
    _lock: Option<Lock>,
}

impl Appliance {
    /// Opens a data directory for writing; makes it when it is not there.
    pub(crate) async fn open(data: &DataDir, source: Source) -> Result<Self> {
        let lock = data.lock()?;
        placement::check_volumes(data)?;
        let store = SqlStore::open(&config(data)?).await?;
        let appliance = Self::wire(data, source.for_jobs(), store, Some(lock)).await?;
        Ok(appliance.signing(Some(signing_key::load_or_make(&data.signing_key())?)))
    }

    /// Opens a data directory to look at records and volumes, also while another process works in it.
    pub(crate) async fn open_to_read(data: &DataDir, source: Source) -> Result<Self> {
        placement::check_volumes(data)?;
        let store = open_records(data).await?;
        let appliance = Self::wire(data, source.for_looks(), store, None).await?;
        Ok(appliance.signing(signing_key::load(&data.signing_key())?))
    }

    async fn wire(data: &DataDir, source: Source, store: SqlStore, lock: Option<Lock>) -> Result<Self> {
        let store = Arc::new(store);
        let worker = worker(store.instance().await?)?;
        let config = FileConfig { directory: data.volumes(), identity: Some(data.volumes_identity()) };
        let backend = FileBackend::open(&config)?;
        // Volumes are published here under the job's fencing token; nobody listens, the engine writes in this process.
        let server = Server::new(ServerConfig::default());
        let source = source.owned_by(worker.clone());
        let services = Services::new(Arc::clone(&store), source, Arc::new(backend), Arc::new(server));
        Ok(Self { services, worker, store, _lock: lock })
    }

    /// Who drives jobs here.
    pub(crate) fn replicator(&self, config: ReplicateConfig) -> Replicator {
        Replicator::new(self.services.clone(), self.worker.clone(), config)
    }

    /// Who changes single volumes here.
    pub(crate) fn volumes(&self, config: VolumesConfig) -> VolumeService {
        VolumeService::new(VolumeServices::from(&self.services), self.worker.clone(), config)
    }

    /// What was planned to be cleaned up here, and what became of it.
    pub(crate) fn cleanups(&self) -> Arc<dyn Cleanups> {
        self.store.clone()
    }

    /// Makes a change behind its entry in the audit trail.
    pub(crate) async fn recorded<T>(
        &self,
        entry: AuditEntry,
        change: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        trail::recorded(&*self.store, entry, change).await
    }

    /// With this key, verification reports are signed.
    fn signing(self, key: Option<SigningKey>) -> Self {
        match key {
            Some(key) => Self { services: self.services.with_signer(Arc::new(key)), ..self },
            None => self,
        }
    }

    /// Closes the database; the lock goes with the value.
    pub(crate) async fn close(self) {
        self.store.close().await;
    }
}

/// The records of a data directory, for reading only.
pub(crate) async fn open_records(data: &DataDir) -> Result<SqlStore> {
    SqlStore::open_read_only(&config(data)?).await
}

fn config(data: &DataDir) -> Result<StoreConfig> {
    placement::check_records(data)?;
    Ok(StoreConfig { url: data.database_url()?, ..StoreConfig::default() })
}

fn worker(instance: impl fmt::Display) -> Result<WorkerId> {
    WorkerId::parse(format!("oma-{instance}"))
        .map_err(|error| Error::new(ErrorKind::Internal, "name", "this worker").with_source(error))
}
