//! Whatever is done with the queue and the logs, in whatever order: every engine answers what the store in memory answers,
//! and holds what that holds.
//!
//! Each engine gets a quarter of the sequences that `OMA_TEST_SEQUENCES` says: `memory` has the whole number.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

#[path = "../automation/mod.rs"]
mod automation;
mod step;
mod world;

use std::any::Any;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use automation::{automation, execute};
use oma_core::conformance::{self, Requirement, Trial};
use oma_core::memory::{ManualClock, MemoryStore};
use oma_core::{AutomationJobId, Timestamp};
use oma_store::servers::{Server, ServerEngine};
use oma_store::{SqlStore, StoreConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use step::{Step, steps};
use world::{RUNS, World};

/// How many without being told.
const SEQUENCES: u32 = 24;
/// How many one test runs at most: each has a time limit.
const AT_ONCE: u32 = 100;
/// How many steps are done between two looks at everything that the stores hold.
const STRIDE: usize = 20;

/// What refers to a row goes before it; a VM takes its jobs, disks and journals along.
const EMPTY: &str = "DELETE FROM vm_replication_contexts; DELETE FROM log_events; DELETE FROM job_logs";

fn main() -> ExitCode {
    let asked = std::env::var("OMA_TEST_SEQUENCES");
    let quarter = |asked: String| asked.parse::<u32>().expect("OMA_TEST_SEQUENCES is a number").div_ceil(4);
    let sequences = asked.map_or(SEQUENCES, quarter);
    let engines = [None].into_iter().chain(ServerEngine::ALL.iter().copied().map(Some));
    conformance::run(engines.flat_map(|engine| trials(engine, sequences)).collect())
}

fn trials(engine: Option<ServerEngine>, sequences: u32) -> impl Iterator<Item = Trial> {
    let required = engine.map_or(Requirement::Feature("sqlite", true), ServerEngine::required);
    let engine_name = engine.map_or("sqlite", ServerEngine::name);
    let parts = sequences.div_ceil(AT_ONCE).max(2);
    (0..parts).map(move |part| {
        let share = (sequences + part) / parts;
        let name = format!("{engine_name}_and_memory_are_one::{share}_sequences_{part}");
        conformance::trial(&name, &[required], move || run(engine, share))
    })
}

/// On a thread of its own with a runtime of its own: nothing wakes another thread up.
async fn run(engine: Option<ServerEngine>, sequences: u32) {
    let done = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bench = runtime.block_on(Bench::new(engine));
        let config = Config {
            cases: sequences,
            failure_persistence: None,
            max_shrink_time: 30_000,
            ..Config::default()
        };
        TestRunner::new(config).run(&steps(), |steps| runtime.block_on(bench.compare(&steps)))
    });
    if let Err(difference) = done.await.unwrap() {
        panic!("{difference}");
    }
}

/// A store that is emptied between sequences.
struct Bench {
    clock: Arc<ManualClock>,
    store: SqlStore,
    url: String,
    _guard: Box<dyn Any>,
}

impl Bench {
    async fn new(engine: Option<ServerEngine>) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_755_770_000_000)));
        let (url, guard): (_, Box<dyn Any>) = if let Some(engine) = engine {
            let database = Server::shared(engine).await.unwrap().create_database().await.unwrap();
            (database.url(), Box::new(database))
        } else {
            let folder = tempfile::tempdir().unwrap();
            (format!("sqlite://{}", folder.path().join("oma.db").display()), Box::new(folder))
        };
        let config = StoreConfig { url: url.clone(), connections: 2, ..StoreConfig::default() };
        let store = SqlStore::open(&config).await.unwrap().with_clock(clock.clone());
        for run in RUNS {
            automation(url.clone())(AutomationJobId::parse(run).unwrap()).await;
        }
        Self { clock, store, url, _guard: guard }
    }

    async fn compare(&self, steps: &[Step]) -> TestCaseResult {
        execute(&self.url, EMPTY).await;
        let memory = MemoryStore::new(self.clock.clone());
        for run in RUNS {
            memory.add_automation_job(AutomationJobId::parse(run).unwrap());
        }
        let mut sql = World::new(self.store.clone(), self.clock.clone());
        let mut memory = World::new(memory, self.clock.clone());
        for (at, step) in steps.iter().enumerate() {
            let pause = if let Step::Sleep(seconds) = step { seconds * 1000 } else { 1 };
            self.clock.advance(Duration::from_millis(pause));
            let (expected, answer) = (memory.apply(step).await, sql.apply(step).await);
            prop_assert_eq!(&answer, &expected, "step {}: {:?}", at, step);
            if (at + 1).is_multiple_of(STRIDE) || at + 1 == steps.len() {
                let (expected, state) = (memory.state().await, sql.state().await);
                prop_assert_eq!(&state, &expected, "after step {}: {:?}", at, step);
            }
        }
        Ok(())
    }
}
