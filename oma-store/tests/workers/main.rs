//! Eight workers, each a process with a clock of its own, and 5,000 jobs. Workers are killed at random, and yet each job is
//! done once, and no token is given out twice.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

#[path = "../place/mod.rs"]
mod place;
mod queue;
mod witness;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use oma_core::conformance::{self, Requirement, Trial};

use place::{Kind, Place};
use witness::Witness;
use worker::Worker;

const JOBS: usize = 5_000;
/// After how many jobs done a worker is killed.
const KILL_EVERY: usize = 100;
/// How much each worker's clock is off, in seconds.
const SKEWS: [i32; 8] = [0, 60, -60, 180, -240, 420, -420, 540];

fn main() -> ExitCode {
    if let Some(url) = std::env::var_os(worker::CHILD) {
        worker::work(url.to_str().unwrap());
        return ExitCode::SUCCESS;
    }
    conformance::run(Kind::ALL.iter().map(|kind| trial(*kind)).collect())
}

fn trial(kind: Kind) -> Trial {
    let name = format!("{kind}::l16_each_job_is_done_once_whoever_is_killed_and_whatever_clocks_say");
    conformance::trial(&name, &[kind.required(), Requirement::Program("faketime")], move || each_once(kind))
}

async fn each_once(kind: Kind) {
    let place = Place::migrated(kind).await;
    queue::fill(&place, JOBS).await;
    let store = place.open().await.unwrap();
    assert_eq!(store.check().await.unwrap(), []);

    let (heard, words) = std::sync::mpsc::channel();
    let start = |slot: usize| Worker::start(&place.config().url, slot, SKEWS[slot], &heard);
    let mut workers: Vec<_> = (0..SKEWS.len()).map(start).collect();
    let mut witness = Witness::default();
    let mut next_kill = KILL_EVERY;
    while !queue::is_done(&store).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(workers.iter_mut().all(Worker::is_there), "a worker ended by itself");
        words.try_iter().for_each(|word| witness.hear(word));
        if witness.done() >= next_kill {
            next_kill += KILL_EVERY;
            // Any of them: which one has just had its turn is chance enough.
            let slot = witness.claims() % SKEWS.len();
            workers[slot].kill();
            workers[slot] = start(slot);
        }
    }
    let killed = next_kill / KILL_EVERY - 1;
    workers.iter_mut().for_each(Worker::kill);
    drop(heard);
    // A worker's words end with it.
    words.iter().for_each(|word| witness.hear(word));
    assert!(killed >= JOBS / KILL_EVERY / 2, "only {killed} were killed");
    witness.judge(&queue::ended(&store).await, killed + SKEWS.len());
    assert_eq!(store.check().await.unwrap(), []);
    store.close().await;
}
