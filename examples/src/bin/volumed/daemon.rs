//! The daemon: store, backend and service are opened and wired to the routes.

use std::sync::Arc;
use std::time::Duration;

use oma_api::server::{Api, Figures, Readiness, TlsIdentity, TokenFile, VolumeRoutes};
use oma_core::engine::{
    CancellationToken, ReconcileServices, Reconciler, VolumeService, VolumeServices, VolumesConfig,
};
use oma_core::memory::{MemoryBackend, MemoryStore};
use oma_core::traits::{Inventory, RecoveryPoints, VolumeRegistry as _};
use oma_core::{Error, ErrorKind, InstanceId, Result, WorkerId};
use oma_examples::daemon::{
    Content, Doors, NbdPort, backend, doors, nbd_port, readiness, token, worker_name,
};
use oma_examples::data_dir::{DataDir, Lock};
use oma_examples::database::{Database, VARIABLE};
use oma_examples::output;
use oma_examples::signals::{HangUps, Signals};
use oma_nbd::TlsServer;
use oma_store::SqlStore;

use crate::args::Cli;

const STOPPING: &str = "stopping; answers under way are finished (once more: end at once)";

/// How often what was left over is looked for.
const UPKEEP: Duration = Duration::from_mins(1);

/// What the routes work with, on one data directory.
struct Daemon {
    api: Api,
    service: VolumeService,
    store: Arc<SqlStore>,
    content: Content,
    _lock: Lock,
}

/// Serves until a signal.
pub(crate) async fn run(cli: &Cli) -> Result<()> {
    let signals = Signals::listen_but_for_hang_ups(STOPPING)?;
    let (tls, nbd_tls) = (doors::identity(&cli.doors)?, nbd_port::identity(&cli.nbd).await?);
    let _hang_ups = HangUps::listen({
        let (tls, nbd_tls) = (tls.clone(), nbd_tls.clone());
        move || {
            let (tls, nbd_tls) = (tls.clone(), nbd_tls.clone());
            async move {
                doors::reload(tls).await;
                nbd_port::reload(nbd_tls).await;
            }
        }
    })?;
    let data = DataDir::new(&cli.data_dir)?;
    let mut daemon = Daemon::open(cli, &data, nbd_tls, signals.stop()).await?;
    let served = daemon.serve(cli, &data, tls, signals.stop()).await;
    daemon.close().await;
    served
}

/// The routes, as a document. They are not asked for anything: nothing is opened for it.
pub(crate) fn print_document() -> Result<()> {
    let store = Arc::new(MemoryStore::default());
    let backend = Arc::new(MemoryBackend::new());
    let beside =
        Content::new("nbd.sock".into(), None).routes(backend.clone(), store.clone(), InstanceId::mint());
    let services = VolumeServices { jobs: store.clone(), volumes: store.clone(), backend };
    let worker = WorkerId::parse("document");
    let worker =
        worker.map_err(|error| Error::new(ErrorKind::Internal, "name", "a worker").with_source(error))?;
    let service = VolumeService::new(services, worker, VolumesConfig::default());
    let api = api(service, store.clone(), store, None, &CancellationToken::new());
    let api = api.backend(beside.0).exports(beside.1);
    let api = api.counted_by(Figures::new()).readiness(Readiness::new());
    let text = serde_json::to_string_pretty(api.document());
    output::line(text.map_err(|error| Error::new(ErrorKind::Internal, "write", "JSON").with_source(error))?)
}

/// The routes of volumes.
fn api(
    service: VolumeService,
    inventory: Arc<dyn Inventory>,
    points: Arc<dyn RecoveryPoints>,
    machine: Option<String>,
    stop: &CancellationToken,
) -> Api {
    let beside = ReconcileServices { inventory: inventory.clone(), points };
    let reconciler = Reconciler::new(service.clone(), beside);
    let stop = stop.clone();
    let routes = VolumeRoutes { service, inventory, reconciler, machine, stop };
    Api::new("OMA volume daemon").volumes(routes)
}

impl Daemon {
    async fn open(
        cli: &Cli,
        data: &DataDir,
        nbd_tls: Option<TlsServer>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let database = Database::choose(data, cli.database.as_deref(), std::env::var(VARIABLE))?;
        if database.data.is_none() && cli.backend.backend.is_of_this_machine() {
            return Err(Error::new(ErrorKind::Invalid, "open", database.url()).because(
                "volumes in files of one machine need the database of its data directory: another machine would take them for lost",
            ));
        }
        let lock = data.lock()?;
        data.check_private()?;
        let store = Arc::new(SqlStore::open(&database.config).await?);
        let worker = worker_name(data, &database, &store).await?;
        let (backend, machine) = backend::open(&cli.backend, data).await?;
        let port = NbdPort::open(&cli.nbd, nbd_tls).await?;
        let content = Content::new(data.socket("nbd"), port);
        let figures = Figures::new();
        let backend = figures.metered(backend);
        let ready = readiness(store.clone(), backend.clone(), &content)?;
        let beside = content.routes(backend.clone(), store.clone(), store.instance().await?);
        let services = VolumeServices { jobs: store.clone(), volumes: store.clone(), backend };
        let config = VolumesConfig { grace: cli.grace, ..VolumesConfig::default() };
        let service = VolumeService::new(services, worker, config);
        let api = api(service.clone(), store.clone(), store.clone(), machine, stop);
        let api = api.backend(beside.0).exports(beside.1).audited(store.clone());
        let api = api.counted_by(figures).readiness(ready);
        Ok(Self { api, service, store, content, _lock: lock })
    }

    /// What a process before left is taken up first.
    async fn serve(
        &mut self,
        cli: &Cli,
        data: &DataDir,
        tls: Option<TlsIdentity>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let known = Arc::new(match cli.doors.asks_for_tokens() {
            true => token::known("volumed", data).await?,
            false => TokenFile::new(data.tokens()),
        });
        let doors = Doors::open("volumed", &cli.doors, data, known, tls).await?;
        let listener = self.content.listen()?;
        let recovered = tokio::select! {
            recovered = self.service.recover() => recovered?,
            () = stop.cancelled() => return Ok(()),
        };
        for left in &recovered.left {
            output::note(format!("not taken up yet: {left}"));
        }
        self.service.upkeep(UPKEEP);
        for address in doors.addresses()?.into_iter().chain(self.content.address()) {
            output::line(address)?;
        }
        let (api, content) = (&self.api, &mut self.content);
        let serving = async {
            let served = doors.serve(api, stop).await;
            stop.cancel();
            served
        };
        tokio::join!(serving, content.serve(listener, stop)).0
    }

    async fn close(self) {
        self.service.shutdown().await;
        self.store.close().await;
    }
}
