//! A server that is killed in the middle of commits: what was acknowledged is there, and nothing is half there (L15).
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use oma_core::conformance;
use oma_core::record::{
    JobEnd, JobSpec, LogEvent, LogFilter, Page, PageStart, SourceDisk, SourceIdentity, SourceVm,
};
use oma_core::state::{LogLevel, ReplicationType};
use oma_core::traits::{Inventory, JobStore, LogStore};
use oma_core::{
    ByteSize, Clock, DiskKey, Endpoint, Error, ErrorKind, InstanceUuid, JobId, Result, Retry, SystemClock,
    VmPath, WorkerId,
};
use oma_store::servers::{Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};

/// How often a server is killed.
const ROUNDS: usize = 4;
const WRITERS: usize = 6;
/// Events of one batch.
const BATCH: usize = 5;

fn main() -> ExitCode {
    let trial = |engine: &ServerEngine| {
        let engine = *engine;
        let name = format!("{engine}::l15_a_killed_server_has_every_acknowledged_commit_and_no_half_one");
        conformance::trial(&name, &[engine.private_required()], move || killed(engine))
    };
    conformance::run(ServerEngine::ALL.iter().map(trial).collect())
}

/// What a writer was told that is done, of one VM after another.
#[derive(Debug, Default)]
struct Told {
    inserted: Vec<JobId>,
    logged: Vec<JobId>,
    ended: Vec<JobId>,
}

async fn killed(engine: ServerEngine) {
    let options = ServerOptions { durable: true, ..ServerOptions::default() };
    let server = Server::start(engine, options).await.unwrap();
    let database = server.create_database().await.unwrap();
    let config = StoreConfig { url: database.url(), connections: 8, ..StoreConfig::default() };
    // One store for all rounds: it finds the server again.
    let store = SqlStore::open(&config).await.unwrap();
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move { write(&store, round * WRITERS + writer, &stop).await })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(700 + 130 * u64::try_from(round).unwrap())).await;
        server.kill().await.unwrap();
        stop.store(true, Ordering::Relaxed);
        told.extend(join_all(writers).await.into_iter().map(|told| told.unwrap()));
        server.restart().await.unwrap();
        verify(&store, &told).await;
    }
    let inserted: usize = told.iter().map(|told| told.inserted.len()).sum();
    assert!(inserted > ROUNDS * WRITERS, "{inserted} jobs are too few to have been in the middle of any");
    store.close().await;
}

async fn write(store: &SqlStore, writer: usize, stop: &AtomicBool) -> Told {
    let mut told = Told::default();
    for number in 0.. {
        let done = one(store, &format!("vm-{writer}-{number}"), &mut told).await;
        if let Err(error) = done {
            away(&error);
            return told;
        }
        if stop.load(Ordering::Relaxed) {
            return told;
        }
    }
    told
}

/// A server that is gone is told as such, and that to come back later can help.
fn away(error: &Error) {
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later), "{}", error.chain());
}

async fn one(store: &SqlStore, name: &str, told: &mut Told) -> Result<()> {
    let vm = store.record(&vm(name)).await?;
    let id = JobId::mint(SystemClock.now());
    store.insert(JobSpec::new(id.clone(), vm.id, ReplicationType::Initial, vec![key()])).await?;
    told.inserted.push(id.clone());
    let event = LogEvent {
        job: Some(id.clone()),
        step: None,
        level: LogLevel::Info,
        message: name.to_owned(),
        attrs: None,
        at: SystemClock.now(),
    };
    store.append(&vec![event; BATCH]).await?;
    told.logged.push(id.clone());
    let lease = store.claim(&id, &WorkerId::parse("one").unwrap(), Duration::from_secs(60)).await?;
    store.end(&lease, JobEnd::Failed("enough".to_owned())).await?;
    told.ended.push(id);
    Ok(())
}

async fn verify(store: &SqlStore, told: &[Told]) {
    for id in told.iter().flat_map(|told| &told.inserted) {
        let job = found(store, id).await;
        assert!(job.is_some(), "{id} was acknowledged and is gone");
    }
    for id in told.iter().flat_map(|told| &told.ended) {
        let job = found(store, id).await.unwrap();
        assert!(job.status.is_terminal(), "the end of {id} was acknowledged and is gone");
    }
    for told in told {
        for id in &told.inserted {
            let filter = LogFilter { job: Some(id.clone()), step: None, least: None };
            let page = Page { start: PageStart::Oldest, limit: 100 };
            let events = store.events(&filter, &page).await.unwrap().len();
            let whole =
                if told.logged.contains(id) { events == BATCH } else { events == 0 || events == BATCH };
            assert!(whole, "{events} events of a batch of {BATCH}");
        }
    }
    // Every rule about what belongs together: job, disks and VM are written in one transaction.
    let findings = store.check().await.unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

/// A connection that was cut is seen once by whoever has it.
async fn found(store: &SqlStore, id: &JobId) -> Option<oma_core::record::ReplicationJob> {
    for _ in 0..=WRITERS + 2 {
        match store.get(id).await {
            Ok(job) => return job,
            Err(error) => away(&error),
        }
    }
    panic!("the store does not find its server again")
}

fn vm(name: &str) -> SourceVm {
    let path = VmPath::parse(format!("/DC/vm/{name}")).unwrap();
    let identity = SourceIdentity {
        instance_uuid: InstanceUuid::from_path(&path),
        endpoint: Endpoint::parse("vcenter.example").unwrap(),
    };
    let disk = SourceDisk {
        key: key(),
        label: String::new(),
        location: String::new(),
        capacity: ByteSize::mib(1),
        unit_number: None,
    };
    SourceVm { identity, name: name.to_owned(), path, disks: vec![disk] }
}

fn key() -> DiskKey {
    DiskKey::parse("disk-2000").unwrap()
}
