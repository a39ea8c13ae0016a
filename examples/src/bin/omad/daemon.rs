//! The daemon: store, backend, service and worker are opened and wired to the routes.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use oma_api::server::{
    AccountRoutes, AccountTokens, AgentJobs, AnyOf, Api, CleanupRoutes, ExportAddress, Figures, JobExports,
    LoginConfig, NewToken, Passwords, PointRoutes, Readiness, RecordedRequests, ReplicationRoutes,
    SourceOpener, TlsIdentity, TokenFile, VolumeRoutes, first_admin as make_first_admin,
};
use oma_core::engine::{
    CancellationToken, CleanupService, CleanupServices, Limits, PointService, ReconcileServices, Reconciler,
    Replicator, Services, Upkeep, VolumeService, VolumeServices, VolumesConfig, Worker,
};
use oma_core::memory::{MemoryBackend, MemoryExportServer, MemoryStore};
use oma_core::traits::{Accounts, Cleanups, JobLog, LogStore, Overview};
use oma_core::{Error, ErrorKind, InstanceId, Result, WorkerId};
use oma_examples::daemon::{ByAccess, Content, Doors, Given, Ground, Identities, UPKEEP};
use oma_examples::data_dir::{DataDir, Lock};
use oma_examples::failure::io_error;
use oma_examples::signals::Signals;
use oma_examples::source::Source;
use oma_examples::{folder, limits_file, output, signing_key};
use oma_nbd::{Server, ServerConfig, TlsServer};
use oma_store::SqlStore;

use crate::args::Cli;
use crate::settings::{Settings, WorkSettings};
use crate::sources::Sources;

const STOPPING: &str =
    "stopping; jobs are given back, answers under way are finished (once more: end at once)";

/// Who may make users where there is none yet.
const FIRST_ADMIN: &str = "admin@localhost";
/// How long its token is good.
const FIRST_TOKEN: Duration = Duration::from_hours(24 * 7);

/// What the routes work with, on one data directory.
struct Daemon {
    api: Api,
    /// Of volumes only.
    volumes: Api,
    service: VolumeService,
    cleanups: CleanupService,
    points: PointService,
    worker: Worker,
    upkeep: Upkeep,
    ground: Ground,
}

/// Serves until a signal.
pub(crate) async fn run(cli: &Cli, settings: &Settings, given: Option<Given>) -> Result<()> {
    let signals = Signals::listen_but_for_hang_ups(STOPPING)?;
    let data = DataDir::new(&settings.data_dir)?;
    let lock = data.lock_for_daemon()?;
    let beside = settings.volume_api.listen.address();
    let identities = Identities::open(&data, &settings.api, &settings.nbd, beside).await?;
    let nbd = identities.nbd.clone();
    let daemon = Daemon::open(cli, settings, (&data, lock), nbd, signals.stop()).await?;
    daemon.serve(settings, &data, identities.doors.clone(), given, signals.stop()).await
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
    let text = serde_json::to_string_pretty(&api.document());
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
    /// Of volumes only.
    volumes: Api,
    service: VolumeService,
    cleanups: CleanupService,
    points: PointService,
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
        let points = PointService::new(services.clone(), worker.clone(), settings.engine());
        let reverting = PointRoutes { service: points.clone(), stop: stop.clone() };
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
            points: Some(points.clone()),
            job_log,
            logs,
            overview,
            sources,
            exports,
            accounts,
            agent_jobs: AgentJobs::new(settings.work.per_agent),
            stop,
        };
        let volumes = Api::new("OMA volumes").volumes(volumes);
        let api = volumes.clone().titled("OMA appliance").replications(replications).cleanups(cleaning);
        let api = api.points(reverting);
        Ok(Routes { api, volumes, service, cleanups, points, worker })
    }
}

impl Daemon {
    async fn open(
        cli: &Cli,
        settings: &Settings,
        (data, lock): (&DataDir, Lock),
        nbd_tls: Option<TlsServer>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let WorkSettings { limits, .. } = &settings.work;
        let limits = limits.as_deref().map(limits_file::read).transpose()?;
        let place = settings.volumes.backend();
        let database = cli.database.as_deref();
        let mut ground = Ground::open((data, lock), database, &place, &settings.nbd, nbd_tls).await?;
        let store = ground.store.clone();
        let source = Source::nothing()?.owned_by(ground.worker.clone());
        // Volumes are published under the job's fencing token: nobody listens where the engine itself writes; agents that push reach
        // what they write, and are told its name alone.
        let server =
            Arc::new(ByAccess::new(Arc::new(Server::new(ServerConfig::default())), ground.content.pushed()));
        let services = Services::new(store.clone(), source, ground.backend.clone(), server);
        let services = services.with_signer(Arc::new(signing_key::load_or_make(&data.signing_key())?));
        let exports = JobExports {
            records: services.exports.clone(),
            server: services.server.clone(),
            pushes: services.pushes.clone(),
        };
        let wired = Wired {
            services,
            logs: store.clone(),
            job_log: store.clone(),
            overview: store.clone(),
            cleanups: store.clone(),
            worker: ground.worker.clone(),
            machine: ground.machine.clone(),
            exports: ground.content.address_of_exports(),
            accounts: store.clone(),
            stop: stop.clone(),
        };
        let Routes { api, volumes, service, cleanups, points, worker } = wired.routes(settings, limits)?;
        ground.readiness = ground.readiness.clone().needing("worker", {
            let worker = worker.clone();
            move || std::future::ready(runs(&worker))
        });
        let passwords = Passwords::new().await?;
        let accounts = AccountRoutes::new(store.clone(), store.clone(), passwords, LoginConfig::default());
        let api = ground.routes(api, Some(exports)).await?.accounts(accounts);
        let volumes = ground.routes(volumes, None).await?.audited(store.clone());
        let upkeep = Upkeep::new(&store, settings.upkeep());
        Ok(Self { api, volumes, service, cleanups, points, worker, upkeep, ground })
    }

    async fn serve(
        self,
        settings: &Settings,
        data: &DataDir,
        tls: Option<TlsIdentity>,
        given: Option<Given>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let Self { api, volumes, service, cleanups, points, worker, upkeep, mut ground } = self;
        let begin = async {
            cleanups.recover().await?;
            cleanups.upkeep(UPKEEP);
            points.recover().await?;
            points.upkeep(UPKEEP);
            Ok(())
        };
        let beside = async {
            tokio::join!(worker.run(stop), upkeep.run(stop));
        };
        let served = match open_doors(&ground, settings, data, (tls, given), volumes).await {
            Ok(doors) => ground.serve(&api, doors, &service, begin, beside, stop).await,
            Err(error) => Err(error),
        };
        tokio::join!(cleanups.shutdown(), points.shutdown());
        ground.close(&service).await;
        served
    }
}

/// Begins to listen; where nobody is known yet, somebody is then.
async fn open_doors(
    ground: &Ground,
    settings: &Settings,
    data: &DataDir,
    (tls, given): (Option<TlsIdentity>, Option<Given>),
    volumes: Api,
) -> Result<Doors> {
    if settings.api.asks_for_tokens() {
        first_admin(&ground.store, data).await?;
    }
    let accounts = Arc::new(AccountTokens::new(ground.store.clone()));
    let known = Arc::new(AnyOf::new(vec![accounts, Arc::new(TokenFile::new(data.tokens()))]));
    let doors = Doors::open("omad", &settings.api, data, known.clone(), tls.clone(), given).await?;
    let Some(address) = settings.volume_api.listen.address() else { return Ok(doors) };
    doors.beside(address, &settings.api, known, tls, volumes).await
}

/// Whether jobs are taken up.
fn runs(worker: &Worker) -> Result<()> {
    let hangs = || Error::new(ErrorKind::Unavailable, "look for jobs as", "the worker");
    worker.is_running().then_some(()).ok_or_else(|| hangs().because("it did not do so of late"))
}

/// Where nobody is known yet, an admin is, whose token is left in a file: what is printed is kept in logs (L29).
async fn first_admin(store: &SqlStore, data: &DataDir) -> Result<()> {
    let path = data.first_token();
    let failed = |error| io_error("write", path.display(), error);
    let mut is_kept = false;
    let keep = |secret: &NewToken| {
        let mut file = folder::draft(&path).map_err(failed)?;
        writeln!(file, "{}", secret.reveal()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        is_kept = true;
        folder::sync(&path).map_err(failed)
    };
    if make_first_admin(store, store, FIRST_ADMIN, FIRST_TOKEN, keep).await? {
        output::note(format_args!(
            "the token of the first admin, {FIRST_ADMIN}, is in {}; remove the file once you have it",
            path.display()
        ));
    } else if is_kept {
        // Another appliance of this database was faster, and has the one that is good.
        std::fs::remove_file(&path).map_err(failed)?;
    }
    Ok(())
}
