//! A server whose disk is full: what does not fit is refused whole, and what was there stays.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use oma_core::conformance::{self, Requirement};
use oma_core::record::{LogEvent, LogFilter, Page, PageStart};
use oma_core::state::LogLevel;
use oma_core::traits::LogStore;
use oma_core::{Clock, ErrorKind, Retry, SystemClock};
use oma_store::servers::{Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};

fn main() -> ExitCode {
    let superuser = Path::new("/proc/self").metadata().is_ok_and(|process| process.uid() == 0);
    let mount = Requirement::Feature("the right to mount a small disk", superuser);
    let mariadb = [ServerEngine::MariaDb.private_required()];
    let postgres = [ServerEngine::Postgres.private_required(), mount];
    conformance::run(vec![
        conformance::trial("mariadb::a_full_disk_is_no_space_and_nothing_is_half_written", &mariadb, mysql),
        conformance::trial("postgres::a_full_disk_is_no_space_and_nothing_is_half_written", &postgres, pg),
    ])
}

/// Events of one batch; what they say takes a MiB.
fn batch() -> Vec<LogEvent> {
    let message = "x".repeat(64 << 10);
    let event = LogEvent {
        job: None,
        step: None,
        level: LogLevel::Info,
        message,
        attrs: None,
        at: SystemClock.now(),
    };
    vec![event; 16]
}

async fn count(store: &SqlStore) -> usize {
    let page = Page { start: PageStart::Oldest, limit: 1000 };
    store.events(&LogFilter::default(), &page).await.unwrap().len()
}

/// Writes until the disk is full; answers how many batches went.
async fn fill(store: &SqlStore) -> usize {
    for written in 0..60 {
        if let Err(error) = store.append(&batch()).await {
            assert_eq!(
                (error.kind(), error.retry()),
                (ErrorKind::NoSpace, Retry::Never),
                "{}",
                error.chain()
            );
            assert_eq!(count(store).await, written * batch().len(), "whole batches");
            return written;
        }
    }
    panic!("60 MiB went to a disk of less");
}

/// The system's own space is all that there is, and has an end.
async fn mysql() {
    let arguments = ["--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M:autoextend:max:40M"];
    let arguments = arguments.map(str::to_owned).to_vec();
    let options = ServerOptions { arguments, ..ServerOptions::default() };
    let server = Server::start(ServerEngine::MariaDb, options).await.unwrap();
    let database = server.create_database().await.unwrap();
    let config = StoreConfig { url: database.url(), ..StoreConfig::default() };
    let store = SqlStore::open(&config).await.unwrap();
    let written = fill(&store).await;
    assert!(written > 3, "{written} batches");
    store.close().await;
    // Also for the server's own recovery.
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    let store = SqlStore::open_read_only(&config).await.unwrap();
    assert_eq!(count(&store).await, written * batch().len());
    store.close().await;
}

/// The database lies on a disk of its own.
async fn pg() {
    let disk = Disk::mount(40);
    let server = Server::start(ServerEngine::Postgres, ServerOptions::default()).await.unwrap();
    let place = format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.path().display());
    server.execute("postgres", &place).await.unwrap();
    server.execute("postgres", "CREATE DATABASE oma TABLESPACE small").await.unwrap();
    let config = StoreConfig { url: server.url("oma"), ..StoreConfig::default() };
    let store = SqlStore::open(&config).await.unwrap();
    // The server would store a repeated letter in a few bytes.
    server
        .execute("oma", "ALTER TABLE log_events_rest ALTER COLUMN message SET STORAGE EXTERNAL")
        .await
        .unwrap();
    let partitions = "DO $$ DECLARE part regclass; BEGIN FOR part IN SELECT inhrelid FROM pg_inherits \
        WHERE inhparent = 'log_events'::regclass LOOP \
        EXECUTE format('ALTER TABLE %s ALTER COLUMN message SET STORAGE EXTERNAL', part); END LOOP; END $$";
    server.execute("oma", partitions).await.unwrap();
    let written = fill(&store).await;
    assert!(written > 3, "{written} batches");
    disk.resize(120);
    store.append(&batch()).await.unwrap();
    assert_eq!(count(&store).await, (written + 1) * 16);
    store.close().await;
    server.stop().await.unwrap();
}

/// A small disk in memory.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(mebibytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={mebibytes}m,mode=0777"))
            .arg("tmpfs")
            .arg(folder.path()));
        // A tablespace must be the server's.
        std::os::unix::fs::chown(folder.path(), Some(65534), None).unwrap();
        Self(folder)
    }

    fn resize(&self, mebibytes: u32) {
        run(Command::new("mount").arg("-o").arg(format!("remount,size={mebibytes}m")).arg(self.0.path()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.0.path()));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
