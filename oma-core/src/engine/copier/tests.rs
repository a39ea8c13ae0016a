mod landed;
mod local;
mod share;
mod stopped;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;
use crate::Retry;
use crate::engine::config::RetryConfig;
use crate::engine::progress::Silent;
use crate::memory::{DeviceCall, Faults, FaultyDevice, MemoryDevice};
use crate::traits::Durability;

const CAPACITY: u64 = 3 << 20;

/// A journal that checks, at every entry, that what it is told is durable.
#[derive(Debug)]
struct CheckingJournal {
    source: MemoryDevice,
    target: MemoryDevice,
    finished: Mutex<ExtentSet>,
    entries: Mutex<Vec<u64>>,
    recorded: Notify,
}

impl CheckingJournal {
    /// Waits until so much is finished.
    async fn holds(&self, bytes: ByteSize) {
        loop {
            let recorded = self.recorded.notified();
            if self.finished.lock().unwrap().bytes() >= bytes {
                return;
            }
            recorded.await;
        }
    }
}

#[async_trait]
impl Recorder for CheckingJournal {
    async fn record(&self, finished: Extent, durable: ByteSize) -> Result<()> {
        let range = usize::try_from(finished.offset()).unwrap()..usize::try_from(finished.end()).unwrap();
        assert!(self.source.bytes()[range.clone()] == self.target.bytes()[range], "{finished} is not equal");
        let volatile = self.target.unflushed().within(finished);
        assert!(volatile.is_empty(), "{volatile:?} would be lost with the power");
        self.finished.lock().unwrap().insert(finished);
        self.entries.lock().unwrap().push(durable.bytes());
        self.recorded.notify_waiters();
        Ok(())
    }
}

struct World {
    source: MemoryDevice,
    target: MemoryDevice,
    faults: Faults,
    journal: CheckingJournal,
    config: ReplicateConfig,
    /// Until the first run begins; the engine marks the volume before its first write.
    blank: AtomicBool,
    stop: CancellationToken,
    way: Way,
}

/// How pieces go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Over the runtime.
    Relayed,
    /// From afar to a device of this machine, whose thread writes them.
    Landed,
    /// By a thread each between devices of this machine.
    Shuttled,
}

const WAYS: [Way; 3] = [Way::Relayed, Way::Landed, Way::Shuttled];

impl World {
    fn new(target: MemoryDevice, blank: bool) -> Self {
        let source = MemoryDevice::new("source", ByteSize::new(CAPACITY));
        let retry = RetryConfig { attempts: 1, ..RetryConfig::default() };
        Self {
            journal: CheckingJournal {
                source: source.clone(),
                target: target.clone(),
                finished: Mutex::default(),
                entries: Mutex::default(),
                recorded: Notify::new(),
            },
            source,
            target,
            faults: Faults::new(ErrorKind::Unavailable, Retry::Later),
            config: ReplicateConfig {
                piece: ByteSize::kib(64),
                journal_step: ByteSize::kib(512),
                retry,
                ..ReplicateConfig::default()
            },
            blank: AtomicBool::new(blank),
            stop: CancellationToken::new(),
            way: Way::Relayed,
        }
    }

    /// The same, whose pieces go that way.
    fn by(self, way: Way) -> Self {
        if way != Way::Relayed {
            self.faults.pass_in_place();
        }
        Self { way, ..self }
    }

    /// Copies what the journal does not have yet.
    async fn run(&self) -> (Result<()>, Counters) {
        self.with_copier(async |copier| {
            let mut counters = Counters::default();
            (copier.run(&mut counters).await, counters)
        })
        .await
    }

    async fn with_copier<T>(&self, act: impl AsyncFnOnce(&Copier<'_>) -> T) -> T {
        let whole: ExtentSet = Extent::between(0, CAPACITY).into_iter().collect();
        let work = whole.difference(&self.journal.finished.lock().unwrap());
        let resumed = ByteSize::new(CAPACITY - work.bytes().bytes());
        let copier = Copier {
            key: &DiskKey::parse("disk-2000").unwrap(),
            source: self.source(),
            target: self.device(self.target.clone()),
            capacity: ByteSize::new(CAPACITY),
            work: &work,
            resumed,
            blank: self.blank.swap(false, Ordering::SeqCst),
            zeroing: Zeroing::Punch,
            recorder: &self.journal,
            admission: &Admission::without_limits(self.config.memory),
            config: &self.config,
            progress: &Silent,
            stop: &self.stop,
        };
        act(&copier).await
    }

    fn source(&self) -> Arc<dyn BlockDevice> {
        let source = self.device(self.source.read_only());
        match self.way {
            Way::Relayed | Way::Shuttled => source,
            // It has no faults of its own, and is not used in place.
            Way::Landed => {
                Arc::new(FaultyDevice::new(source, Faults::new(ErrorKind::Unavailable, Retry::Never)))
            }
        }
    }

    fn device(&self, device: MemoryDevice) -> Arc<dyn BlockDevice> {
        Arc::new(FaultyDevice::new(Arc::new(device), self.faults.clone()))
    }

    async fn fill(&self, extents: &[(u64, u64)]) {
        for (offset, length) in extents {
            let data: Vec<u8> =
                (0..*length).map(|at| u8::try_from((offset + at) % 251).unwrap() + 1).collect();
            self.source.write_at(*offset, Bytes::from(data), Durability::Cached).await.unwrap();
        }
    }

    fn is_equal(&self) -> bool {
        self.source.bytes() == self.target.bytes()
    }
}

fn blank_target() -> MemoryDevice {
    MemoryDevice::new("target", ByteSize::new(CAPACITY))
}

async fn used_target() -> MemoryDevice {
    let target = blank_target();
    let old = Bytes::from(vec![0xee; usize::try_from(CAPACITY).unwrap()]);
    target.write_at(0, old, Durability::Durable).await.unwrap();
    target
}

#[tokio::test]
async fn a_target_of_large_blocks_gets_them_whole() {
    for (preferred, writes) in
        [(4 << 10, CAPACITY >> 16), (1 << 18, CAPACITY >> 18), (1 << 20, CAPACITY >> 19)]
    {
        let target = MemoryDevice::new("target", ByteSize::new(CAPACITY));
        let target = target.with_info(|info| info.block_sizes.preferred = preferred);
        let world = World::new(target, true);
        let data = vec![7; usize::try_from(CAPACITY).unwrap()];
        world.source.write_at(0, data.into(), Durability::Durable).await.unwrap();
        world.run().await.0.unwrap();
        assert!(world.source.bytes() == world.target.bytes());
        // A block is no larger than what may be copied twice after a crash.
        assert_eq!(world.target.calls().writes, writes, "blocks of {preferred}");
    }
}

#[tokio::test]
async fn a_full_copy_is_equal_and_holes_are_neither_read_nor_written() {
    let world = World::new(blank_target(), true);
    world.fill(&[(5, 100), (1 << 20, 300_000)]).await;
    let (result, counters) = world.run().await;
    result.unwrap();
    assert!(world.is_equal());
    assert!(counters.progress.read.bytes() < 600_000, "{counters:?}");
    assert_eq!(counters.progress.read, ByteSize::new(world.source.calls().bytes_read));
    assert_eq!(counters.progress.written, ByteSize::new(world.target.calls().bytes_written));
    assert_eq!(world.target.calls().zeroes, 0);
    assert_eq!(counters.progress.done.bytes(), CAPACITY);
    assert_eq!(counters.progress.durable.bytes(), CAPACITY);
}

#[tokio::test]
async fn l10_holes_of_the_source_are_zeroed_on_a_target_that_held_something() {
    let world = World::new(used_target().await, false);
    world.fill(&[(5, 100), (1 << 20, 300_000)]).await;
    world.run().await.0.unwrap();
    assert!(world.is_equal());
}

#[tokio::test]
async fn what_the_target_reads_as_zero_is_not_zeroed_again() {
    let target = blank_target();
    target.write_at(0, Bytes::from(vec![1; 1 << 20]), Durability::Durable).await.unwrap();
    let world = World::new(target, false);
    world.fill(&[(2 << 20, 1000)]).await;
    world.run().await.0.unwrap();
    assert!(world.is_equal());
    assert_eq!(world.target.calls().zeroes, 1, "one run of data was to be zeroed");
}

#[tokio::test]
async fn l10_a_source_that_is_not_believed_is_read_whole() {
    let mut world = World::new(blank_target(), true);
    world.config.trust_zeroes = false;
    let (result, counters) = world.run().await;
    result.unwrap();
    assert_eq!((counters.progress.read.bytes(), counters.zero_promised), (CAPACITY, ByteSize::ZERO));
}

#[tokio::test]
async fn a_budget_smaller_than_a_piece_slows_a_copy_and_does_not_stop_it() {
    let mut world = World::new(blank_target(), true);
    world.config.memory = ByteSize::kib(4);
    world.fill(&[(0, CAPACITY)]).await;
    world.run().await.0.unwrap();
    assert!(world.is_equal());
}

#[tokio::test]
async fn an_empty_source_still_flushes_and_records_the_whole_disk() {
    let world = World::new(blank_target(), true);
    world.run().await.0.unwrap();
    assert!(world.target.calls().flushes > 0);
    assert_eq!(world.journal.finished.lock().unwrap().bytes().bytes(), CAPACITY);
}

/// What it holds came by sharing, or by a run whose last entry was lost.
#[tokio::test]
async fn l08_a_disk_with_nothing_left_to_copy_is_flushed_before_it_counts() {
    let world = World::new(blank_target(), false);
    world.journal.finished.lock().unwrap().insert(Extent::new(0, CAPACITY).unwrap());
    world.target.write_at(0, Bytes::from(vec![0; 4096]), Durability::Cached).await.unwrap();
    world.run().await.0.unwrap();
    assert_eq!((world.target.calls().flushes, world.target.unflushed().is_empty()), (1, true));
}

#[tokio::test]
async fn at_most_one_journal_step_is_copied_twice() {
    for way in WAYS {
        let world = World::new(blank_target(), true).by(way);
        world.fill(&[(0, CAPACITY)]).await;
        world.faults.fail_from(DeviceCall::Read, 30);
        world.run().await.0.unwrap_err();
        let first = world.source.calls().bytes_read;
        let durable = world.journal.finished.lock().unwrap().bytes().bytes();
        assert!(first <= durable + world.config.journal_step.bytes(), "{first} read, {durable} durable");
        world.faults.clear();
        world.run().await.0.unwrap();
        let twice = world.source.calls().bytes_read - CAPACITY;
        assert!(twice <= world.config.journal_step.bytes(), "{twice} bytes were copied twice");
        assert!(world.is_equal());
    }
}

#[tokio::test]
async fn a_failed_flush_records_nothing() {
    for way in WAYS {
        let world = World::new(blank_target(), true).by(way);
        world.fill(&[(0, 100_000)]).await;
        world.faults.fail_nth(DeviceCall::Flush, 1);
        let error = world.run().await.0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(world.journal.finished.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn l11_a_source_that_ends_early_is_an_error() {
    for way in WAYS {
        let world = World::new(blank_target(), true).by(way);
        world.fill(&[(0, CAPACITY)]).await;
        world.source.cut(2 << 20);
        let error = world.run().await.0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(world.journal.finished.lock().unwrap().bytes().bytes() <= 2 << 20);
    }
}

fn call() -> impl Strategy<Value = DeviceCall> {
    prop_oneof![
        4 => Just(DeviceCall::Read),
        4 => Just(DeviceCall::Write),
        2 => Just(DeviceCall::Zero),
        1 => Just(DeviceCall::Flush),
        1 => Just(DeviceCall::Status),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Devices that can be used in place are copied by threads: with the same result and the same counts.
    #[test]
    fn all_ways_of_copying_end_alike(
        extents in prop::collection::vec((0..CAPACITY - 200_000, 1u64..200_000), 0..8),
        blank in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut counted = Vec::new();
            for way in WAYS {
                let target = if blank { blank_target() } else { used_target().await };
                let world = World::new(target, blank).by(way);
                world.fill(&extents).await;
                let (result, counters) = world.run().await;
                result.unwrap();
                prop_assert!(world.is_equal());
                counted.push((counters.progress, counters.zero, counters.pieces));
            }
            prop_assert!(counted.iter().all(|one| *one == counted[0]), "{counted:?}");
            Ok(())
        })?;
    }

    /// Whatever fails wherever: what the journal holds is equal and durable (checked at every entry), and running again
    /// ends with an equal target.
    #[test]
    fn l15_after_any_failures_the_next_runs_end_with_an_equal_target(
        extents in prop::collection::vec((0..CAPACITY - 200_000, 1u64..200_000), 0..8),
        failures in prop::collection::vec((call(), 1u64..40), 0..4),
        (blank, way) in (any::<bool>(), prop::sample::select(&WAYS)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let target = if blank { blank_target() } else { used_target().await };
            let world = World::new(target, blank).by(way);
            world.fill(&extents).await;
            for (call, nth) in &failures {
                world.faults.fail_nth(*call, *nth);
                if way != Way::Relayed {
                    // What fails on a thread is tried in the other way at once.
                    world.faults.fail_nth(*call, *nth);
                }
                let _ = world.run().await.0;
                world.faults.clear();
            }
            world.run().await.0.unwrap();
            prop_assert!(world.is_equal());
            Ok(())
        })?;
    }
}
