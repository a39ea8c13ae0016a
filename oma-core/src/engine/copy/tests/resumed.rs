//! Copies that are killed, and go on by their journal.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::memory::{DeviceCall, Faults, FaultyDevice, MemoryCopyJournal};
use crate::record::{CopyBasis, CopyEntry};

const CAPACITY: u64 = 640 << 10;
const STEP: u64 = 96 << 10;

/// A journal that checks, at every entry, that what it is told is durable at the target and equal to the source.
#[derive(Debug)]
struct Checking {
    inner: MemoryCopyJournal,
    source: MemoryDevice,
    target: MemoryDevice,
    wanted: ExtentSet,
}

#[async_trait]
impl CopyJournal for Checking {
    async fn load(&self) -> Result<Option<CopyEntry>> {
        self.inner.load().await
    }

    async fn begin(&self, basis: &CopyBasis, unrecorded: ByteSize) -> Result<()> {
        self.inner.begin(basis, unrecorded).await
    }

    async fn record(&self, finished: Extent) -> Result<()> {
        let (source, target) = (self.source.bytes(), self.target.bytes());
        for extent in self.wanted.within(finished) {
            let range = usize::try_from(extent.offset()).unwrap()..usize::try_from(extent.end()).unwrap();
            assert!(source[range.clone()] == target[range], "{extent} is not equal");
        }
        assert!(self.target.unflushed().within(finished).is_empty(), "it would be lost with the power");
        self.inner.record(finished).await
    }

    async fn forget(&self) -> Result<()> {
        self.inner.forget().await
    }

    async fn end(&self) -> Result<()> {
        self.inner.end().await
    }
}

/// Dies at an event, and keeps what it was told.
#[derive(Debug)]
struct Watch {
    left: AtomicUsize,
    planned: Mutex<DiskProgress>,
    last: Mutex<DiskProgress>,
}

impl Watch {
    fn dying_at(event: usize) -> Arc<Self> {
        let (planned, last) = <(Mutex<_>, Mutex<_>)>::default();
        Arc::new(Self { left: AtomicUsize::new(event), planned, last })
    }
}

impl Progress for Watch {
    fn event(&self, event: Event<'_>) {
        if let Event::Planned { progress, .. } = event {
            *self.planned.lock().unwrap() = progress;
        }
        if let Event::Planned { progress, .. }
        | Event::Copied { progress, .. }
        | Event::Recorded { progress, .. } = event
        {
            *self.last.lock().unwrap() = progress;
        }
        if self.left.load(Ordering::SeqCst) > 0 && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
}

/// Both ends, the journal, and what is asked for. All of it survives a run that dies.
#[derive(Clone)]
struct World {
    source: MemoryDevice,
    target: MemoryDevice,
    journal: MemoryCopyJournal,
    faults: Faults,
    request: CopyRequest,
    config: ReplicateConfig,
}

impl World {
    fn new(blank: bool, extents: Option<ExtentSet>) -> Self {
        let (source, target) = (device("source", CAPACITY), device("target", CAPACITY));
        if !blank {
            let old = vec![0xee; usize::try_from(CAPACITY).unwrap()];
            now(target.write_at(0, old.into(), Durability::Durable));
        }
        let (journal, faults) = (MemoryCopyJournal::default(), Faults::default());
        let whole: ExtentSet = Extent::between(0, CAPACITY).into_iter().collect();
        let checking = Checking {
            inner: journal.clone(),
            source: source.clone(),
            target: target.clone(),
            wanted: extents.clone().unwrap_or(whole),
        };
        let request = CopyRequest {
            extents,
            blank,
            resume: Some(Resume {
                journal: Arc::new(checking),
                content: PointId::parse("content-1").unwrap(),
                target: "target".to_owned(),
            }),
            ..request(&source, &target)
        };
        let config = ReplicateConfig {
            piece: ByteSize::kib(32),
            zero_granule: ByteSize::kib(4),
            journal_step: ByteSize::new(STEP),
            // So that every byte that is copied is one that was read.
            trust_zeroes: false,
            ..ReplicateConfig::default()
        };
        Self { source, target, journal, faults, request, config }
    }

    /// A world whose whole source has data.
    fn full() -> Self {
        let world = Self::new(true, None);
        world.fill(0, CAPACITY, 3);
        world
    }

    fn fill(&self, offset: u64, length: u64, seed: u8) {
        let data: Vec<u8> = (0..length).map(|at| u8::try_from(at % 249).unwrap() ^ seed | 1).collect();
        now(self.source.write_at(offset, data.into(), Durability::Durable));
    }

    /// One run, as a process of its own; `None` when it died.
    async fn run(&self, watch: &Arc<Watch>) -> Option<Result<CopyReport>> {
        let (mut world, watch) = (self.clone(), Arc::clone(watch));
        let opened =
            |device| -> Arc<dyn BlockDevice> { Arc::new(FaultyDevice::new(device, self.faults.clone())) };
        world.request.source = opened(world.request.source);
        world.request.target = opened(world.request.target);
        let task = tokio::spawn(async move {
            // What is only borrowed from outside is not dropped by a panic.
            let (world, watch) = (world, watch);
            copy(&world.request, &world.config, &*watch, &CancellationToken::new()).await
        });
        let ran = task.await;
        // Threads die with their process; here they only end.
        self.faults.until_unused().await;
        match ran {
            Ok(result) => Some(result),
            Err(death) => {
                assert!(death.into_panic().is::<&str>(), "it failed by itself");
                None
            }
        }
    }

    async fn complete(&self) -> CopyReport {
        self.run(&Watch::dying_at(0)).await.unwrap().unwrap()
    }

    /// Dies in the middle of the copy, something of which is in the journal.
    async fn die(&self) {
        let watch = Watch::dying_at(18);
        assert!(self.run(&watch).await.is_none());
        assert!(!self.finished().await.is_empty());
    }

    async fn finished(&self) -> ExtentSet {
        self.journal.load().await.unwrap().unwrap().finished
    }

    /// Nothing stays that was not flushed: what was being written is neither old nor new.
    fn lose_power(&self) {
        for extent in self.target.unflushed().iter() {
            let torn = vec![0xa5; usize::try_from(extent.length()).unwrap()];
            now(self.target.write_at(extent.offset(), torn.into(), Durability::Durable));
        }
    }

    /// The run is refused so, and neither the target nor the journal has changed.
    async fn is_refused(&self, request: CopyRequest, kind: ErrorKind, words: &[&str]) {
        let (before, entry) = (self.target.bytes(), self.journal.load().await.unwrap());
        let error = copy(&request, &self.config, &Silent, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
        for word in words {
            assert!(error.chain().contains(word), "{word:?} is not in {}", error.chain());
        }
        assert!(self.target.bytes() == before && self.journal.load().await.unwrap() == entry);
    }

    fn resumed_as(&self, change: impl FnOnce(&mut Resume)) -> CopyRequest {
        let mut request = self.request.clone();
        change(request.resume.as_mut().unwrap());
        request
    }
}

/// The answer of a call on something in memory, which never waits.
fn now<T>(call: impl Future<Output = Result<T>>) -> T {
    futures_util::FutureExt::now_or_never(call).expect("memory answers at once").unwrap()
}

#[tokio::test]
async fn l15_a_copy_that_died_copies_only_what_is_missing_and_ends_its_journal() {
    let world = World::full();
    world.die().await;
    let (kept, read) = (world.finished().await.bytes(), world.source.calls().bytes_read);
    let report = world.complete().await;
    assert_eq!(report.bytes_resumed, kept);
    assert_eq!(report.bytes_total.bytes(), CAPACITY);
    assert_eq!(report.bytes_read.bytes(), CAPACITY - kept.bytes());
    let again = read + report.bytes_read.bytes() - CAPACITY;
    assert!(again <= report.bytes_recopied.bytes() && report.bytes_recopied.bytes() <= STEP, "{report:?}");
    assert!(world.source.bytes() == world.target.bytes());
    assert_eq!(world.journal.load().await.unwrap(), None, "a complete copy has no journal");
}

#[tokio::test]
async fn a_copy_that_died_after_its_last_entry_has_nothing_to_copy() {
    let world = World::full();
    let resume = world.request.resume.as_ref().unwrap();
    world.die().await;
    // The run that follows makes all of it durable and is killed before it ends its journal.
    now(world.target.write_at(0, world.source.bytes().into(), Durability::Durable));
    resume.journal.record(Extent::new(0, CAPACITY).unwrap()).await.unwrap();
    let report = world.complete().await;
    assert_eq!((report.bytes_read, report.bytes_resumed.bytes()), (ByteSize::ZERO, CAPACITY));
    assert_eq!(world.journal.load().await.unwrap(), None);
}

#[tokio::test]
async fn l09_a_journal_of_another_copy_is_refused_and_nothing_is_written() {
    let world = World::full();
    world.die().await;
    let other = world.resumed_as(|resume| resume.content = PointId::parse("content-2").unwrap());
    world.is_refused(other, ErrorKind::Conflict, &["its source was content-1 and is content-2"]).await;
    let other = world.resumed_as(|resume| resume.target = "other".to_owned());
    world.is_refused(other, ErrorKind::Conflict, &["its target was target and is other"]).await;
    let extents = Some([Extent::new(0, 5).unwrap()].into_iter().collect());
    let other = CopyRequest { extents, ..world.request.clone() };
    world.is_refused(other, ErrorKind::Conflict, &["list of extents was the whole disk"]).await;
    let larger = world.target.with_capacity(ByteSize::new(CAPACITY * 2));
    let other = CopyRequest { target: Arc::new(larger), ..world.request.clone() };
    world.is_refused(other, ErrorKind::Conflict, &["target's size"]).await;
    let smaller = world.source.with_capacity(ByteSize::new(CAPACITY - 1));
    let other = CopyRequest { source: Arc::new(smaller), ..world.request.clone() };
    world.is_refused(other, ErrorKind::Conflict, &["source's size"]).await;
    world.complete().await;
}

/// L14: a target of the same name, that is another or was emptied, or a source that was written.
#[tokio::test]
async fn l14_a_target_that_does_not_hold_what_the_journal_says_is_refused() {
    for emptied in [true, false] {
        let world = World::full();
        world.die().await;
        if emptied {
            let whole = Extent::new(0, CAPACITY).unwrap();
            now(world.target.write_zeroes(whole, Zeroing::Punch, Durability::Durable));
        } else {
            world.fill(0, CAPACITY, 9);
        }
        world.is_refused(world.request.clone(), ErrorKind::Mismatch, &["remove the journal"]).await;
    }
}

#[tokio::test]
async fn what_the_source_promises_to_be_zero_is_not_compared_in_place_of_data() {
    let mut world = World::new(true, None);
    world.config.trust_zeroes = true;
    // One leaf of data in a disk of holes, which a few leaves chosen anywhere might all miss.
    let large = 1 << 30;
    world.source = world.source.with_capacity(ByteSize::new(large));
    world.target = world.target.with_capacity(ByteSize::new(large));
    world.request.source = Arc::new(world.source.clone());
    world.request.target = Arc::new(world.target.clone());
    world.fill(0, 65_536, 1);
    let resume = world.request.resume.clone().unwrap();
    let basis = CopyBasis {
        content: resume.content,
        capacity: ByteSize::new(large),
        target: resume.target,
        target_capacity: ByteSize::new(large),
        extents: None,
    };
    world.journal.begin(&basis, ByteSize::ZERO).await.unwrap();
    world.journal.record(Extent::new(0, large).unwrap()).await.unwrap();
    let error = copy(&world.request, &world.config, &Silent, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{}", error.chain());
}

#[tokio::test]
async fn a_target_counts_as_blank_in_the_first_run_only() {
    let world = World::new(true, None);
    world.fill(0, CAPACITY / 2, 1);
    assert!(world.run(&Watch::dying_at(8)).await.is_none());
    assert_eq!(world.target.calls().zeroes, 0);
    let plain = world.target.with_info(|info| info.can_block_status = false);
    let request = CopyRequest { target: Arc::new(plain), ..world.request.clone() };
    World { request, ..world.clone() }.complete().await;
    assert!(world.target.calls().zeroes > 0, "a run before may have written there");
    assert!(world.source.bytes() == world.target.bytes());
}

#[tokio::test]
async fn a_journal_that_cannot_be_begun_lets_nothing_be_written() {
    #[derive(Debug)]
    struct Full;
    #[async_trait]
    impl CopyJournal for Full {
        async fn load(&self) -> Result<Option<CopyEntry>> {
            Ok(None)
        }
        async fn begin(&self, _: &CopyBasis, _: ByteSize) -> Result<()> {
            Err(Error::new(ErrorKind::NoSpace, "begin journal", "nowhere"))
        }
        async fn record(&self, _: Extent) -> Result<()> {
            Ok(())
        }
        async fn forget(&self) -> Result<()> {
            Ok(())
        }
        async fn end(&self) -> Result<()> {
            Ok(())
        }
    }
    let world = World::full();
    let request = world.resumed_as(|resume| resume.journal = Arc::new(Full));
    world.is_refused(request, ErrorKind::NoSpace, &[]).await;
}

/// How a run ends before its time.
#[derive(Clone, Copy, Debug)]
enum End {
    Dies { event: usize, power: bool },
    Fails { call: usize, nth: u64 },
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => (1usize..40, any::<bool>()).prop_map(|(event, power)| End::Dies { event, power }),
        1 => (0usize..3, 1u64..30).prop_map(|(call, nth)| End::Fails { call, nth }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever ends the runs wherever, in both ways of copying: what the journal holds is equal and durable (checked at every
    /// entry), nothing that it holds is copied again, what is, is bounded and told, and the last run ends with an equal target.
    #[test]
    fn l15_killed_at_any_moment_the_next_runs_complete_the_copy(
        data in prop::collection::vec((0..CAPACITY - 100_000, 1u64..100_000, any::<u8>()), 0..6),
        only in prop::option::of(prop::collection::vec((0..CAPACITY - 50_000, 1u64..50_000), 1..8)),
        ends in prop::collection::vec(end(), 0..5),
        (blank, in_place) in any::<(bool, bool)>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let extents: Option<ExtentSet> = only.map(|list| {
                list.into_iter().map(|(at, length)| Extent::new(at, length).unwrap()).collect()
            });
            let wanted = extents.clone().unwrap_or_else(|| Extent::between(0, CAPACITY).into_iter().collect());
            let world = World::new(blank, extents);
            let old = world.target.bytes();
            if in_place {
                world.faults.pass_in_place();
            }
            for (offset, length, seed) in &data {
                world.fill(*offset, *length, *seed);
            }
            let (mut again, mut left, mut completed) = (0, DiskProgress::default(), None);
            for end in ends.iter().map(Some).chain([None]) {
                if let Some(End::Fails { call, nth }) = end {
                    world.faults.fail_as(ErrorKind::Unavailable, crate::Retry::Never);
                    world.faults.fail_from([DeviceCall::Read, DeviceCall::Write, DeviceCall::Flush][*call], *nth);
                }
                let event = if let Some(End::Dies { event, .. }) = end { *event } else { 0 };
                let watch = Watch::dying_at(event);
                let ran = world.run(&watch).await;
                world.faults.clear();
                let planned = *watch.planned.lock().unwrap();
                // A run that failed before it had a plan copied nothing.
                if planned.total > ByteSize::ZERO {
                    prop_assert!(planned.durable >= left.durable, "{left:?} was there, {planned:?} is kept");
                    again += left.done.bytes() - planned.durable.bytes();
                    left = *watch.last.lock().unwrap();
                    let unrecorded = left.done.bytes() - left.durable.bytes();
                    prop_assert!(unrecorded <= STEP, "{unrecorded} bytes were copied and not recorded");
                }
                if let Some(End::Dies { power: true, .. }) = end {
                    world.lose_power();
                }
                if let Some(Ok(report)) = ran {
                    completed = Some(report);
                    break;
                }
                prop_assert!(end.is_some(), "nothing disturbed it: {ran:?}");
            }
            let report = completed.unwrap();
            prop_assert!(report.bytes_recopied.bytes() >= again, "{again} bytes again, {report:?}");
            let mut right = old;
            for extent in wanted.iter() {
                let range = usize::try_from(extent.offset()).unwrap()..usize::try_from(extent.end()).unwrap();
                right[range.clone()].copy_from_slice(&world.source.bytes()[range]);
            }
            prop_assert!(world.target.bytes() == right);
            prop_assert_eq!(world.journal.load().await.unwrap(), None);
            Ok(())
        })?;
    }
}
