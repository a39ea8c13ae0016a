//! What every [`DiskSource`] promises.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::runner::table;
use super::{Case, Guard, sample};
use crate::traits::{Access, Changes, DiskSource, PointDisk, PointInTime};
use crate::{ChangeId, DiskKey, ErrorKind, Extent, ExtentSet, JobId, PointId, Timestamp, VmPath};

/// What a test does to the disks of a source beside the trait: the guest, and the source's own administrator.
#[async_trait]
pub trait SourceWorld: fmt::Debug + Send + Sync + 'static {
    /// Writes to a disk as its guest does.
    async fn write(&self, key: &DiskKey, offset: u64, data: Bytes);

    /// Forgets what changed on a disk; nothing where the source does not track changes.
    async fn reset_tracking(&self, key: &DiskKey);
}

/// A source with one VM that has two disks or more, each of at least one MiB.
pub struct SourceSubject {
    /// The source.
    pub source: Arc<dyn DiskSource>,
    /// The VM.
    pub vm: VmPath,
    /// Its world.
    pub world: Arc<dyn SourceWorld>,
    /// What it lives on.
    pub guard: Guard,
}

impl fmt::Debug for SourceSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceSubject").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Cases over every source. Nobody writes between freezing and releasing, so that sources without snapshots pass.
#[must_use]
pub fn disk_source_cases() -> Vec<Case<SourceSubject>> {
    table![
        discover_answers_the_vm_and_its_disks,
        discover_answers_the_same_identity_every_time,
        a_point_has_every_disk_with_its_capacity,
        freeze_again_for_a_job_answers_the_same_content,
        another_content_has_another_content_id,
        a_disk_at_a_point_is_read_only_and_holds_what_the_guest_wrote,
        an_unknown_disk_is_not_found,
        changes_hold_every_byte_that_differs_or_are_unknown,
        changes_since_an_opaque_change_id_are_unknown_or_complete,
        a_point_that_nobody_wrote_to_is_confirmed,
        release_is_idempotent,
    ]
}

/// Cases over sources that hold a point in time while the guest goes on.
#[must_use]
pub fn snapshot_source_cases() -> Vec<Case<SourceSubject>> {
    table![
        an_unknown_vm_is_not_found,
        an_unknown_point_is_not_found,
        a_point_keeps_its_content_while_the_guest_writes,
        a_point_is_confirmed_while_the_guest_writes,
        freeze_again_after_writes_answers_the_same_content,
        a_released_point_is_not_found,
        l20_releasing_the_point_of_one_job_leaves_that_of_another,
    ]
}

/// Cases over sources that track changes.
#[must_use]
pub fn tracking_source_cases() -> Vec<Case<SourceSubject>> {
    table![
        changes_add_up_over_several_points,
        a_commit_forgets_nothing_that_newer_change_ids_need,
        changes_after_a_reset_of_tracking_are_unknown,
        l04_changes_of_one_disk_are_not_those_of_another,
    ]
}

/// The source with comfort for tests.
struct Bench {
    source: Arc<dyn DiskSource>,
    vm: VmPath,
    world: Arc<dyn SourceWorld>,
    keys: Vec<DiskKey>,
    _guard: Guard,
}

impl Bench {
    async fn new(subject: SourceSubject) -> Self {
        let SourceSubject { source, vm, world, guard } = subject;
        let keys: Vec<_> =
            source.discover(&vm).await.unwrap().disks.into_iter().map(|disk| disk.key).collect();
        assert!(keys.len() >= 2, "the subject has two disks");
        Self { source, vm, world, keys, _guard: guard }
    }

    async fn freeze(&self, number: i64) -> PointInTime {
        self.source.freeze(&self.vm, &job(number)).await.unwrap()
    }

    /// Writes sixteen bytes, others in every round.
    async fn write(&self, key: &DiskKey, offset: u64, round: u8) -> Extent {
        self.world.write(key, offset, Bytes::from(vec![round; 16])).await;
        Extent::new(offset, 16).unwrap()
    }

    async fn read(&self, point: &PointInTime, key: &DiskKey, offset: u64, length: usize) -> Bytes {
        let disk = self.source.open(&point.id, key).await.unwrap();
        disk.read_at(offset, BytesMut::zeroed(length)).await.unwrap().freeze()
    }

    async fn changed(&self, point: &PointInTime, key: &DiskKey, since: &ChangeId) -> Changes {
        self.source.changed(&point.id, key, since).await.unwrap()
    }
}

/// The same job for the same number.
fn job(number: i64) -> JobId {
    JobId::parse(format!("job-{}-abcdef", Timestamp::from_millis(number * 1000).compact())).unwrap()
}

fn disk<'a>(point: &'a PointInTime, key: &DiskKey) -> &'a PointDisk {
    point.disks.iter().find(|disk| disk.key == *key).expect("the point has the disk")
}

fn holds(changes: &Changes, written: &[Extent]) -> bool {
    match changes {
        Changes::Unknown(reason) => !reason.is_empty(),
        Changes::Since(set) => written.iter().all(|extent| set.gaps(*extent).is_empty()),
    }
}

async fn discover_answers_the_vm_and_its_disks(subject: SourceSubject) {
    let found = subject.source.discover(&subject.vm).await.unwrap();
    assert_eq!(found.path, subject.vm);
    let keys: BTreeSet<_> = found.disks.iter().map(|disk| &disk.key).collect();
    assert_eq!(keys.len(), found.disks.len(), "keys are unique");
    assert!(found.disks.iter().all(|disk| disk.capacity.bytes() >= 1 << 20), "{found:?}");
}

async fn discover_answers_the_same_identity_every_time(subject: SourceSubject) {
    let first = subject.source.discover(&subject.vm).await.unwrap();
    assert_eq!(subject.source.discover(&subject.vm).await.unwrap(), first);
}

async fn a_point_has_every_disk_with_its_capacity(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let point = bench.freeze(1).await;
    let found = bench.source.discover(&bench.vm).await.unwrap();
    assert_eq!(point.disks.len(), found.disks.len());
    for described in found.disks {
        assert_eq!(disk(&point, &described.key).capacity, described.capacity);
        let opened = bench.source.open(&point.id, &described.key).await.unwrap();
        assert_eq!(opened.info().capacity, described.capacity);
    }
}

async fn freeze_again_for_a_job_answers_the_same_content(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let (first, again) = (bench.freeze(1).await, bench.freeze(1).await);
    assert_eq!(first.id, again.id);
    for key in &bench.keys {
        assert_eq!(disk(&first, key).content, disk(&again, key).content);
    }
}

async fn another_content_has_another_content_id(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[1];
    let first = bench.freeze(1).await;
    bench.source.release(&first.id).await.unwrap();
    bench.write(key, 4096, 1).await;
    let second = bench.freeze(2).await;
    assert_ne!(disk(&first, key).content, disk(&second, key).content);
}

async fn a_disk_at_a_point_is_read_only_and_holds_what_the_guest_wrote(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    for key in &bench.keys {
        bench.world.write(key, 8192, sample(8192, 4096)).await;
    }
    let point = bench.freeze(1).await;
    for key in &bench.keys {
        let opened = bench.source.open(&point.id, key).await.unwrap();
        assert_eq!(opened.info().access, Access::ReadOnly);
        assert_eq!(bench.read(&point, key, 8192, 4096).await, sample(8192, 4096), "{key}");
    }
}

async fn an_unknown_disk_is_not_found(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let point = bench.freeze(1).await;
    let key = DiskKey::parse("no-such-disk").unwrap();
    assert_eq!(bench.source.open(&point.id, &key).await.unwrap_err().kind(), ErrorKind::NotFound);
    let since = ChangeId::mint();
    assert_eq!(bench.source.changed(&point.id, &key, &since).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        bench.source.committed(&point.id, &key, &since).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

async fn changes_hold_every_byte_that_differs_or_are_unknown(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    let first = bench.freeze(1).await;
    bench.source.release(&first.id).await.unwrap();
    let written = [bench.write(key, 0, 1).await, bench.write(key, 600 << 10, 2).await];
    let second = bench.freeze(2).await;
    let changes = bench.changed(&second, key, &disk(&first, key).change_id).await;
    assert!(holds(&changes, &written), "{changes:?}");
}

async fn changes_since_an_opaque_change_id_are_unknown_or_complete(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    let written = [bench.write(key, 0, 1).await, bench.write(key, 600 << 10, 2).await];
    let point = bench.freeze(1).await;
    let changes = bench.changed(&point, key, &ChangeId::mint()).await;
    assert!(holds(&changes, &written), "{changes:?}");
}

async fn a_point_that_nobody_wrote_to_is_confirmed(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    bench.write(key, 4096, 1).await;
    let point = bench.freeze(1).await;
    bench.read(&point, key, 4096, 16).await;
    for _ in 0..2 {
        bench.source.confirm(&point).await.unwrap();
    }
}

async fn release_is_idempotent(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let point = bench.freeze(1).await;
    bench.source.release(&point.id).await.unwrap();
    bench.source.release(&point.id).await.unwrap();
    bench.source.release(&PointId::parse("never-frozen").unwrap()).await.unwrap();
}

async fn an_unknown_vm_is_not_found(subject: SourceSubject) {
    let vm = VmPath::parse("/DC/vm/no-such-vm").unwrap();
    assert_eq!(subject.source.discover(&vm).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(subject.source.freeze(&vm, &job(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn an_unknown_point_is_not_found(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let (point, key) = (PointId::parse("never-frozen").unwrap(), &bench.keys[0]);
    assert_eq!(bench.source.open(&point, key).await.unwrap_err().kind(), ErrorKind::NotFound);
    let since = ChangeId::mint();
    assert_eq!(bench.source.changed(&point, key, &since).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_point_keeps_its_content_while_the_guest_writes(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    bench.write(key, 4096, 1).await;
    let point = bench.freeze(1).await;
    let opened = bench.source.open(&point.id, key).await.unwrap();
    bench.write(key, 4096, 2).await;
    let seen = opened.read_at(4096, BytesMut::zeroed(16)).await.unwrap();
    assert_eq!(seen[..], [1; 16]);
    assert_eq!(bench.read(&point, key, 4096, 16).await[..], [1; 16]);
}

async fn a_point_is_confirmed_while_the_guest_writes(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    bench.write(key, 4096, 1).await;
    let point = bench.freeze(1).await;
    bench.write(key, 4096, 2).await;
    bench.source.confirm(&point).await.unwrap();
    assert_eq!(bench.read(&point, key, 4096, 16).await[..], [1; 16]);
}

async fn freeze_again_after_writes_answers_the_same_content(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    let first = bench.freeze(1).await;
    bench.write(key, 4096, 2).await;
    let again = bench.freeze(1).await;
    assert_eq!(disk(&first, key).content, disk(&again, key).content);
    assert_ne!(bench.read(&again, key, 4096, 16).await[..], [2; 16]);
}

async fn a_released_point_is_not_found(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let point = bench.freeze(1).await;
    bench.source.release(&point.id).await.unwrap();
    let error = bench.source.open(&point.id, &bench.keys[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // Nothing can be read of it, so nothing wrong.
    let confirmed = bench.source.confirm(&point).await;
    assert!(
        confirmed.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::NotFound),
        "{confirmed:?}"
    );
}

async fn l20_releasing_the_point_of_one_job_leaves_that_of_another(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    bench.write(key, 0, 1).await;
    let first = bench.freeze(1).await;
    bench.write(key, 0, 2).await;
    let second = bench.freeze(2).await;
    assert_ne!(first.id, second.id);
    bench.source.release(&second.id).await.unwrap();
    assert_eq!(bench.read(&first, key, 0, 16).await[..], [1; 16]);
}

async fn changes_add_up_over_several_points(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    let base = bench.freeze(1).await;
    let mut written = ExtentSet::new();
    for round in 2..5u8 {
        written.insert(bench.write(key, u64::from(round) * (128 << 10), round).await);
        let point = bench.freeze(round.into()).await;
        let changes = bench.changed(&point, key, &disk(&base, key).change_id).await;
        let Changes::Since(found) = &changes else { panic!("{changes:?}") };
        assert!(written.difference(found).is_empty(), "{found:?}");
    }
}

async fn a_commit_forgets_nothing_that_newer_change_ids_need(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    let mut marks = Vec::new();
    for number in 1..4u8 {
        let point = bench.freeze(number.into()).await;
        marks.push(disk(&point, key).change_id.clone());
        bench.source.release(&point.id).await.unwrap();
        bench.write(key, u64::from(number) * (128 << 10), number).await;
    }
    let point = bench.freeze(4).await;
    for _ in 0..2 {
        bench.source.committed(&point.id, key, &marks[1]).await.unwrap();
        for since in &marks[1..] {
            let changes = bench.changed(&point, key, since).await;
            assert!(matches!(changes, Changes::Since(_)), "{changes:?}");
        }
    }
}

async fn changes_after_a_reset_of_tracking_are_unknown(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let key = &bench.keys[0];
    let first = bench.freeze(1).await;
    bench.write(key, 0, 1).await;
    bench.world.reset_tracking(key).await;
    let second = bench.freeze(2).await;
    let changes = bench.changed(&second, key, &disk(&first, key).change_id).await;
    assert!(matches!(changes, Changes::Unknown(_)), "{changes:?}");
}

async fn l04_changes_of_one_disk_are_not_those_of_another(subject: SourceSubject) {
    let bench = Bench::new(subject).await;
    let first = bench.freeze(1).await;
    let written = bench.write(&bench.keys[1], 256 << 10, 1).await;
    let second = bench.freeze(2).await;
    let of = |key: DiskKey| {
        let (bench, since) = (&bench, disk(&first, &key).change_id.clone());
        let second = &second;
        async move { bench.changed(second, &key, &since).await }
    };
    let (other, own) = (of(bench.keys[0].clone()).await, of(bench.keys[1].clone()).await);
    assert!(holds(&own, &[written]) && matches!(own, Changes::Since(_)), "{own:?}");
    assert!(!holds(&other, &[written]) && matches!(other, Changes::Since(_)), "{other:?}");
}
