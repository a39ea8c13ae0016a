//! What both daemons stand on: the database, volumes and what they hold over NBD, in a locked data directory.

use std::sync::Arc;

use crate::data_dir::{DataDir, Lock};
use crate::database::{Database, VARIABLE};
use crate::output;
use crate::placement::Placement;
use oma_api::server::{Api, ExportRoutes, Figures, JobExports, Readiness};
use oma_core::engine::{CancellationToken, VolumeService};
use oma_core::traits::{VolumeBackend, VolumeRegistry as _};
use oma_core::{Error, ErrorKind, Result, WorkerId};
use oma_nbd::TlsServer;
use oma_store::SqlStore;

use super::cloud_check::CloudCheck;
use super::manager::Manager;
use super::parts::readiness;
use super::worker::worker_name;
use super::{BackendArgs, Content, Doors, NbdArgs, NbdPort, backend};

/// How often what was left over is looked for.
pub const UPKEEP: std::time::Duration = std::time::Duration::from_mins(1);

/// Opened, and served to nobody yet.
#[derive(Debug)]
pub struct Ground {
    /// All records.
    pub store: Arc<SqlStore>,
    /// Who changes volumes here.
    pub worker: WorkerId,
    /// Where volumes live; its calls are counted.
    pub backend: Arc<dyn VolumeBackend>,
    /// The cloud's id of this machine, where it is known.
    pub machine: Option<String>,
    /// What volumes hold.
    pub content: Content,
    /// What is counted.
    pub figures: Figures,
    /// What is needed.
    pub readiness: Readiness,
    cloud: CloudCheck,
    _lock: Lock,
}

impl Ground {
    /// Opens all of it, in a data directory that is locked.
    ///
    /// # Errors
    /// `Invalid` for a database of others together with volumes of this machine; what the data directory, the database, the backend and
    /// the port answer.
    pub async fn open(
        (data, lock): (&DataDir, Lock),
        database: Option<&str>,
        place: &BackendArgs,
        nbd: &NbdArgs,
        nbd_tls: Option<TlsServer>,
    ) -> Result<Self> {
        let database = Database::choose(data, database, std::env::var(VARIABLE))?;
        if database.data.is_none() && place.backend.is_of_this_machine() {
            return Err(Error::new(ErrorKind::Invalid, "open", database.url()).because(
                "volumes in files of one machine need the database of its data directory: another machine would take them for lost",
            ));
        }
        let store = Arc::new(SqlStore::open(&database.config).await?);
        let worker = worker_name(data, &database, &store).await?;
        let (backend, machine) = backend::open(place, data).await?;
        let elsewhere = database.data.is_none().then(|| database.url());
        Placement { volumes: place.backend.name().to_owned(), records: elsewhere }.keep(data)?;
        let port = NbdPort::open(nbd, nbd_tls).await?;
        let content = Content::new(data.socket("nbd"), port);
        let figures = Figures::new();
        let backend = figures.metered(backend);
        let readiness = readiness(store.clone(), backend.clone(), &content, data.path().to_owned())?;
        let cloud = CloudCheck::open(place)?;
        let readiness = cloud.needed_by(readiness);
        Ok(Self { store, worker, backend, machine, content, figures, readiness, cloud, _lock: lock })
    }

    /// The same routes, and those of what is opened here, beside the exports of jobs where there are some.
    ///
    /// # Errors
    /// What the database answers.
    pub async fn routes(&self, api: Api, jobs: Option<JobExports>) -> Result<Api> {
        let instance = self.store.instance().await?;
        let (others, exports) = self.content.routes(self.backend.clone(), self.store.clone(), instance);
        let api = api.backend(others).exports(ExportRoutes { jobs, ..exports });
        Ok(api.counted_by(self.figures.clone()).readiness(self.readiness.clone()))
    }

    /// Serves until `stop`. What a process before left is taken up first; then `begin` is done, how the daemon is reached is told, and
    /// `beside` goes on as long as anybody is served.
    ///
    /// # Errors
    /// What recovery and sockets answer.
    pub async fn serve(
        &mut self,
        api: &Api,
        doors: Doors,
        service: &VolumeService,
        begin: impl Future<Output = Result<()>>,
        beside: impl Future<Output = ()>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let listener = self.content.listen()?;
        let recovered = tokio::select! {
            recovered = service.recover() => recovered?,
            () = stop.cancelled() => return Ok(()),
        };
        for left in &recovered.left {
            output::note(format!("not taken up yet: {left}"));
        }
        service.upkeep(UPKEEP);
        begin.await?;
        for address in doors.addresses()?.into_iter().chain(self.content.address()) {
            output::line(address)?;
        }
        let manager = Manager::new(self.readiness.clone());
        manager.ready();
        let serving = async {
            let served = doors.serve(api, stop).await;
            stop.cancel();
            served
        };
        let looking = self.cloud.run(stop);
        tokio::join!(serving, self.content.serve(listener, stop), beside, manager.run(stop), looking).0
    }

    /// Ends what was opened.
    pub async fn close(self, service: &VolumeService) {
        service.shutdown().await;
        self.store.close().await;
    }
}
