//! The daemon: store, backend and service are opened and wired to the routes.

use std::sync::Arc;

use oma_api::server::{Api, Figures, Readiness, TlsIdentity, TokenFile, VolumeRoutes};
use oma_core::engine::{
    CancellationToken, ReconcileServices, Reconciler, VolumeService, VolumeServices, VolumesConfig,
};
use oma_core::memory::{MemoryBackend, MemoryStore};
use oma_core::traits::{Inventory, RecoveryPoints};
use oma_core::{Error, ErrorKind, InstanceId, Result, WorkerId};
use oma_examples::daemon::{Content, Doors, Given, Ground, Identities, token};
use oma_examples::data_dir::DataDir;
use oma_examples::output;
use oma_examples::signals::Signals;

use crate::args::Cli;

const STOPPING: &str = "stopping; answers under way are finished (once more: end at once)";

/// Serves until a signal.
pub(crate) async fn run(cli: &Cli, given: Option<Given>) -> Result<()> {
    let signals = Signals::listen_but_for_hang_ups(STOPPING)?;
    let stop = signals.stop();
    let data = DataDir::new(&cli.data_dir)?;
    let lock = data.lock_for_daemon()?;
    let identities = Identities::open(&data, &cli.doors, &cli.nbd, None).await?;
    let (database, nbd_tls) = (cli.database.as_deref(), identities.nbd.clone());
    let mut ground = Ground::open((&data, lock), database, &cli.backend, &cli.nbd, nbd_tls).await?;
    let store = ground.store.clone();
    let services =
        VolumeServices { jobs: store.clone(), volumes: store.clone(), backend: ground.backend.clone() };
    let config = VolumesConfig { grace: cli.grace, ..VolumesConfig::default() };
    let service = VolumeService::new(services, ground.worker.clone(), config);
    let api = api(service.clone(), store.clone(), store.clone(), ground.machine.clone(), stop);
    let api = ground.routes(api, None).await?.audited(store);
    let (begin, beside) = (std::future::ready(Ok(())), std::future::ready(()));
    let served = match open_doors(cli, &data, identities.doors.clone(), given).await {
        Ok(doors) => ground.serve(&api, doors, &service, begin, beside, stop).await,
        Err(error) => Err(error),
    };
    ground.close(&service).await;
    served
}

async fn open_doors(
    cli: &Cli,
    data: &DataDir,
    tls: Option<TlsIdentity>,
    given: Option<Given>,
) -> Result<Doors> {
    let known = Arc::new(match cli.doors.asks_for_tokens() {
        true => token::known("volumed", data).await?,
        false => TokenFile::new(data.tokens()),
    });
    Doors::open("volumed", &cli.doors, data, known, tls, given).await
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
    let text = serde_json::to_string_pretty(&api.document());
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
