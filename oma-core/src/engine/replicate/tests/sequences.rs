//! Any sequence of writes, epochs, crashes, faults and losses: the laws hold after each step.

use proptest::prelude::*;

use super::interrupted::crash;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// The guest writes.
    Write { disk: usize, offset: u64, length: usize, seed: u8 },
    /// The guest gives an extent back.
    Discard { disk: usize, offset: u64, length: u64 },
    /// A run that nothing disturbs.
    Run,
    /// A run that dies at an event.
    Crash(usize),
    /// A run whose source fails at a read.
    Fault { disk: usize, nth: u64 },
    /// Tracking is reset at the source.
    Reset { disk: usize },
    /// Somebody writes to a volume between two jobs; during one, only verification would find it.
    Foreign { disk: usize, offset: u64 },
    /// The source loses its points in time.
    Forget,
}

const DISKS: [&str; 2] = ["disk-2000", "disk-2001"];
const LONGEST: u64 = 300_000;

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..CAPACITY.bytes() - LONGEST;
    let length = 1..usize::try_from(LONGEST).unwrap();
    prop_oneof![
        4 => (0..2usize, offset.clone(), length, any::<u8>())
            .prop_map(|(disk, offset, length, seed)| Step::Write { disk, offset, length, seed }),
        1 => (0..2usize, offset.clone(), 1..LONGEST)
            .prop_map(|(disk, offset, length)| Step::Discard { disk, offset, length }),
        3 => Just(Step::Run),
        3 => (1..60usize).prop_map(Step::Crash),
        2 => (0..2usize, 1..20u64).prop_map(|(disk, nth)| Step::Fault { disk, nth }),
        1 => (0..2usize).prop_map(|disk| Step::Reset { disk }),
        1 => (0..2usize, offset).prop_map(|(disk, offset)| Step::Foreign { disk, offset }),
        1 => Just(Step::Forget),
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

/// A world, and the content of the point in time that the next epoch is of.
struct Sequence {
    world: Arc<World>,
    frozen: Vec<Vec<u8>>,
}

impl Sequence {
    fn live(&self) -> Vec<Vec<u8>> {
        let disk = |name: &&str| self.world.source.disk(&self.world.vm, &key(name)).unwrap().bytes();
        DISKS.iter().map(disk).collect()
    }

    /// A run begins: a job that was interrupted goes on from its point in time, every other one freezes a new one.
    fn begin(&mut self) {
        if self.world.source.points().is_empty() {
            self.frozen = self.live();
        }
    }

    /// An epoch was committed: every volume holds exactly its point in time.
    async fn check_epoch(&self) {
        for (name, frozen) in DISKS.iter().zip(&self.frozen) {
            assert!(self.world.target(name).await.bytes() == *frozen, "{name} differs");
        }
        self.world.source.forget_points();
    }
}

async fn apply(sequence: &mut Sequence, step: &Step) {
    let world = &sequence.world.clone();
    let before = committed(world).await;
    if matches!(step, Step::Run | Step::Crash(_) | Step::Fault { .. }) {
        sequence.begin();
    }
    match step {
        Step::Write { disk, offset, length, seed } => {
            world.write(DISKS[*disk], *offset, *length, *seed).await;
        }
        Step::Discard { disk, offset, length } => {
            let device = world.source.disk(&world.vm, &key(DISKS[*disk])).unwrap();
            let extent = Extent::new(*offset, *length).unwrap();
            device.write_zeroes(extent, crate::traits::Zeroing::Punch, Durability::Cached).await.unwrap();
        }
        Step::Run => {
            assert!(world.run().await.outcome.is_completed());
            assert_eq!(committed(world).await.epoch, before.epoch + 1);
            sequence.check_epoch().await;
            return;
        }
        Step::Crash(nth) => {
            crash(world, *nth).await;
            let after = committed(world).await;
            if after.epoch == before.epoch + 1 {
                sequence.check_epoch().await;
                return;
            }
        }
        Step::Fault { disk, nth } => {
            let faults = world.source.faults(&key(DISKS[*disk]));
            faults.fail_as(ErrorKind::Unavailable, Retry::Never);
            faults.fail_nth(crate::memory::DeviceCall::Read, *nth);
            let completed = world.run().await.outcome.is_completed();
            faults.clear();
            if completed {
                sequence.check_epoch().await;
                return;
            }
        }
        Step::Reset { disk } => world.source.reset_tracking(&world.vm, &key(DISKS[*disk])),
        Step::Foreign { disk, offset } => {
            if before.epoch > 0 && world.jobs().await[0].status == JobStatus::Completed {
                let device = world.target(DISKS[*disk]).await;
                device.write_at(*offset, Bytes::from_static(b"foreign"), Durability::Durable).await.unwrap();
            }
        }
        Step::Forget => world.source.forget_points(),
    }
    assert_eq!(committed(world).await, before, "{step:?} moved a change id (L08)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_laws_of_data_hold_over_any_sequence(steps in prop::collection::vec(step(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let world = Arc::new(World::new(&DISKS).await);
            let mut sequence = Sequence { world, frozen: Vec::new() };
            for step in steps.iter().chain([&Step::Run]) {
                apply(&mut sequence, step).await;
            }
        });
    }
}
