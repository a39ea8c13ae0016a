//! Any sequence of writes, epochs, crashes, cancels, faults and losses: the laws hold after each step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::points::Epochs;
use super::*;
use crate::engine::{KeepPoints, TrustPolicy, revert};

/// Sequences that are tried when `OMA_TEST_EPOCH_SEQUENCES` does not say how many.
const SEQUENCES: u32 = 400;

#[derive(Clone, Debug)]
enum Step {
    /// The guest writes.
    Write { disk: usize, offset: u64, length: usize, seed: u8 },
    /// The guest gives an extent back.
    Discard { disk: usize, offset: u64, length: u64 },
    /// A run, however it ends.
    Run(End, Asked),
    /// The live job is cancelled by an operator.
    Abort,
    /// Tracking is reset at the source.
    Reset { disk: usize },
    /// A disk becomes larger.
    Grow { disk: usize },
    /// The volumes go back to a recovery point, the nth newest, if no job is live.
    Revert(usize),
    /// Somebody writes to a volume between two runs. After one that was killed, only a comparison would find it.
    Foreign { disk: usize, offset: u64 },
    /// A volume is gone.
    Lose { disk: usize },
    /// The source loses its points in time.
    Forget,
    /// The journal of a disk cannot be read as it was written any more.
    Damage { disk: usize },
}

/// What a run is asked for beside the copy.
#[derive(Clone, Copy, Debug)]
struct Asked {
    verify: VerifyLevel,
    trust: TrustPolicy,
}

impl Asked {
    const NOTHING: Self = Self { verify: VerifyLevel::None, trust: TrustPolicy::Trust };
}

/// How a run ends before its time.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It does not.
    Never,
    /// It dies at an event; with the machine, when its power fails, so that nothing stays that was not flushed.
    Dies { event: usize, power: bool },
    /// It dies before or after one of the calls that change a journal, so in the middle of a plan too.
    DiesAtJournal(usize),
    /// It is told to stop at an event.
    Stopped(usize),
    /// Its source fails at a read.
    Fault { disk: usize, nth: u64 },
}

const DISKS: [&str; 2] = ["disk-2000", "disk-2001"];
const SIZE: u64 = 192 << 10;
const GROWTH: u64 = 40_000;
const LONGEST: u64 = 48 << 10;

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Never),
        4 => (1..50usize, any::<bool>()).prop_map(|(event, power)| End::Dies { event, power }),
        2 => (1..16usize).prop_map(End::DiesAtJournal),
        2 => (1..50usize).prop_map(End::Stopped),
        2 => (0..2usize, 1..20u64).prop_map(|(disk, nth)| End::Fault { disk, nth }),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let verify = prop_oneof![
        6 => Just(VerifyLevel::None),
        1 => Just(VerifyLevel::Sample(SampleSize::Leaves(1))),
        1 => Just(VerifyLevel::Changed),
        2 => Just(VerifyLevel::Full),
    ];
    let trust = prop_oneof![
        6 => Just(TrustPolicy::Trust),
        1 => Just(TrustPolicy::SpotCheck { permille: 500 }),
        1 => Just(TrustPolicy::AlwaysCompare),
    ];
    (verify, trust).prop_map(|(verify, trust)| Asked { verify, trust })
}

fn step() -> impl Strategy<Value = Step> {
    let (disk, offset) = (0..2usize, 0..SIZE - LONGEST);
    let length = 1..usize::try_from(LONGEST).unwrap();
    prop_oneof![
        8 => (disk.clone(), offset.clone(), length, any::<u8>())
            .prop_map(|(disk, offset, length, seed)| Step::Write { disk, offset, length, seed }),
        2 => (disk.clone(), offset.clone(), 1..LONGEST)
            .prop_map(|(disk, offset, length)| Step::Discard { disk, offset, length }),
        16 => (end(), asked()).prop_map(|(end, asked)| Step::Run(end, asked)),
        4 => Just(Step::Forget),
        1 => Just(Step::Abort),
        1 => (0..3usize).prop_map(Step::Revert),
        1 => disk.clone().prop_map(|disk| Step::Reset { disk }),
        1 => disk.clone().prop_map(|disk| Step::Grow { disk }),
        1 => (disk.clone(), offset).prop_map(|(disk, offset)| Step::Foreign { disk, offset }),
        1 => disk.clone().prop_map(|disk| Step::Lose { disk }),
        1 => disk.prop_map(|disk| Step::Damage { disk }),
    ]
}

/// What is committed may move only together, and only by a run that completed.
#[derive(Debug, PartialEq, Eq)]
struct Committed {
    epoch: u64,
    change_ids: Vec<Option<ChangeId>>,
}

async fn committed(world: &World) -> Committed {
    let Some(context) = world.store.by_path(&world.vm).await.unwrap() else {
        return Committed { epoch: 0, change_ids: vec![None; DISKS.len()] };
    };
    let disks = world.store.disks(&context.id).await.unwrap();
    assert!(disks.iter().all(|disk| disk.epoch == context.epoch), "{disks:?}");
    Committed { epoch: context.epoch.0, change_ids: disks.into_iter().map(|disk| disk.change_id).collect() }
}

/// Watches a run, ends it at an event, and keeps what it was told of each disk.
#[derive(Debug)]
struct Watch {
    left: AtomicUsize,
    dies: bool,
    stop: CancellationToken,
    planned: Mutex<BTreeMap<String, crate::engine::DiskProgress>>,
    last: Mutex<BTreeMap<String, crate::engine::DiskProgress>>,
    /// The most data that was copied and not recorded at any moment.
    unrecorded: AtomicUsize,
}

impl Watch {
    fn new(end: End) -> Arc<Self> {
        let (left, dies) = match end {
            End::Dies { event, .. } => (event, true),
            End::Stopped(event) => (event, false),
            End::Never | End::DiesAtJournal(_) | End::Fault { .. } => (0, false),
        };
        Arc::new(Self {
            left: AtomicUsize::new(left),
            dies,
            stop: CancellationToken::new(),
            planned: Mutex::default(),
            last: Mutex::default(),
            unrecorded: AtomicUsize::new(0),
        })
    }
}

impl Progress for Watch {
    fn event(&self, event: Event<'_>) {
        if let Event::Planned { disk, progress, .. } = event {
            self.planned.lock().unwrap().insert(disk.to_string(), progress);
        }
        if let Event::Planned { disk, progress, .. }
        | Event::Copied { disk, progress, .. }
        | Event::Recorded { disk, progress, .. } = event
        {
            self.last.lock().unwrap().insert(disk.to_string(), progress);
            let unrecorded = progress.done.bytes() - progress.durable.bytes();
            self.unrecorded.fetch_max(usize::try_from(unrecorded).unwrap(), Ordering::SeqCst);
        }
        if self.left.load(Ordering::SeqCst) > 0 && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            if self.dies {
                std::panic::resume_unwind(Box::new("killed"));
            }
            self.stop.cancel();
        }
    }
}

/// What an interrupted run left of a disk.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    /// Bytes that the next run must not copy again: durable ones, less what the guest wrote before the next point.
    kept: u64,
    /// Bytes that were copied.
    done: u64,
}

/// A world, the content of the point in time that the next epoch is of, and what the last run left.
struct Sequence {
    world: Arc<World>,
    frozen: Vec<Vec<u8>>,
    /// What each committed epoch held.
    epochs: Epochs,
    left: [Left; DISKS.len()],
    /// What was copied more than once for the next epoch.
    again: [u64; DISKS.len()],
    /// What the guest wrote since that point in time.
    written: [u64; DISKS.len()],
}

impl Sequence {
    fn new(in_place: bool, trust_zeroes: bool) -> Self {
        let mut world = World::empty(&DISKS, ByteSize::new(SIZE));
        if in_place {
            world.use_in_place(&DISKS);
        }
        world.config = ReplicateConfig {
            piece: ByteSize::kib(8),
            merge_gap: ByteSize::kib(2),
            zero_granule: ByteSize::kib(4),
            journal_step: ByteSize::kib(24),
            trust_zeroes,
            ..world.config
        };
        let (left, again, written) = Default::default();
        Self { world: Arc::new(world), frozen: Vec::new(), epochs: Epochs::new(), left, again, written }
    }

    fn live(&self) -> Vec<Vec<u8>> {
        let disk = |name: &&str| self.world.source.disk(&self.world.vm, &key(name)).unwrap().bytes();
        DISKS.iter().map(disk).collect()
    }

    /// An epoch was committed: every volume holds exactly its point in time.
    async fn check_epoch(&mut self, epoch: u64) {
        self.epochs.insert(epoch, self.frozen.clone());
        for (name, frozen) in DISKS.iter().zip(&self.frozen) {
            let volume = self.world.target(name).await.bytes();
            assert!(volume[..frozen.len()] == *frozen, "{name} differs");
        }
        self.world.source.forget_points();
        (self.left, self.again) = Default::default();
    }

    async fn run(&mut self, end: End, asked: Asked) {
        let world = self.world.clone();
        let before = committed(&world).await;
        // A job that was interrupted goes on from its point in time, every other one freezes a new one.
        if world.source.points().is_empty() {
            self.frozen = self.live();
            for (left, written) in self.left.iter_mut().zip(&mut self.written) {
                left.kept = left.kept.saturating_sub(std::mem::take(written));
            }
        }
        if asked.trust != TrustPolicy::Trust {
            // Who believes nobody begins with a journal of its own, and may die right after that.
            (self.left, self.again) = Default::default();
        }
        world.clock.advance(Duration::from_secs(1));
        if let End::DiesAtJournal(nth) = end {
            world.journal.die_at(nth);
        }
        if let End::Fault { disk, nth } = end {
            let faults = world.source.faults(&key(DISKS[disk]));
            faults.fail_as(ErrorKind::Unavailable, Retry::Never);
            faults.fail_nth(crate::memory::DeviceCall::Read, nth);
        }
        let watch = Watch::new(end);
        let (running, watching) = (world.clone(), watch.clone());
        let task = tokio::spawn(async move {
            let replicator = Replicator::new(running.services().0, worker("appliance"), running.config);
            let keep = KeepPoints { last: Some(2), younger_than: None };
            let Asked { verify, trust } = asked;
            let request = ReplicateRequest { verify, trust, points: Some(keep), ..running.request() };
            replicator.run(&request, &*watching, &watching.stop).await
        });
        let report = match task.await {
            Ok(report) => Some(report.unwrap()),
            Err(death) => {
                assert!(death.into_panic().is::<&str>(), "it failed by itself");
                // Threads die with their process; here they only end.
                world.until_left().await;
                None
            }
        };
        world.journal.die_at(0);
        DISKS.iter().for_each(|name| world.source.faults(&key(name)).clear());
        self.check_run(&watch, asked, report.as_ref());
        if report.is_some() {
            self.check_left(&watch).await;
        }
        if let End::Dies { power: true, .. } = end {
            self.lose_power().await;
        }
        let after = committed(&world).await;
        if after.epoch == before.epoch + 1 {
            assert!(report.as_ref().is_none_or(|report| report.outcome.is_completed()), "{report:?}");
            self.check_epoch(after.epoch).await;
        } else {
            assert_eq!(after, before, "{end:?} moved a change id (L08)");
            assert!(report.is_none_or(|report| !report.outcome.is_completed()));
            assert!(!matches!(end, End::Never), "nothing disturbed it");
            self.check_marked(&watch).await;
        }
        world.assert_points(&self.epochs).await;
        world.assert_nothing_forgotten().await;
    }

    /// What is copied again is bounded, and told. Zeroes by promise are neither read nor bounded, and who compares finds anew what
    /// is there: in such runs the bytes are not counted.
    fn check_run(&mut self, watch: &Watch, asked: Asked, report: Option<&Report>) {
        let counts = !self.world.config.trust_zeroes && asked.trust == TrustPolicy::Trust;
        let config = &self.world.config;
        let step = config.journal_step.max(config.piece).bytes();
        let unrecorded = u64::try_from(watch.unrecorded.load(Ordering::SeqCst)).unwrap();
        assert!(!counts || unrecorded <= step, "{unrecorded} bytes were copied and not recorded");
        for (at, name) in DISKS.iter().enumerate() {
            let Some(planned) = watch.planned.lock().unwrap().get(*name).copied() else { continue };
            let (left, resumed) = (self.left[at], planned.durable.bytes());
            assert!(!counts || resumed >= left.kept, "{name}: {left:?} were there and {resumed} were kept");
            self.again[at] += left.done.saturating_sub(resumed);
            if let Some(report) = report {
                let disk = report.disks.iter().find(|disk| disk.key.as_str() == *name).unwrap();
                let again = self.again[at];
                assert!(
                    !counts || disk.bytes_recopied.bytes() >= again,
                    "{name}: {again} bytes again, {disk:?}"
                );
                assert_eq!((disk.bytes_resumed + disk.bytes_equal).bytes(), resumed);
            }
            let last = watch.last.lock().unwrap()[*name];
            self.left[at] = Left { kept: last.durable.bytes(), done: last.done.bytes() };
        }
    }

    /// Nothing stays that was not flushed: what was being written is neither old nor new.
    async fn lose_power(&self) {
        for name in DISKS {
            let Some(device) = self.device(name).await else { continue };
            for extent in device.unflushed().iter() {
                let torn = vec![0xa5; usize::try_from(extent.length()).unwrap()];
                device.write_at(extent.offset(), Bytes::from(torn), Durability::Durable).await.unwrap();
            }
        }
    }

    /// Whether the last run left the volume of a disk in good order.
    async fn is_stamped(&self, name: &str) -> bool {
        let Some(record) = self.world.disk(name).await else { return false };
        self.world.store.volume_of(&record.disk).await.unwrap().is_some_and(|volume| volume.stamp.is_some())
    }

    /// A run that copied and was not killed leaves every volume in good order.
    async fn check_left(&self, watch: &Watch) {
        for name in DISKS {
            let planned = watch.planned.lock().unwrap().get(name).copied();
            let copied = planned.is_some() && planned != watch.last.lock().unwrap().get(name).copied();
            assert!(!copied || self.is_stamped(name).await, "{name} was left without a stamp");
        }
    }

    /// A volume that a run wrote to and did not commit is of no epoch (L12).
    async fn check_marked(&self, watch: &Watch) {
        for name in DISKS {
            let planned = watch.planned.lock().unwrap().get(name).copied();
            if planned.is_none() || planned == watch.last.lock().unwrap().get(name).copied() {
                continue;
            }
            let record = self.world.disk(name).await.expect("it was planned");
            let volume = self.world.store.volume_of(&record.disk).await.unwrap().expect("it was written");
            assert_eq!(volume.content, VolumeContent::Inconsistent, "{name}");
        }
    }

    /// What a disk is replicated to, if it is there.
    async fn device(&self, name: &str) -> Option<MemoryDevice> {
        let record = self.world.disk(name).await?;
        let volume = self.world.store.volume_of(&record.disk).await.unwrap()?;
        self.world.backend.device(&volume.id)
    }

    /// Goes back to a recovery point; with a live job it is refused, and with another volume of a disk.
    async fn revert(&mut self, nth: usize) {
        let world = self.world.clone();
        let Some(point) = world.ready().await.into_iter().nth(nth) else { return };
        let (services, _) = world.services();
        let stop = CancellationToken::new();
        if let Err(error) = revert(&services, &worker("appliance"), &world.config, &point.id, &stop).await {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
            return;
        }
        for (name, held) in DISKS.iter().zip(&self.epochs[&point.epoch.0]) {
            let volume = self.device(name).await.expect("it was reverted").bytes();
            assert!(volume[..held.len()] == *held, "{name} is not what it was at epoch {}", point.epoch);
        }
        (0..DISKS.len()).for_each(|disk| self.forget_kept(disk));
        // The point in time of a job that ended is nobody's.
        world.source.forget_points();
    }

    /// Nothing of a disk need be kept any more.
    fn forget_kept(&mut self, disk: usize) {
        self.left[disk].kept = 0;
    }

    async fn apply(&mut self, step: &Step) {
        let world = self.world.clone();
        match step {
            Step::Write { disk, offset, length, seed } => {
                world.write(DISKS[*disk], *offset, *length, *seed).await;
                self.written[*disk] += u64::try_from(*length).unwrap();
            }
            Step::Discard { disk, offset, length } => {
                let device = world.source.disk(&world.vm, &key(DISKS[*disk])).unwrap();
                let extent = Extent::new(*offset, *length).unwrap();
                device.write_zeroes(extent, crate::traits::Zeroing::Punch, Durability::Cached).await.unwrap();
                self.written[*disk] += length;
            }
            Step::Run(end, asked) => self.run(*end, *asked).await,
            Step::Abort => {
                if let Some(job) = world.jobs().await.iter().find(|job| !job.status.is_terminal()) {
                    let (services, _) = world.services();
                    cancel(&services, &worker("appliance"), &job.id, "an operator").await.unwrap();
                    assert!(
                        world.source.points().is_empty(),
                        "the point in time of a cancelled job is nobody's"
                    );
                }
            }
            Step::Reset { disk } => {
                world.source.reset_tracking(&world.vm, &key(DISKS[*disk]));
                // Nothing of what is there can be kept at the next point in time.
                self.written[*disk] = u64::MAX / 2;
            }
            Step::Grow { disk } => {
                let device = world.source.disk(&world.vm, &key(DISKS[*disk])).unwrap();
                let larger = ByteSize::new(device.info().capacity.bytes() + GROWTH);
                world.source.grow_disk_unseen(&world.vm, &key(DISKS[*disk]), larger).unwrap();
            }
            Step::Foreign { disk, offset } => {
                if self.is_stamped(DISKS[*disk]).await
                    && let Some(device) = self.device(DISKS[*disk]).await
                {
                    self.forget_kept(*disk);
                    device
                        .write_at(*offset, Bytes::from_static(b"foreign"), Durability::Durable)
                        .await
                        .unwrap();
                }
            }
            Step::Lose { disk } => {
                if let Some(record) = world.disk(DISKS[*disk]).await
                    && let Some(volume) = world.store.volume_of(&record.disk).await.unwrap()
                {
                    world.backend.lose(&volume.id);
                    self.forget_kept(*disk);
                }
            }
            Step::Revert(nth) => self.revert(*nth).await,
            Step::Forget => world.source.forget_points(),
            Step::Damage { disk } => {
                world.journal.damage(key(DISKS[*disk]));
                self.again[*disk] = 0;
                self.forget_kept(*disk);
            }
        }
    }
}

/// Tries so many sequences, on all processors. A failure names the shortest sequence that fails.
fn try_sequences(count: u32) {
    let threads = u32::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let share = count.div_ceil(threads);
    let work = || {
        let config = Config { cases: share, failure_persistence: None, ..Config::default() };
        let strategy = (any::<bool>(), any::<bool>(), prop::collection::vec(step(), 1..16));
        let tried = TestRunner::new(config).run(&strategy, |(in_place, trust_zeroes, steps)| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
                let mut sequence = Sequence::new(in_place, trust_zeroes);
                for step in steps.iter().chain([&Step::Run(End::Never, Asked::NOTHING)]) {
                    sequence.apply(step).await;
                }
            });
            Ok(())
        });
        assert!(tried.is_ok(), "{}", tried.unwrap_err());
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
}

#[test]
fn the_laws_of_data_hold_over_any_sequence() {
    let asked = std::env::var("OMA_TEST_EPOCH_SEQUENCES");
    try_sequences(
        asked.map_or(SEQUENCES, |asked| asked.parse().expect("OMA_TEST_EPOCH_SEQUENCES is a number")),
    );
}
