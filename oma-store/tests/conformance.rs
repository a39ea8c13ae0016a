//! The promises of all store traits, on SQLite.
#![allow(clippy::unwrap_used, reason = "a subject that cannot be made is a failed test")]

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use oma_core::conformance::{self, Requirement, StoreSubject, Trial};
use oma_core::memory::ManualClock;
use oma_core::{ErrorKind, SystemClock, Timestamp};
use oma_store::{SqlStore, StoreConfig};
use tempfile::TempDir;

fn main() -> ExitCode {
    let mut trials = stores();
    trials.push(read_only_file());
    conformance::run(trials)
}

fn config(folder: &TempDir) -> StoreConfig {
    let url = format!("sqlite://{}", folder.path().join("oma.db").display());
    StoreConfig { url, ..StoreConfig::default() }
}

fn stores() -> Vec<Trial> {
    conformance::cases("sqlite_store", &conformance::store_cases(), async || {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let folder = tempfile::tempdir().unwrap();
        let store = SqlStore::open(&config(&folder), clock.clone()).await.unwrap();
        StoreSubject::new(Arc::new(store), clock, Box::new(folder))
    })
}

/// The superuser writes to every file, so it takes another user.
fn read_only_file() -> Trial {
    let probe = tempfile::NamedTempFile::new().unwrap();
    protect(probe.path());
    let refused = File::options().append(true).open(probe.path()).is_err();
    let needs = [Requirement::Feature("a user without privileges", refused)];
    conformance::trial("sqlite_file::one_that_may_not_be_written_is_permission_denied", &needs, || async {
        let folder = tempfile::tempdir().unwrap();
        SqlStore::open(&config(&folder), Arc::new(SystemClock)).await.unwrap().close().await;
        protect(&folder.path().join("oma.db"));
        let error = SqlStore::open(&config(&folder), Arc::new(SystemClock)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
        SqlStore::open_read_only(&config(&folder), Arc::new(SystemClock)).await.unwrap();
    })
}

fn protect(file: &Path) {
    let mut rights = std::fs::metadata(file).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(file, rights).unwrap();
}
