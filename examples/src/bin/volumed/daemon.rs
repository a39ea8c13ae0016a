//! The daemon: store, backend and service are opened and wired to the routes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use oma_api::server::{Api, VolumeRoutes};
use oma_core::engine::{
    CancellationToken, ReconcileServices, Reconciler, VolumeService, VolumeServices, VolumesConfig,
};
use oma_core::traits::VolumeRegistry as _;
use oma_core::{Error, ErrorKind, Result, WorkerId};
use oma_examples::data_dir::{DataDir, Lock};
use oma_examples::database::{Database, VARIABLE};
use oma_examples::failure::{io_error, read_error};
use oma_examples::output;
use oma_examples::signals::Signals;
use oma_store::SqlStore;

use crate::args::Cli;
use crate::backend;
use crate::doors::Doors;

const STOPPING: &str = "stopping; answers under way are finished (once more: end at once)";

/// How often what was left over is looked for.
const UPKEEP: Duration = Duration::from_mins(1);

/// What the routes work with, on one data directory.
struct Daemon {
    api: Api,
    service: VolumeService,
    store: Arc<SqlStore>,
    _lock: Lock,
}

/// Serves until a signal.
pub(crate) async fn run(cli: &Cli) -> Result<()> {
    let signals = Signals::listen_but_for_hang_ups(STOPPING)?;
    let data = DataDir::new(&cli.data_dir)?;
    let daemon = Daemon::open(cli, &data).await?;
    let served = daemon.serve(cli, &data, signals.stop()).await;
    daemon.close().await;
    served
}

/// The routes, as a document. Nothing is opened for it.
pub(crate) async fn print_document(cli: &Cli) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|error| io_error("make", "a temporary folder", error))?;
    let data = DataDir::new(folder.path())?;
    let daemon = Daemon::wire(cli, &data, Database::of(&data)?).await?;
    let text = serde_json::to_string_pretty(daemon.api.document());
    daemon.close().await;
    output::line(text.map_err(|error| Error::new(ErrorKind::Internal, "write", "JSON").with_source(error))?)
}

impl Daemon {
    async fn open(cli: &Cli, data: &DataDir) -> Result<Self> {
        let database = Database::choose(data, cli.database.as_deref(), std::env::var(VARIABLE))?;
        Self::wire(cli, data, database).await
    }

    async fn wire(cli: &Cli, data: &DataDir, database: Database) -> Result<Self> {
        let lock = data.lock()?;
        let store = Arc::new(SqlStore::open(&database.config).await?);
        let worker = worker(data, &database, &store).await?;
        let (backend, machine) = backend::open(&cli.backend, data)?;
        let services = VolumeServices { jobs: store.clone(), volumes: store.clone(), backend };
        let config = VolumesConfig { grace: cli.grace, ..VolumesConfig::default() };
        let service = VolumeService::new(services.clone(), worker, config);
        let beside = ReconcileServices { inventory: store.clone(), points: store.clone() };
        let reconciler = Reconciler::new(service.clone(), beside);
        let inventory = store.clone();
        let routes = VolumeRoutes { service: service.clone(), services, inventory, reconciler, machine };
        Ok(Self { api: Api::new("OMA volume daemon").volumes(routes), service, store, _lock: lock })
    }

    /// What a process before left is taken up first.
    async fn serve(&self, cli: &Cli, data: &DataDir, stop: &CancellationToken) -> Result<()> {
        let doors = Doors::open(cli, data).await?;
        let recovered = self.service.recover().await?;
        for left in &recovered.left {
            output::note(format!("not taken up yet: {left}"));
        }
        self.service.upkeep(UPKEEP);
        for address in doors.addresses()? {
            output::line(address)?;
        }
        doors.serve(&self.api, stop).await
    }

    async fn close(self) {
        self.service.shutdown().await;
        self.store.close().await;
    }
}

/// Who changes volumes here: the same after each start. A database of the data directory's own knows it as the command line does; in
/// one that other machines use as well, each data directory is a worker of its own.
async fn worker(data: &DataDir, database: &Database, store: &SqlStore) -> Result<WorkerId> {
    let name = match database.data {
        Some(_) => format!("oma-{}", store.instance().await?),
        None => kept_name(data)?,
    };
    WorkerId::parse(name.trim()).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "read", data.worker().display())
            .because(format!("{error}; remove the file"))
    })
}

fn kept_name(data: &DataDir) -> Result<String> {
    let path = data.worker();
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = format!("volumed-{}", oma_core::InstanceId::mint());
            let beside = path.with_extension("new");
            let written = fs::write(&beside, &name).and_then(|()| fs::rename(&beside, &path));
            written.map(|()| name).map_err(|error| io_error("write", path.display(), error))
        }
        read => read.map_err(|error| read_error("read", path.display(), error)),
    }
}
