//! Whatever is done, in whatever order: SQLite answers what the store in memory answers, and holds what that holds.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod step;
mod world;

use std::sync::Arc;

use oma_core::Timestamp;
use oma_core::memory::{ManualClock, MemoryStore};
use oma_store::{SqlStore, StoreConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult};

use step::{Step, steps};
use world::World;

proptest! {
    #![proptest_config(Config { cases: 6, failure_persistence: None, ..Config::default() })]

    #[test]
    fn sqlite_and_memory_are_one(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(&steps))?;
    }
}

async fn compare(steps: &[Step]) -> TestCaseResult {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_755_770_000_000)));
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oma.db").display());
    let config = StoreConfig { url, connections: 1, ..StoreConfig::default() };
    let mut sql = World::new(SqlStore::open(&config).await.unwrap().with_clock(clock.clone()));
    let mut memory = World::new(MemoryStore::new(clock.clone()));
    for (at, step) in steps.iter().enumerate() {
        // Two things never happen at one time: the order of lists is the order of time.
        clock.advance(std::time::Duration::from_millis(step.pause()));
        let (expected, answer) = (memory.apply(step).await, sql.apply(step).await);
        prop_assert_eq!(&answer, &expected, "step {}: {:?}", at, step);
        if at % 5 == 0 || at + 1 == steps.len() {
            let (expected, state) = (memory.state().await, sql.state().await);
            prop_assert_eq!(&state, &expected, "after step {}: {:?}", at, step);
        }
    }
    sql.store.close().await;
    Ok(())
}
