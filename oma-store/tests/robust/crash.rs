//! Servers, and processes that have an SQLite file open, killed in the middle of commits.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use oma_core::conformance::{self, Trial};
use oma_store::servers::{Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};
use tokio::sync::RwLock;

use crate::place::{Kind, Place};
use crate::writer::{self, Told};

/// The URL of a file that a child of ours writes to until it is killed.
pub(crate) const CHILD: &str = "OMA_TEST_CRASH";
const NAME: &str = "OMA_TEST_CRASH_NAME";

const WRITERS: usize = 8;
const KILLS: usize = 4;
/// What the writers are told between two kills, at least.
const TOLD: usize = 100;

pub(crate) fn trials() -> Vec<Trial> {
    let servers = ServerEngine::ALL.iter().map(|engine| {
        let name = format!("{engine}::l15_writers_that_go_on_through_crashes_lose_nothing");
        conformance::trial(&name, &[engine.private_required()], move || server(*engine))
    });
    let file = "sqlite::l15_killed_processes_keep_every_commit_whole";
    servers.chain([conformance::trial(file, &[], file_of_processes)]).collect()
}

async fn server(engine: ServerEngine) {
    let options = ServerOptions { durable: true, ..ServerOptions::default() };
    let server = Server::start(engine, options).await.unwrap();
    let database = server.create_database().await.unwrap();
    let config = StoreConfig { url: database.url(), connections: 8, ..StoreConfig::default() };
    let store =
        SqlStore::open(&StoreConfig { busy_timeout: Duration::from_secs(2), ..config }).await.unwrap();
    let (all, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let gate = Arc::new(RwLock::new(()));
    let writers = (0..WRITERS).map(|number| {
        let (store, gate, all, over) = (store.clone(), gate.clone(), all.clone(), over.clone());
        tokio::spawn(async move {
            for vm in 0.. {
                let tell = |told| all.lock().unwrap().push(told);
                writer::write(&store, &gate, &format!("{number}-{vm}"), tell).await;
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for kill in 1..=KILLS {
        while all.lock().unwrap().len() < kill * TOLD {
            assert!(!writers.iter().any(tokio::task::JoinHandle::is_finished), "a writer gave up");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        server.kill().await.unwrap();
        let told = all.lock().unwrap().clone();
        server.restart().await.unwrap();
        // What is read in several calls must stay as it is meanwhile.
        let _closed = gate.write().await;
        // Another store: it finds what a process would that starts now.
        let fresh =
            SqlStore::open(&StoreConfig { url: database.url(), ..StoreConfig::default() }).await.unwrap();
        writer::verify(&fresh, &told).await;
        fresh.close().await;
    }
    over.store(true, Ordering::Relaxed);
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let told = all.lock().unwrap().clone();
    assert!(told.len() > KILLS * TOLD);
    // The store that was open all the time needs nobody's help.
    writer::verify(&store, &told).await;
}

async fn file_of_processes() {
    let place = Place::migrated(Kind::Sqlite).await;
    let mut all = Vec::new();
    for kill in 0..2 * KILLS {
        let mut children: Vec<_> = (0..2).map(|number| start(&place, &format!("{kill}-{number}"))).collect();
        let mut told = Vec::new();
        for (child, words) in &mut children {
            // Not after a commit, but somewhere behind it.
            told.extend(words.take(20 + 7 * kill).map(|line| line.unwrap().parse::<Told>().unwrap()));
            child.kill().unwrap();
            child.wait().unwrap();
            told.extend(words.map_while(|line| line.ok()?.parse::<Told>().ok()));
        }
        assert!(told.len() >= 2 * 20);
        all.append(&mut told);
        let store = place.open().await.unwrap();
        writer::verify(&store, &all).await;
        store.close().await;
    }
}

type Words = std::io::Lines<BufReader<std::process::ChildStdout>>;

fn start(place: &Place, name: &str) -> (std::process::Child, Words) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD, place.config().url).env(NAME, name);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let words = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, words)
}

pub(crate) fn child(url: String) {
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        std::process::exit(0);
    });
    let name = std::env::var(NAME).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqlStore::open(&StoreConfig { url, ..StoreConfig::default() }).await.unwrap();
        let say = |told: Told| std::io::stdout().write_all(format!("{told}\n").as_bytes()).unwrap();
        let writers = (0..WRITERS).map(|number| {
            let (store, name) = (&store, &name);
            async move {
                for vm in 0.. {
                    writer::write(store, &RwLock::new(()), &format!("{name}-{number}-{vm}"), say).await;
                }
            }
        });
        join_all(writers).await;
    });
}
