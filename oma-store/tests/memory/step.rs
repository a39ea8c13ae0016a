//! What can be done, over so few names that most of it hits something.

use oma_core::record::{ClaimLimits, Needless};
use oma_core::state::{ExportEvent, JobEvent, JobStatus, OperationKind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// One call of a store. Numbers name VMs, jobs, disks, volumes, operations and leases of a [`World`](super::world::World).
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Whatever brings a VM nearer to its next epoch, as the engine would.
    Forward {
        vm: usize,
    },
    Record {
        vm: usize,
        disks: usize,
        size: u64,
    },
    Insert {
        vm: usize,
        job: usize,
        disks: usize,
    },
    Claim {
        job: usize,
        worker: usize,
    },
    /// Whichever job is next.
    ClaimNext {
        worker: usize,
        limits: ClaimLimits,
        attempts: u32,
    },
    /// Longer than a lease.
    Sleep,
    Defer {
        lease: usize,
        attempts: u32,
    },
    Renew(usize),
    Release(usize),
    Advance {
        lease: usize,
        from: JobStatus,
        event: JobEvent,
    },
    End {
        lease: usize,
        end: usize,
    },
    Attempt {
        lease: usize,
        disk: usize,
        change: usize,
    },
    Commit {
        lease: usize,
        change: usize,
        generation: u64,
    },
    BeginJournal {
        lease: usize,
        disk: usize,
        base: bool,
    },
    Finish {
        lease: usize,
        disk: usize,
        offset: u64,
        length: u64,
    },
    Operate {
        lease: usize,
        operation: usize,
        kind: OperationKind,
        disk: usize,
        volume: Option<usize>,
    },
    Complete {
        lease: usize,
        operation: usize,
        volume: usize,
        path: Option<usize>,
    },
    Fail {
        lease: usize,
        operation: usize,
    },
    Condemn {
        lease: usize,
        operation: usize,
        disk: usize,
        volume: usize,
    },
    Execute {
        lease: usize,
        operation: usize,
    },
    Pardon {
        lease: usize,
        operation: usize,
    },
    Doubt {
        lease: usize,
        operation: usize,
    },
    Mark {
        lease: usize,
        volume: usize,
    },
    KeepStamp {
        lease: usize,
        volume: usize,
    },
    AdvanceGeneration {
        lease: usize,
        volume: usize,
    },
    Forget {
        lease: usize,
        volume: usize,
    },
    Export {
        lease: usize,
        disk: usize,
        volume: usize,
    },
    AdvanceExport {
        lease: usize,
        disk: usize,
        event: ExportEvent,
    },
    RemoveExport {
        disk: usize,
    },
    Point(Point),
}

/// One call about recovery points.
#[derive(Clone, Debug)]
pub(crate) enum Point {
    Begin { lease: usize, point: usize, disks: usize },
    Take { lease: usize, point: usize },
    Condemn { point: usize, needless: Needless },
    Remove(usize),
    Revert { lease: usize, point: usize },
}

impl Step {
    pub(crate) fn pause(&self) -> u64 {
        if matches!(self, Self::Sleep) { 60_000 } else { 1 }
    }
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let forward = select(&[0, 0, 0, 1][..]).prop_map(|vm| Step::Forward { vm });
    vec(
        prop_oneof![8 => forward, 2 => jobs(), 1 => content(), 3 => volumes(), 2 => points().prop_map(Step::Point)],
        30..90,
    )
}

/// Mostly the newest.
fn leases() -> impl Strategy<Value = usize> + Clone {
    select(&[0, 0, 0, 0, 1, 1, 2, 3][..])
}

fn limits() -> impl Strategy<Value = ClaimLimits> {
    let limit = || select(&[None, None, Some(0), Some(1), Some(2)][..]);
    (limit(), limit(), limit()).prop_map(|(per_worker, per_source, per_target)| ClaimLimits {
        per_worker,
        per_source,
        per_target,
    })
}

fn jobs() -> impl Strategy<Value = Step> {
    let lease = leases();
    prop_oneof![
        (0..2_usize, 1..3_usize, 0..3_u64).prop_map(|(vm, disks, size)| Step::Record { vm, disks, size }),
        (0..2_usize, 0..3_usize, 0..3_usize).prop_map(|(vm, job, disks)| Step::Insert { vm, job, disks }),
        (0..3_usize, 0..2_usize).prop_map(|(job, worker)| Step::Claim { job, worker }),
        (0..2_usize, limits(), 1..4_u32).prop_map(|(worker, limits, attempts)| Step::ClaimNext {
            worker,
            limits,
            attempts
        }),
        Just(Step::Sleep),
        (lease.clone(), 1..4_u32).prop_map(|(lease, attempts)| Step::Defer { lease, attempts }),
        lease.clone().prop_map(Step::Renew),
        lease.clone().prop_map(Step::Release),
        (lease.clone(), select(JobStatus::ALL), select(JobEvent::ALL))
            .prop_map(|(lease, from, event)| Step::Advance { lease, from, event }),
        (lease, 0..3_usize).prop_map(|(lease, end)| Step::End { lease, end }),
    ]
}

fn content() -> impl Strategy<Value = Step> {
    let (lease, disk) = (leases(), 0..2_usize);
    prop_oneof![
        (lease.clone(), disk.clone(), 0..2_usize).prop_map(|(lease, disk, change)| Step::Attempt {
            lease,
            disk,
            change
        }),
        (lease.clone(), 0..2_usize, 1..3_u64).prop_map(|(lease, change, generation)| Step::Commit {
            lease,
            change,
            generation
        }),
        (lease.clone(), disk.clone(), any::<bool>()).prop_map(|(lease, disk, base)| Step::BeginJournal {
            lease,
            disk,
            base
        }),
        (lease, disk, 0..60_u64, 1..20_u64).prop_map(|(lease, disk, offset, length)| Step::Finish {
            lease,
            disk,
            offset,
            length
        }),
    ]
}

fn points() -> impl Strategy<Value = Point> {
    const NEEDLESS: [Needless; 4] =
        [Needless::Unfinished, Needless::Behind(0), Needless::Behind(2), Needless::Unwanted];
    let needless = select(&NEEDLESS[..]);
    // Those of whole epochs are 11 and later.
    let (lease, point) = (leases(), select(&[0, 1, 11, 11, 12, 12, 13][..]));
    prop_oneof![
        (lease.clone(), 0..2_usize, 0..3_usize).prop_map(|(lease, point, disks)| Point::Begin {
            lease,
            point,
            disks
        }),
        (lease.clone(), point.clone()).prop_map(|(lease, point)| Point::Take { lease, point }),
        (point.clone(), needless).prop_map(|(point, needless)| Point::Condemn { point, needless }),
        point.clone().prop_map(Point::Remove),
        (lease, point).prop_map(|(lease, point)| Point::Revert { lease, point }),
    ]
}

fn deletions() -> impl Strategy<Value = Step> {
    let (lease, operation) = (leases(), 0..6_usize);
    prop_oneof![
        (lease.clone(), operation.clone(), 0..2_usize, 0..4_usize)
            .prop_map(|(lease, operation, disk, volume)| Step::Condemn { lease, operation, disk, volume }),
        (lease.clone(), operation.clone()).prop_map(|(lease, operation)| Step::Execute { lease, operation }),
        (lease.clone(), operation.clone()).prop_map(|(lease, operation)| Step::Pardon { lease, operation }),
        (lease, operation).prop_map(|(lease, operation)| Step::Doubt { lease, operation }),
    ]
}

fn volumes() -> impl Strategy<Value = Step> {
    let (lease, disk, volume) = (leases(), 0..2_usize, 0..4_usize);
    prop_oneof![
        (
            lease.clone(),
            0..6_usize,
            select(OperationKind::ALL),
            disk.clone(),
            proptest::option::of(volume.clone())
        )
            .prop_map(|(lease, operation, kind, disk, volume)| {
                Step::Operate { lease, operation, kind, disk, volume }
            }),
        (lease.clone(), 0..6_usize, volume.clone(), proptest::option::of(0..3_usize))
            .prop_map(|(lease, operation, volume, path)| Step::Complete { lease, operation, volume, path }),
        (lease.clone(), 0..6_usize).prop_map(|(lease, operation)| Step::Fail { lease, operation }),
        deletions(),
        (lease.clone(), volume.clone()).prop_map(|(lease, volume)| Step::Mark { lease, volume }),
        (lease.clone(), volume.clone()).prop_map(|(lease, volume)| Step::KeepStamp { lease, volume }),
        (lease.clone(), volume.clone()).prop_map(|(lease, volume)| Step::AdvanceGeneration { lease, volume }),
        (lease.clone(), volume.clone()).prop_map(|(lease, volume)| Step::Forget { lease, volume }),
        (lease.clone(), disk.clone(), volume).prop_map(|(lease, disk, volume)| Step::Export {
            lease,
            disk,
            volume
        }),
        (lease, disk.clone(), select(ExportEvent::ALL))
            .prop_map(|(lease, disk, event)| Step::AdvanceExport { lease, disk, event }),
        disk.prop_map(|disk| Step::RemoveExport { disk }),
    ]
}
