//! What can be done with the queue and the logs, over so few names that most of it hits something.

use oma_core::state::{LineStream, LogLevel};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// One call of a store. Numbers name VMs, jobs, workers, runs and leases of a [`World`](super::world::World).
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Insert {
        vm: usize,
        priority: i32,
        target: Option<usize>,
    },
    Next {
        worker: usize,
        limits: [Option<u32>; 3],
        attempts: u32,
    },
    Claim {
        job: usize,
        worker: usize,
    },
    Renew(usize),
    Release(usize),
    Defer {
        lease: usize,
        attempts: u32,
    },
    End {
        lease: usize,
        failed: bool,
    },
    Sync {
        lease: usize,
        bytes: u64,
    },
    /// Seconds.
    Sleep(u64),
    Append(Vec<Event>),
    Events {
        job: Option<usize>,
        least: Option<LogLevel>,
        forward: bool,
        from: Option<usize>,
        limit: u32,
    },
    AppendLines {
        run: usize,
        lines: Vec<Line>,
    },
    Lines {
        run: usize,
        after: u64,
        limit: u32,
    },
    /// Older than so many seconds; keep so many.
    Prune {
        age: Option<u64>,
        keep: Option<u64>,
    },
    /// Ended in so many seconds.
    Summary {
        age: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) job: Option<usize>,
    pub(crate) level: LogLevel,
    pub(crate) message: String,
    pub(crate) attrs: bool,
    /// Seconds.
    pub(crate) age: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) stream: LineStream,
    pub(crate) text: usize,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(prop_oneof![6 => queue(), 4 => leases(), 3 => logs(), 1 => looks()], 20..80)
}

fn queue() -> impl Strategy<Value = Step> {
    let limit = || option::of(0..3_u32);
    let insert = (0..9_usize, select(&[-1, 0, 0, 0, 1][..]), option::of(0..2_usize));
    prop_oneof![
        2 => insert.prop_map(|(vm, priority, target)| Step::Insert { vm, priority, target }),
        3 => (0..3_usize, [limit(), limit(), limit()], 1..4_u32)
            .prop_map(|(worker, limits, attempts)| Step::Next { worker, limits, attempts }),
        1 => (0..3_usize, 2..4_u32)
            .prop_map(|(worker, attempts)| Step::Next { worker, limits: [None; 3], attempts }),
        1 => (0..12_usize, 0..3_usize).prop_map(|(job, worker)| Step::Claim { job, worker }),
    ]
}

fn leases() -> impl Strategy<Value = Step> {
    let lease = || 0..5_usize;
    prop_oneof![
        lease().prop_map(Step::Renew),
        lease().prop_map(Step::Release),
        (lease(), 1..4_u32).prop_map(|(lease, attempts)| Step::Defer { lease, attempts }),
        (lease(), any::<bool>()).prop_map(|(lease, failed)| Step::End { lease, failed }),
        (lease(), 0..1000_u64).prop_map(|(lease, bytes)| Step::Sync { lease, bytes }),
        select(&[1, 5, 15, 31, 90][..]).prop_map(Step::Sleep),
    ]
}

fn logs() -> impl Strategy<Value = Step> {
    let level = || select(LogLevel::ALL);
    let message = prop_oneof!["[a-z]{0,9}", "\\PC{0,20}", Just("a\0b".to_owned())];
    let event = (option::of(0..12_usize), level(), message, any::<bool>(), 0..40_u64)
        .prop_map(|(job, level, message, attrs, age)| Event { job, level, message, attrs, age });
    let line = (0..9_u64, select(LineStream::ALL), 0..2_usize).prop_map(|(number, stream, text)| Line {
        number,
        stream,
        text,
    });
    prop_oneof![
        3 => vec(event, 0..25).prop_map(Step::Append),
        2 => (0..3_usize, vec(line, 0..5)).prop_map(|(run, lines)| Step::AppendLines { run, lines }),
    ]
}

fn looks() -> impl Strategy<Value = Step> {
    let events = (
        option::of(0..12_usize),
        option::of(select(LogLevel::ALL)),
        any::<bool>(),
        option::of(0..30_usize),
        0..15_u32,
    );
    prop_oneof![
        3 => events.prop_map(|(job, least, forward, from, limit)| {
            Step::Events { job, least, forward, from, limit }
        }),
        1 => (0..3_usize, 0..9_u64, 0..9_u32).prop_map(|(run, after, limit)| Step::Lines { run, after, limit }),
        2 => (option::of(0..60_u64), option::of(0..30_u64)).prop_map(|(age, keep)| Step::Prune { age, keep }),
        1 => (0..90_u64).prop_map(|age| Step::Summary { age }),
    ]
}
