//! Whatever is done, in whatever order: every engine answers what the store in memory answers, and holds what that holds.
//!
//! `OMA_TEST_SEQUENCES` says how many sequences each engine gets.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

#[path = "../place/mod.rs"]
mod place;
mod points;
mod step;
mod world;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oma_core::Timestamp;
use oma_core::conformance::{self, Trial};
use oma_core::memory::{ManualClock, MemoryStore};
use oma_store::{SqlStore, StoreConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

use place::{Hand, Kind, Place};
use step::{Step, steps};
use world::World;

/// How many without being told.
const SEQUENCES: u32 = 24;
/// How many one test runs at most: each has a time limit.
const AT_ONCE: u32 = 125;
/// How many steps are done between two looks at everything that the stores hold.
const STRIDE: usize = 30;

/// What refers to a row goes before it; a VM takes its jobs, disks, history and journals along.
const TABLES: [&str; 6] = [
    "recovery_points",
    "device_mappings",
    "volume_operations",
    "ossea_volumes",
    "vm_replication_contexts",
    "log_events",
];

fn main() -> ExitCode {
    let asked = std::env::var("OMA_TEST_SEQUENCES");
    let sequences = asked.map_or(SEQUENCES, |asked| asked.parse().expect("OMA_TEST_SEQUENCES is a number"));
    conformance::run(Kind::ALL.iter().flat_map(|kind| trials(*kind, sequences)).collect())
}

fn trials(kind: Kind, sequences: u32) -> impl Iterator<Item = Trial> {
    // At least two, for two processors.
    let parts = sequences.div_ceil(AT_ONCE).max(2);
    (0..parts).map(move |part| {
        let share = (sequences + part) / parts;
        let name = format!("{kind}_and_memory_are_one::{share}_sequences_{part}");
        conformance::trial(&name, &[kind.required()], move || run(kind, share))
    })
}

/// On a thread of its own with a runtime of its own: nothing wakes another thread up.
async fn run(kind: Kind, sequences: u32) {
    let done = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bench = runtime.block_on(Bench::new(kind));
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
    hand: Mutex<Option<Hand>>,
    _place: Place,
}

impl Bench {
    async fn new(kind: Kind) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_755_770_000_000)));
        let place = Place::migrated(kind).await;
        let config = StoreConfig { connections: 1, ..place.config() };
        let store = SqlStore::open(&config).await.unwrap().with_clock(clock.clone());
        let hand = place.hand().await;
        Self { clock, store, hand: Mutex::new(Some(hand)), _place: place }
    }

    async fn compare(&self, steps: &[Step]) -> TestCaseResult {
        self.empty().await;
        let mut sql = World::new(self.store.clone());
        let mut memory = World::new(MemoryStore::new(self.clock.clone()));
        for (at, step) in steps.iter().enumerate() {
            // Two things never happen at one time: the order of lists is the order of time.
            self.clock.advance(Duration::from_millis(step.pause()));
            let (expected, answer) = (memory.apply(step).await, sql.apply(step).await);
            prop_assert_eq!(&answer, &expected, "step {}: {:?}", at, step);
            if (at + 1).is_multiple_of(STRIDE) || at + 1 == steps.len() {
                let (expected, state) = (memory.state().await, sql.state().await);
                prop_assert_eq!(&state, &expected, "after step {}: {:?}", at, step);
            }
        }
        Ok(())
    }

    async fn empty(&self) {
        let mut hand = self.hand.lock().unwrap().take().expect("one sequence at a time");
        hand.execute(&TABLES.map(|table| format!("DELETE FROM {table};")).concat()).await.unwrap();
        *self.hand.lock().unwrap() = Some(hand);
    }
}
