//! Random schedules of requests, deaths, rivals, lost answers and time.

use futures_util::TryStreamExt as _;
use proptest::prelude::*;

use super::world::CONFIG;
use super::*;
use crate::record::{OperationFilter, VolumeTag};
use crate::state::OperationKind;
use crate::traits::{VolumeBackend, VolumeRegistry, VolumeSpec};
use crate::{Generation, InstanceId, SnapshotId, VolumeId};

/// How many schedules are tried; CI asks for more.
fn cases() -> u32 {
    std::env::var("OMA_TEST_VOLUME_SCHEDULES")
        .map_or(300, |cases| cases.parse().expect("a number of schedules"))
}

#[derive(Clone, Debug)]
enum Act {
    /// Asks for a change of the volume of one of the disks; waits until it has ended, or goes away.
    Ask(usize, Change, bool),
    /// Asks again for what was asked for that many requests ago.
    AskAgain(usize),
    /// Calls the deletion of a disk's volume off.
    Pardon(usize),
    Recover,
    Upkeep,
    /// Ends what is under way for a disk, if the backend is silent.
    Abandon(usize),
    /// The backend goes away, or comes back.
    Away(bool),
    Pass(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Create,
    Attach,
    Detach,
    Resize(u64),
    Delete,
    Snapshot,
    Revert(usize),
    DeleteSnapshot(usize),
}

/// A process: who it is, at which step it dies, what becomes of its calls, and what it does.
#[derive(Clone, Debug)]
struct Life {
    rival: bool,
    dies_at: Option<usize>,
    fates: Vec<Fate>,
    store_fates: Vec<Fate>,
    acts: Vec<Act>,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => Just(Change::Create),
        4 => Just(Change::Attach),
        4 => Just(Change::Detach),
        2 => (1..4_u64).prop_map(Change::Resize),
        3 => Just(Change::Delete),
        2 => Just(Change::Snapshot),
        1 => (0..3_usize).prop_map(Change::Revert),
        1 => (0..3_usize).prop_map(Change::DeleteSnapshot),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..2_usize, change(), any::<bool>()).prop_map(|(disk, change, waits)| Act::Ask(disk, change, waits)),
        1 => (0..4_usize).prop_map(Act::AskAgain),
        1 => (0..2_usize).prop_map(Act::Pardon),
        2 => Just(Act::Recover),
        1 => Just(Act::Upkeep),
        2 => (0..2_usize).prop_map(Act::Abandon),
        1 => any::<bool>().prop_map(Act::Away),
        1 => Just(Act::Pass(CONFIG.lease * 2)),
        1 => Just(Act::Pass(CONFIG.grace)),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Unheard),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Silent),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    let dies_at = proptest::option::of(0..60_usize);
    let fates = proptest::collection::vec(fate(), 0..10);
    // Most calls of the store are answered.
    let store_fate = prop_oneof![9 => Just(Fate::Answered), 1 => Just(Fate::Lost), 1 => Just(Fate::Unheard)];
    let store_fates = proptest::collection::vec(store_fate, 0..40);
    let acts = proptest::collection::vec(act(), 1..8);
    (any::<bool>(), dies_at, fates, store_fates, acts).prop_map(
        |(rival, dies_at, fates, store_fates, acts)| Life { rival, dies_at, fates, store_fates, acts },
    )
}

/// What stays over all lives.
struct Play {
    world: World,
    disks: [DiskRef; 2],
    asked: std::sync::Mutex<Vec<VolumeRequest>>,
}

impl Play {
    fn new() -> Self {
        let world = World::new();
        let disks = [world.disk("web"), world.disk("db")];
        Self { world, disks, asked: std::sync::Mutex::default() }
    }

    /// The n-th snapshot that was asked for, of whichever disk.
    async fn snapshot(&self, number: usize) -> SnapshotId {
        let filter = OperationFilter { kind: Some(OperationKind::Snapshot), ..OperationFilter::default() };
        let asked: Vec<Operation> = self.world.store.operations(filter).try_collect().await.unwrap();
        let found = asked.iter().rev().nth(number).and_then(|operation| operation.spec.snapshot.clone());
        found.unwrap_or_else(|| SnapshotId::parse("snap-none").unwrap())
    }

    async fn change(&self, change: Change) -> VolumeChange {
        match change {
            Change::Create => create(),
            Change::Attach => VolumeChange::Attach,
            Change::Detach => VolumeChange::Detach,
            Change::Resize(mib) => VolumeChange::Resize { capacity: ByteSize::mib(mib) },
            Change::Delete => VolumeChange::Delete,
            Change::Snapshot => VolumeChange::Snapshot,
            Change::Revert(number) => VolumeChange::Revert { snapshot: self.snapshot(number).await },
            Change::DeleteSnapshot(number) => {
                VolumeChange::DeleteSnapshot { snapshot: self.snapshot(number).await }
            }
        }
    }

    /// Refusals are answers too: what counts is what is left at the end.
    async fn act(&self, service: &VolumeService, act: &Act) {
        match act {
            Act::Ask(disk, change, waits) => {
                let request = request(&self.disks[*disk], self.change(*change).await);
                self.asked.lock().unwrap().push(request.clone());
                self.ask(service, request, *waits).await;
            }
            Act::AskAgain(ago) => {
                let asked = self.asked.lock().unwrap().iter().rev().nth(*ago).cloned();
                if let Some(request) = asked {
                    self.ask(service, request, true).await;
                }
            }
            Act::Pardon(disk) => {
                let left = self.world.store.unfinished(&self.disks[*disk]).await.unwrap();
                if let Some(left) = left {
                    drop(service.pardon(&left.spec.id, "asked").await);
                }
            }
            // The store may not tell what there is.
            Act::Recover => drop(service.recover().await),
            Act::Upkeep => service.upkeep(CONFIG.lease),
            Act::Abandon(disk) => {
                let left = self.world.store.unfinished(&self.disks[*disk]).await.unwrap();
                if let Some(left) = left {
                    drop(service.abandon(&left.spec.id, "asked").await);
                }
            }
            Act::Away(true) => self.world.backend.disconnect(),
            Act::Away(false) => self.world.backend.reconnect(),
            Act::Pass(time) => self.world.clock.advance(*time),
        }
    }

    async fn ask(&self, service: &VolumeService, request: VolumeRequest, waits: bool) {
        if service.submit(request.clone()).await.is_ok() && waits {
            drop(service.wait(&request.id, LONG).await);
        }
    }

    fn live(&self, life: &Life) {
        let worker = if life.rival { "rival" } else { "daemon" };
        let dies_at = life.dies_at.unwrap_or(FOR_EVER);
        self.world.live_on(worker, dies_at, [&life.fates, &life.store_fates], async |service| {
            for act in &life.acts {
                self.act(&service, act).await;
            }
        });
    }

    /// Everybody's leases have ended; everybody lives once more without dying, and finishes what is left.
    fn settle(&self) {
        self.world.backend.reconnect();
        self.world.clock.advance(CONFIG.lease * 2);
        for worker in ["last", "daemon", "rival"] {
            self.world.live(worker, FOR_EVER, &[], async |service| {
                for id in service.recover().await.unwrap().resumed {
                    service.wait(&id, LONG).await.unwrap();
                }
                // Jobs whose operation had ended.
                service.recover().await.unwrap();
            });
        }
    }
}

/// A volume of another deployment, of the same name as ours.
fn foreign(world: &World, disk: &DiskRef) -> VolumeId {
    let tag = VolumeTag { instance: InstanceId::mint(), disk: disk.clone(), generation: Generation::FIRST };
    let (name, capacity) = ("web-disk-2000".to_owned(), ByteSize::mib(1));
    let spec =
        VolumeSpec { operation: OperationId::mint(), tag, name, capacity, provisioning: Provisioning::Thin };
    let made = world.live("other", FOR_EVER, &[], async |_| world.backend.create(&spec).await.unwrap());
    made.unwrap().id
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l15_after_any_schedule_records_and_backend_agree_and_nobody_elses_volume_was_touched(
        lives in proptest::collection::vec(life(), 1..6)
    ) {
        let play = Play::new();
        let foreign = foreign(&play.world, &play.disks[0]);
        let read = || {
            let world = &play.world;
            world.backend.reconnect();
            let volume = world.live("reader", FOR_EVER, &[], async |_| world.backend.get(&foreign).await.unwrap());
            (volume, world.backend.is_written(&foreign))
        };
        let before = read();
        for life in &lives {
            play.live(life);
        }
        play.settle();
        prop_assert_eq!(read(), before);
        let asked = play.asked.lock().unwrap().clone();
        let operations: Vec<Operation> = play.world.live("reader", FOR_EVER, &[], async |_| {
            play.world.store.operations(Default::default()).try_collect().await.unwrap()
        }).unwrap();
        let abandoned: Vec<_> = operations.iter().filter(|operation| {
            operation.error.as_ref().is_some_and(|error| error.starts_with("abandoned"))
        }).map(|operation| operation.spec.clone()).collect();
        play.world.assert_explained(&abandoned);
        // Nothing was done that was not asked for, and nothing twice.
        for operation in &operations {
            prop_assert!(asked.iter().any(|request| request.id == operation.spec.id));
        }
        let made: Vec<_> = operations.iter().filter(|operation| {
            operation.spec.kind == OperationKind::Create
                && operation.status == OperationStatus::Completed
        }).collect();
        let instance = play.world.live("reader", FOR_EVER, &[], async |_| {
            play.world.store.instance().await.unwrap()
        }).unwrap();
        let volumes: Vec<crate::traits::Volume> = play.world.live("reader", FOR_EVER, &[], async |_| {
            play.world.backend.list(&instance).try_collect().await.unwrap()
        }).unwrap();
        let nobodys = abandoned.iter().filter(|spec| spec.kind == OperationKind::Create).count();
        let made = made.len() + nobodys;
        prop_assert!(volumes.len() <= made, "{} volumes of {made} creates", volumes.len());
        prop_assert!(volumes.len() <= 2 + nobodys, "one for each disk");
    }
}
