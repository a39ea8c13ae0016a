//! The promises of all store traits, on every engine.
#![allow(clippy::unwrap_used, reason = "a subject that cannot be made is a failed test")]

mod automation;
mod failover;
#[cfg(feature = "servers")]
mod place;

use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use automation::automation;
use failover::failover;
use oma_core::conformance::{self, AddAutomationJob, AddFailover, StoreSubject, Trial};
use oma_core::memory::ManualClock;
use oma_core::{ErrorKind, Timestamp};
use oma_store::{SqlStore, StoreConfig};
use tempfile::TempDir;

fn main() -> ExitCode {
    if let Some(folder) = std::env::var_os(CHILD) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(open_protected(Path::new(&folder)));
        return ExitCode::SUCCESS;
    }
    let mut trials = stores();
    trials.push(read_only_file());
    #[cfg(feature = "servers")]
    trials.extend(servers());
    conformance::run(trials)
}

fn config(folder: &TempDir) -> StoreConfig {
    let url = format!("sqlite://{}", folder.path().join("oma.db").display());
    StoreConfig { url, ..StoreConfig::default() }
}

/// What no trait makes, in the database that a URL names.
fn beside(url: &str) -> (AddAutomationJob, AddFailover) {
    (automation(url.to_owned()), failover(url.to_owned()))
}

fn stores() -> Vec<Trial> {
    conformance::cases("sqlite_store", &conformance::store_cases(), async || {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let store = SqlStore::open(&config).await.unwrap().with_clock(clock.clone());
        StoreSubject::new(Arc::new(store), beside(&config.url), clock, Box::new(folder))
    })
}

/// The same cases, none left out, each in a database of its own.
#[cfg(feature = "servers")]
fn servers() -> Vec<Trial> {
    let of = |engine: oma_store::servers::ServerEngine| {
        let (name, needs, cases) =
            (format!("{engine}_store"), [engine.required()], conformance::store_cases());
        conformance::cases_needing(&name, &needs, &cases, move || async move {
            let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
            let place = place::Place::migrated(place::Kind::Server(engine)).await;
            let store = Arc::new(place.open().await.unwrap().with_clock(clock.clone()));
            StoreSubject::new(store, beside(&place.config().url), clock, Box::new(place))
        })
    };
    oma_store::servers::ServerEngine::ALL.iter().flat_map(|engine| of(*engine)).collect()
}

/// The folder in which a child of ours, as a user who is not the superuser, puts a protected file to the test.
const CHILD: &str = "OMA_TEST_PROTECTED";
/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// The superuser writes to every file, so it takes another user: a child, when the tests run as the superuser.
fn read_only_file() -> Trial {
    let name = "sqlite_file::one_that_may_not_be_written_is_permission_denied";
    conformance::trial(name, &[], || async {
        let folder = tempfile::tempdir().unwrap();
        let probe = tempfile::NamedTempFile::new().unwrap();
        protect(probe.path());
        if File::options().append(true).open(probe.path()).is_err() {
            return open_protected(folder.path()).await;
        }
        let program = folder.path().join("conformance");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        for path in [folder.path(), &program] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let child = Command::new(program).uid(NOBODY).gid(NOBODY).env(CHILD, folder.path()).output().unwrap();
        assert!(child.status.success(), "{child:?}");
    })
}

async fn open_protected(folder: &Path) {
    let url = format!("sqlite://{}", folder.join("oma.db").display());
    let config = StoreConfig { url, ..StoreConfig::default() };
    SqlStore::open(&config).await.unwrap().close().await;
    protect(&folder.join("oma.db"));
    let error = SqlStore::open(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
    SqlStore::open_read_only(&config).await.unwrap();
}

fn protect(file: &Path) {
    let mut rights = std::fs::metadata(file).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(file, rights).unwrap();
}
