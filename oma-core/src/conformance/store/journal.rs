use super::super::runner::table;
use super::*;
use crate::record::{JobEnd, JournalEntry};
use crate::state::DiskStatus;

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_disk_without_a_journal_has_none,
        a_journal_begins_empty_and_its_disk_syncs,
        beginning_again_replaces_the_journal,
        a_journal_carries_over_what_is_finished_and_goes_on_from_there,
        the_bytes_synced_of_a_full_copy_are_those_of_the_disk,
        a_journal_of_very_many_extents_comes_back_as_it_was,
        l16_a_fenced_worker_neither_begins_nor_carries_over,
        l25_recording_adds_extents_and_sets_the_bytes_synced,
        recording_the_same_extent_again_changes_nothing,
        any_extents_in_any_order_are_kept_as_one_set,
        a_disk_of_another_job_or_without_a_journal_is_not_found,
        a_journal_outlives_its_failed_job_and_the_next_goes_on_with_it,
        a_commit_removes_the_journals,
        a_journal_is_only_for_a_job_that_has_the_disk,
        l08_only_the_committed_disks_lose_their_journals,
    ]
}

async fn begun(store: &StoreSubject) -> (VmContext, Lease, DiskRef) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let planned = [extent(0, 4096), extent(1 << 20, 512)].into_iter().collect();
    let entry = JournalEntry::new(basis(Generation::FIRST), planned);
    store.journal.begin(&lease, &disk.key, &entry).await.unwrap();
    (vm, lease, disk)
}

async fn loaded(store: &StoreSubject, disk: &DiskRef) -> JournalEntry {
    store.journal.load(disk).await.unwrap().unwrap()
}

async fn a_disk_without_a_journal_has_none(store: StoreSubject) {
    let vm = store.vm().await;
    assert_eq!(store.journal.load(&store.disk(&vm, KEYS[0])).await.unwrap(), None);
    assert_eq!(store.journal.load(&store.disk(&vm, "disk-9")).await.unwrap(), None);
}

async fn a_journal_begins_empty_and_its_disk_syncs(store: StoreSubject) {
    let (_, _, disk) = begun(&store).await;
    let entry = loaded(&store, &disk).await;
    assert_eq!(entry.basis, basis(Generation::FIRST));
    assert_eq!(entry.planned.iter().collect::<Vec<_>>(), [extent(0, 4096), extent(1 << 20, 512)]);
    assert!(entry.finished.is_empty());
    let record = store.inventory.disk(&disk).await.unwrap().unwrap();
    assert_eq!((record.status, record.bytes_synced), (DiskStatus::Syncing, ByteSize::ZERO));
}

async fn beginning_again_replaces_the_journal(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    store.journal.record(&lease, &disk.key, extent(0, 10), ByteSize::new(10)).await.unwrap();
    let mut other = basis(Generation(2));
    other.base = Some(change_id("52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446"));
    let entry = JournalEntry::new(other.clone(), ExtentSet::new());
    store.journal.begin(&lease, &disk.key, &entry).await.unwrap();
    let entry = loaded(&store, &disk).await;
    assert_eq!((entry.basis, entry.planned.count(), entry.finished.count()), (other, 0, 0));
    let record = store.inventory.disk(&disk).await.unwrap().unwrap();
    assert_eq!(record.bytes_synced, ByteSize::ZERO);
}

/// What is finished of a journal that was carried over to another point in time.
fn carried_over() -> JournalEntry {
    let mut basis = basis(Generation(2));
    basis.base = Some(change_id("c1"));
    (basis.content, basis.change_id) = (PointId::parse("point-2").unwrap(), change_id("c2"));
    JournalEntry {
        basis,
        planned: [extent(0, 4096), extent(8192, 512), extent(1 << 20, 512)].into_iter().collect(),
        finished: [extent(100, 10), extent(4000, 8192 - 4000 + 7), extent(1 << 21, 5)].into_iter().collect(),
        recopied: ByteSize::new(77),
    }
}

async fn a_journal_carries_over_what_is_finished_and_goes_on_from_there(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    store.journal.record(&lease, &disk.key, extent(0, 4096), ByteSize::new(4096)).await.unwrap();
    let mut entry = carried_over();
    for _ in 0..2 {
        store.journal.begin(&lease, &disk.key, &entry).await.unwrap();
        assert_eq!(loaded(&store, &disk).await, entry);
        let record = store.inventory.disk(&disk).await.unwrap().unwrap();
        assert_eq!(record.bytes_synced, ByteSize::new(10 + 96 + 7));
    }
    for (offset, length) in [(110, 10), (90, 30), (1 << 30, 1), (8192, 512), (50, 5)] {
        store.journal.record(&lease, &disk.key, extent(offset, length), ByteSize::new(200)).await.unwrap();
        entry.finished.insert(extent(offset, length));
        assert_eq!(loaded(&store, &disk).await, entry, "after {offset}+{length}");
    }
}

async fn the_bytes_synced_of_a_full_copy_are_those_of_the_disk(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    let basis = basis(Generation::FIRST);
    let beyond = extent(basis.capacity.bytes() - 5, 10);
    let finished = [extent(0, 100), beyond].into_iter().collect();
    let entry = JournalEntry { finished, ..JournalEntry::new(basis, ExtentSet::new()) };
    store.journal.begin(&lease, &disk.key, &entry).await.unwrap();
    let record = store.inventory.disk(&disk).await.unwrap().unwrap();
    assert_eq!(record.bytes_synced, ByteSize::new(105));
}

async fn a_journal_of_very_many_extents_comes_back_as_it_was(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    let every = |step: u64, length| (0..70_000).map(move |at| extent(at * step, length)).collect();
    let mut entry = JournalEntry::new(basis(Generation::FIRST), every(65_536, 4096));
    entry.finished = every(131_072, 4096);
    store.journal.begin(&lease, &disk.key, &entry).await.unwrap();
    assert_eq!(loaded(&store, &disk).await, entry);
    store.journal.begin(&lease, &disk.key, &empty_journal()).await.unwrap();
    assert_eq!(loaded(&store, &disk).await, empty_journal());
}

async fn l16_a_fenced_worker_neither_begins_nor_carries_over(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    store.clock.advance(TTL * 2);
    store.jobs.claim(&lease.job, &worker("other"), TTL).await.unwrap();
    let before = loaded(&store, &disk).await;
    assert_kind(store.journal.begin(&lease, &disk.key, &carried_over()).await, ErrorKind::Fenced);
    let record = store.journal.record(&lease, &disk.key, extent(0, 1), ByteSize::new(1)).await;
    assert_kind(record, ErrorKind::Fenced);
    assert_eq!(loaded(&store, &disk).await, before);
}

async fn l25_recording_adds_extents_and_sets_the_bytes_synced(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    for (offset, length, synced) in [(0, 100, 100), (100, 100, 200), (1 << 20, 5, 205)] {
        let synced = ByteSize::new(synced);
        store.journal.record(&lease, &disk.key, extent(offset, length), synced).await.unwrap();
        assert_eq!(store.inventory.disk(&disk).await.unwrap().unwrap().bytes_synced, synced);
    }
    let finished = loaded(&store, &disk).await.finished;
    assert_eq!(finished.iter().collect::<Vec<_>>(), [extent(0, 200), extent(1 << 20, 5)]);
}

async fn recording_the_same_extent_again_changes_nothing(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    for _ in 0..2 {
        store.journal.record(&lease, &disk.key, extent(7, 100), ByteSize::new(100)).await.unwrap();
    }
    assert_eq!(loaded(&store, &disk).await.finished.iter().collect::<Vec<_>>(), [extent(7, 100)]);
}

async fn any_extents_in_any_order_are_kept_as_one_set(store: StoreSubject) {
    let (_, lease, disk) = begun(&store).await;
    let mut model = ExtentSet::new();
    let list =
        [(50, 10), (10, 10), (70, 1), (15, 40), (60, 10), (0, 5), (9, 1), (5, 4), (1 << 40, 3), (30, 2)];
    for (offset, length) in list {
        model.insert(extent(offset, length));
        store.journal.record(&lease, &disk.key, extent(offset, length), model.bytes()).await.unwrap();
        assert_eq!(loaded(&store, &disk).await.finished, model, "after {offset}+{length}");
    }
}

async fn a_disk_of_another_job_or_without_a_journal_is_not_found(store: StoreSubject) {
    let (vm, lease, _) = begun(&store).await;
    let none = store.journal.record(&lease, &key(KEYS[1]), extent(0, 1), ByteSize::new(1)).await;
    assert_kind(none, ErrorKind::NotFound);
    let unknown = key("disk-9");
    let begin = store.journal.begin(&lease, &unknown, &empty_journal()).await;
    assert_kind(begin, ErrorKind::NotFound);
    assert_eq!(store.journal.load(&store.disk(&vm, KEYS[1])).await.unwrap(), None);
}

async fn a_journal_outlives_its_failed_job_and_the_next_goes_on_with_it(store: StoreSubject) {
    let (vm, lease, disk) = begun(&store).await;
    store.journal.record(&lease, &disk.key, extent(0, 100), ByteSize::new(100)).await.unwrap();
    let before = loaded(&store, &disk).await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let next = store.second_job(&vm).await;
    assert_eq!(loaded(&store, &disk).await, before);
    store.journal.record(&next, &disk.key, extent(100, 50), ByteSize::new(150)).await.unwrap();
    let record = store.inventory.disk(&disk).await.unwrap().unwrap();
    assert_eq!((record.status, record.bytes_synced), (DiskStatus::Syncing, ByteSize::new(150)));
    assert_eq!(loaded(&store, &disk).await.finished.iter().collect::<Vec<_>>(), [extent(0, 150)]);
}

async fn a_commit_removes_the_journals(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let disk = store.disk(&vm, KEYS[0]);
    assert!(store.journal.load(&disk).await.unwrap().is_some());
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert_eq!(store.journal.load(&disk).await.unwrap(), None);
}

async fn a_journal_is_only_for_a_job_that_has_the_disk(store: StoreSubject) {
    let (vm, lease, disk) = begun(&store).await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let without = store.job_of(JobSpec { disks: vec![key(KEYS[1])], ..store.spec(&vm) }).await;
    let before = store.world(&vm).await;
    let record = store.journal.record(&without, &disk.key, extent(0, 1), ByteSize::new(1)).await;
    assert_kind(record, ErrorKind::NotFound);
    assert_kind(store.journal.begin(&without, &disk.key, &empty_journal()).await, ErrorKind::NotFound);
    assert_eq!(store.world(&vm).await, before);
}

async fn l08_only_the_committed_disks_lose_their_journals(store: StoreSubject) {
    let (vm, lease, disk) = begun(&store).await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let before = loaded(&store, &disk).await;
    let without = store.job_of(JobSpec { disks: vec![key(KEYS[1])], ..store.spec(&vm) }).await;
    let commit = store.ready_to_commit(&vm, &without, "first").await;
    store.change_ids.commit_epoch(&without, &commit).await.unwrap();
    assert_eq!(loaded(&store, &disk).await, before);
    assert_eq!(store.journal.load(&store.disk(&vm, KEYS[1])).await.unwrap(), None);
}
