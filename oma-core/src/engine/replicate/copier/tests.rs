use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::engine::config::RetryConfig;
use crate::engine::progress::Silent;
use crate::memory::{DeviceCall, Faults, FaultyDevice, MemoryDevice};
use crate::record::{JournalBasis, JournalEntry};
use crate::state::ReplicationType;
use crate::traits::Durability;
use crate::{DiskRef, ExtentSet, Fence, Generation, JobId, PointId, Retry, Timestamp, WorkerId};

const CAPACITY: u64 = 3 << 20;

/// A journal that checks, at every entry, that what it is told is durable.
#[derive(Debug)]
struct CheckingJournal {
    source: MemoryDevice,
    target: MemoryDevice,
    finished: Mutex<ExtentSet>,
    entries: Mutex<Vec<u64>>,
}

#[async_trait]
impl ExtentJournal for CheckingJournal {
    async fn load(&self, _disk: &DiskRef) -> Result<Option<JournalEntry>> {
        Ok(None)
    }

    async fn begin(&self, _: &Lease, _: &DiskKey, _: &JournalBasis, _: &ExtentSet) -> Result<()> {
        Ok(())
    }

    async fn record(&self, _: &Lease, _: &DiskKey, finished: Extent, synced: ByteSize) -> Result<()> {
        let range = usize::try_from(finished.offset()).unwrap()..usize::try_from(finished.end()).unwrap();
        assert!(self.source.bytes()[range.clone()] == self.target.bytes()[range], "{finished} is not equal");
        let volatile = self.target.unflushed().within(finished);
        assert!(volatile.is_empty(), "{volatile:?} would be lost with the power");
        self.finished.lock().unwrap().insert(finished);
        self.entries.lock().unwrap().push(synced.bytes());
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
}

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
        }
    }

    /// Copies what the journal does not have yet.
    async fn run(&self) -> (Result<()>, Counters) {
        let whole: ExtentSet = Extent::between(0, CAPACITY).into_iter().collect();
        let work = whole.difference(&self.journal.finished.lock().unwrap());
        let resumed = ByteSize::new(CAPACITY - work.bytes().bytes());
        let plan = DiskPlan {
            mode: ReplicationType::Initial,
            basis: JournalBasis {
                generation: Generation::FIRST,
                content: PointId::parse("p").unwrap(),
                base: None,
                capacity: ByteSize::new(CAPACITY),
            },
            planned: ExtentSet::new(),
            scope: whole,
            work,
            resumed,
            continues: resumed != ByteSize::ZERO,
            blank: self.blank.swap(false, Ordering::SeqCst),
            note: None,
        };
        let lease = Lease {
            job: JobId::mint(Timestamp::from_millis(0)),
            worker: WorkerId::parse("w").unwrap(),
            fence: Fence(1),
            expires_at: Timestamp::from_millis(0),
        };
        let copier = Copier {
            key: &DiskKey::parse("disk-2000").unwrap(),
            plan: &plan,
            source: Arc::new(FaultyDevice::new(Arc::new(self.source.read_only()), self.faults.clone())),
            target: Arc::new(FaultyDevice::new(Arc::new(self.target.clone()), self.faults.clone())),
            zeroing: Zeroing::Punch,
            journal: &self.journal,
            lease: &lease,
            config: &self.config,
            progress: &Silent,
            stop: &CancellationToken::new(),
        };
        let mut counters = Counters::default();
        (copier.run(&mut counters).await, counters)
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
async fn an_empty_source_still_flushes_and_records_the_whole_disk() {
    let world = World::new(blank_target(), true);
    world.run().await.0.unwrap();
    assert!(world.target.calls().flushes > 0);
    assert_eq!(world.journal.finished.lock().unwrap().bytes().bytes(), CAPACITY);
}

#[tokio::test]
async fn at_most_one_journal_step_is_copied_twice() {
    let world = World::new(blank_target(), true);
    world.fill(&[(0, CAPACITY)]).await;
    world.faults.fail_nth(DeviceCall::Read, 30);
    world.run().await.0.unwrap_err();
    let first = world.source.calls().bytes_read;
    let durable = world.journal.finished.lock().unwrap().bytes().bytes();
    assert!(first <= durable + world.config.journal_step.bytes(), "{first} read, {durable} durable");
    world.run().await.0.unwrap();
    let twice = world.source.calls().bytes_read - CAPACITY;
    assert!(twice <= world.config.journal_step.bytes(), "{twice} bytes were copied twice");
    assert!(world.is_equal());
}

#[tokio::test]
async fn a_failed_flush_records_nothing() {
    let world = World::new(blank_target(), true);
    world.fill(&[(0, 100_000)]).await;
    world.faults.fail_nth(DeviceCall::Flush, 1);
    let error = world.run().await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(world.journal.finished.lock().unwrap().is_empty());
}

#[tokio::test]
async fn l11_a_source_that_ends_early_is_an_error() {
    let world = World::new(blank_target(), true);
    world.fill(&[(0, CAPACITY)]).await;
    world.source.cut(2 << 20);
    let error = world.run().await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(world.journal.finished.lock().unwrap().bytes().bytes() <= 2 << 20);
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

    /// Whatever fails wherever: what the journal holds is equal and durable (checked at every entry), and running again
    /// ends with an equal target.
    #[test]
    fn l15_after_any_failures_the_next_runs_end_with_an_equal_target(
        extents in prop::collection::vec((0..CAPACITY - 200_000, 1u64..200_000), 0..8),
        failures in prop::collection::vec((call(), 1u64..40), 0..4),
        blank in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let target = if blank { blank_target() } else { used_target().await };
            let world = World::new(target, blank);
            world.fill(&extents).await;
            for (call, nth) in &failures {
                world.faults.fail_nth(*call, *nth);
                let _ = world.run().await.0;
                world.faults.clear();
            }
            world.run().await.0.unwrap();
            prop_assert!(world.is_equal());
            Ok(())
        })?;
    }
}
