//! The daemon: store, backend, service and worker are opened and wired to the routes.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use oma_api::server::{
    AccountRoutes, AccountTokens, AnyOf, Api, CleanupRoutes, ExportAddress, Figures, LoginConfig, Passwords,
    Readiness, RecordedRequests, ReplicationRoutes, SourceOpener, TlsIdentity, TokenFile, VolumeRoutes,
    first_admin as make_first_admin,
};
use oma_core::engine::{
    CancellationToken, CleanupService, CleanupServices, Limits, ReconcileServices, Reconciler, Replicator,
    Services, Upkeep, VolumeService, VolumeServices, VolumesConfig, Worker,
};
use oma_core::memory::{MemoryBackend, MemoryExportServer, MemoryStore};
use oma_core::traits::{Accounts, Cleanups, JobLog, LogStore, Overview, VolumeRegistry as _};
use oma_core::{Error, ErrorKind, InstanceId, Result, WorkerId};
use oma_examples::daemon::{
    ByAccess, Content, Doors, NbdPort, backend, doors, nbd_port, readiness, worker_name,
};
use oma_examples::data_dir::{DataDir, Lock};
use oma_examples::database::{Database, VARIABLE};
use oma_examples::failure::io_error;
use oma_examples::signals::{HangUps, Signals};
use oma_examples::source::Source;
use oma_examples::{folder, limits_file, output, signing_key};
use oma_nbd::{Server, ServerConfig, TlsServer};
use oma_store::SqlStore;

use crate::args::Cli;
use crate::settings::{Settings, WorkSettings};
use crate::sources::Sources;

const STOPPING: &str =
    "stopping; jobs are given back, answers under way are finished (once more: end at once)";

/// How often what was left over is looked for.
const UPKEEP: Duration = Duration::from_mins(1);

/// Who may make users where there is none yet.
const FIRST_ADMIN: &str = "admin@localhost";
/// How long its token is good.
const FIRST_TOKEN: Duration = Duration::from_hours(24 * 7);

/// What the routes work with, on one data directory.
struct Daemon {
    api: Api,
    service: VolumeService,
    cleanups: CleanupService,
    worker: Worker,
    upkeep: Upkeep,
    store: Arc<SqlStore>,
    content: Content,
    _lock: Lock,
}

/// Serves until a signal.
pub(crate) async fn run(cli: &Cli, settings: &Settings) -> Result<()> {
    let signals = Signals::listen_but_for_hang_ups(STOPPING)?;
    let (tls, nbd_tls) = (doors::identity(&settings.api)?, nbd_port::identity(&settings.nbd).await?);
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
    let data = DataDir::new(&settings.data_dir)?;
    let mut daemon = Daemon::open(cli, settings, &data, nbd_tls, signals.stop()).await?;
    let served = daemon.serve(settings, &data, tls, signals.stop()).await;
    daemon.close().await;
    served
}

/// The routes, as a document. They are not asked for anything: nothing is opened for it.
pub(crate) async fn print_document() -> Result<()> {
    let (store, backend) = (Arc::new(MemoryStore::default()), Arc::new(MemoryBackend::new()));
    let content = Content::new("nbd.sock".into(), None);
    let beside = content.routes(backend.clone(), store.clone(), InstanceId::mint());
    let worker = WorkerId::parse("document")
        .map_err(|error| Error::new(ErrorKind::Internal, "name", "a worker").with_source(error))?;
    let nothing = Source::nothing()?.owned_by(worker.clone());
    let server = Arc::new(MemoryExportServer::new());
    let passwords = Passwords::new().await?;
    let accounts = AccountRoutes::new(store.clone(), store.clone(), passwords, LoginConfig::default());
    let services = Services::new(store.clone(), nothing, backend, server);
    let (exports, stop) = (content.address_of_exports(), CancellationToken::new());
    let wired = Wired {
        services,
        logs: store.clone(),
        job_log: store.clone(),
        overview: store.clone(),
        cleanups: store.clone(),
        worker,
        machine: None,
        exports,
        accounts: store,
        stop,
    };
    let Routes { api, .. } = wired.routes(&Settings::default(), None)?;
    let api = api.backend(beside.0).exports(beside.1).accounts(accounts);
    let api = api.counted_by(Figures::new()).readiness(Readiness::new());
    let text = serde_json::to_string_pretty(api.document());
    output::line(text.map_err(|error| Error::new(ErrorKind::Internal, "write", "JSON").with_source(error))?)
}

/// What everything works with.
struct Wired {
    services: Services,
    logs: Arc<dyn LogStore>,
    job_log: Arc<dyn JobLog>,
    cleanups: Arc<dyn Cleanups>,
    overview: Arc<dyn Overview>,
    worker: WorkerId,
    machine: Option<String>,
    exports: Arc<dyn ExportAddress>,
    accounts: Arc<dyn Accounts>,
    stop: CancellationToken,
}

/// The routes, and who does what they ask for.
struct Routes {
    api: Api,
    service: VolumeService,
    cleanups: CleanupService,
    worker: Worker,
}

impl Wired {
    /// The routes, and who does what they ask for.
    fn routes(self, settings: &Settings, limits: Option<Limits>) -> Result<Routes> {
        let Self { services, logs, job_log, overview, cleanups, worker, machine, exports, accounts, stop } =
            self;
        let config = VolumesConfig { grace: settings.volumes.grace, ..VolumesConfig::default() };
        let service = VolumeService::new(VolumeServices::from(&services), worker.clone(), config);
        let inventory = services.inventory.clone();
        let beside = ReconcileServices { inventory: inventory.clone(), points: services.points.clone() };
        let reconciler = Reconciler::new(service.clone(), beside);
        let cleaned = CleanupServices {
            inventory: inventory.clone(),
            exports: services.exports.clone(),
            points: services.points.clone(),
            cleanups,
            server: services.server.clone(),
        };
        let cleanups = CleanupService::new(service.clone(), cleaned);
        let cleaning = CleanupRoutes { service: cleanups.clone(), stop: stop.clone() };
        let volumes =
            VolumeRoutes { service: service.clone(), inventory, reconciler, machine, stop: stop.clone() };
        let sources =
            Sources::new(settings.sources.directories.clone(), settings.data_dir.clone(), worker.clone());
        let sources: Arc<dyn SourceOpener> = Arc::new(sources);
        let replicator = Replicator::new(services, worker, settings.engine());
        let replicator = match limits {
            Some(limits) => replicator.with_limits(limits),
            None => replicator,
        };
        let opener = Arc::new(RecordedRequests(sources.clone()));
        let worker = Worker::new(replicator.clone(), opener, settings.worker());
        let (driver, accounts) = (Some(worker.clone()), Some(accounts));
        let replications = ReplicationRoutes {
            replicator,
            worker: driver,
            job_log,
            logs,
            overview,
            sources,
            exports,
            accounts,
            stop,
        };
        let api = Api::new("OMA appliance").volumes(volumes).replications(replications).cleanups(cleaning);
        Ok(Routes { api, service, cleanups, worker })
    }
}

impl Daemon {
    async fn open(
        cli: &Cli,
        settings: &Settings,
        data: &DataDir,
        nbd_tls: Option<TlsServer>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let database = Database::choose(data, cli.database.as_deref(), std::env::var(VARIABLE))?;
        let place = settings.volumes.backend();
        if database.data.is_none() && place.backend.is_of_this_machine() {
            return Err(Error::new(ErrorKind::Invalid, "open", database.url()).because(
                "volumes in files of one machine need the database of its data directory: another machine would take them for lost",
            ));
        }
        let WorkSettings { limits, .. } = &settings.work;
        let limits = limits.as_deref().map(limits_file::read).transpose()?;
        let lock = data.lock()?;
        data.check_private()?;
        let store = Arc::new(SqlStore::open(&database.config).await?);
        let worker = worker_name(data, &database, &store).await?;
        let (backend, machine) = backend::open(&place, data).await?;
        let port = NbdPort::open(&settings.nbd, nbd_tls).await?;
        let content = Content::new(data.socket("nbd"), port);
        let figures = Figures::new();
        let backend = figures.metered(backend);
        let ready = readiness(store.clone(), backend.clone(), &content)?;
        let beside = content.routes(backend.clone(), store.clone(), store.instance().await?);
        let source = Source::nothing()?.owned_by(worker.clone());
        // Volumes are published under the job's fencing token: nobody listens where the engine itself writes; agents that push reach
        // what they write, and are told its name alone.
        let server =
            Arc::new(ByAccess::new(Arc::new(Server::new(ServerConfig::default())), content.pushed()));
        let services = Services::new(store.clone(), source, backend, server);
        let services = services.with_signer(Arc::new(signing_key::load_or_make(&data.signing_key())?));
        let wired = Wired {
            services,
            logs: store.clone(),
            job_log: store.clone(),
            overview: store.clone(),
            cleanups: store.clone(),
            worker,
            machine,
            exports: content.address_of_exports(),
            accounts: store.clone(),
            stop: stop.clone(),
        };
        let Routes { api, service, cleanups, worker } = wired.routes(settings, limits)?;
        let passwords = Passwords::new().await?;
        let accounts = AccountRoutes::new(store.clone(), store.clone(), passwords, LoginConfig::default());
        let ready = ready.needing("worker", {
            let worker = worker.clone();
            move || std::future::ready(runs(&worker))
        });
        let api = api.backend(beside.0).exports(beside.1).accounts(accounts);
        let api = api.counted_by(figures).readiness(ready);
        let upkeep = Upkeep::new(&store, settings.upkeep());
        Ok(Self { api, service, cleanups, worker, upkeep, store, content, _lock: lock })
    }

    /// What a process before left is taken up first.
    async fn serve(
        &mut self,
        settings: &Settings,
        data: &DataDir,
        tls: Option<TlsIdentity>,
        stop: &CancellationToken,
    ) -> Result<()> {
        if settings.api.asks_for_tokens() {
            first_admin(&self.store, data).await?;
        }
        let accounts = Arc::new(AccountTokens::new(self.store.clone()));
        let known = AnyOf::new(vec![accounts, Arc::new(TokenFile::new(data.tokens()))]);
        let doors = Doors::open("omad", &settings.api, data, Arc::new(known), tls).await?;
        let listener = self.content.listen()?;
        let recovered = tokio::select! {
            recovered = self.service.recover() => recovered?,
            () = stop.cancelled() => return Ok(()),
        };
        for left in &recovered.left {
            output::note(format!("not taken up yet: {left}"));
        }
        self.service.upkeep(UPKEEP);
        self.cleanups.recover().await?;
        self.cleanups.upkeep(UPKEEP);
        for address in doors.addresses()?.into_iter().chain(self.content.address()) {
            output::line(address)?;
        }
        let (api, content, worker, upkeep) = (&self.api, &mut self.content, &self.worker, &self.upkeep);
        let serving = async {
            let served = doors.serve(api, stop).await;
            stop.cancel();
            served
        };
        tokio::join!(serving, content.serve(listener, stop), worker.run(stop), upkeep.run(stop)).0
    }

    async fn close(self) {
        self.cleanups.shutdown().await;
        self.service.shutdown().await;
        self.store.close().await;
    }
}

/// Whether jobs are taken up.
fn runs(worker: &Worker) -> Result<()> {
    let hangs = || Error::new(ErrorKind::Unavailable, "look for jobs as", "the worker");
    worker.is_running().then_some(()).ok_or_else(|| hangs().because("it did not do so of late"))
}

/// Where nobody is known yet, an admin is, whose token is left in a file: what is printed is kept in logs (L29).
async fn first_admin(store: &SqlStore, data: &DataDir) -> Result<()> {
    let Some(secret) = make_first_admin(store, store, FIRST_ADMIN, FIRST_TOKEN).await? else { return Ok(()) };
    let path = data.first_token();
    let failed = |error| io_error("write", path.display(), error);
    let mut file = folder::draft(&path).map_err(failed)?;
    writeln!(file, "{}", secret.reveal()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    output::note(format_args!(
        "the token of the first admin, {FIRST_ADMIN}, is in {}; remove the file once you have it",
        path.display()
    ));
    Ok(())
}
