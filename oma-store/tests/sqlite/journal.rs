use oma_core::record::{JournalBasis, JournalEntry};
use oma_core::traits::ExtentJournal;
use oma_core::{ByteSize, ChangeId, DiskRef, Endpoint, ErrorKind, Extent, ExtentSet, Generation, PointId};
use proptest::prelude::*;
use sqlx::Row;

use crate::fixture::{Folder, begun, key};

fn journal() -> JournalEntry {
    let basis = JournalBasis {
        generation: Generation::FIRST,
        endpoint: Endpoint::parse("vcenter.example").unwrap(),
        content: PointId::parse("point").unwrap(),
        change_id: ChangeId::parse("change").unwrap(),
        base: None,
        capacity: ByteSize::gib(40),
    };
    JournalEntry::new(basis, ExtentSet::new())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_holds_exactly_what_was_finished(list in prop::collection::vec((0_u64..90, 1_u64..12), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let extents: Vec<_> = list.into_iter().map(|(at, length)| Extent::new(at, length).unwrap()).collect();
        let finished = runtime.block_on(recorded(&extents));
        prop_assert_eq!(finished, extents.into_iter().collect::<ExtentSet>());
    }
}

async fn recorded(extents: &[Extent]) -> ExtentSet {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, lease) = begun(&store, "web").await;
    ExtentJournal::begin(&store, &lease, &key(), &journal()).await.unwrap();
    for extent in extents {
        ExtentJournal::record(&store, &lease, &key(), *extent, ByteSize::ZERO).await.unwrap();
    }
    let disk = DiskRef { context: vm.id, key: key() };
    store.load(&disk).await.unwrap().unwrap().finished
}

#[tokio::test]
async fn progress_is_what_is_durable_at_the_target() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (_, lease) = begun(&store, "web").await;
    ExtentJournal::begin(&store, &lease, &key(), &journal()).await.unwrap();
    let tenth = ByteSize::gib(4);
    let extent = Extent::new(0, tenth.bytes()).unwrap();
    ExtentJournal::record(&store, &lease, &key(), extent, tenth).await.unwrap();
    let seen = sqlx::query(
        "SELECT CAST(d.sync_progress_percent AS INTEGER) AS disk, CAST(j.progress_percent AS INTEGER) AS job, \
         j.bytes_transferred AS bytes FROM vm_disks d JOIN replication_jobs j ON j.id = d.job_id",
    );
    let row = seen.fetch_one(&mut folder.connect().await).await.unwrap();
    let seen: (i64, i64, i64) = (row.get("disk"), row.get("job"), row.get("bytes"));
    assert_eq!(seen, (10, 10, 4 << 30));
}

/// Whatever is changed by hand: nothing is told to be finished, and the next journal takes its place.
#[tokio::test]
async fn a_damaged_journal_is_corrupt_until_another_one_begins() {
    const DAMAGES: [&str; 8] = [
        "UPDATE disk_journals SET basis = REPLACE(basis, 'change', 'chance')",
        "UPDATE disk_journals SET planned_parts = 2",
        "UPDATE disk_journals SET checksum = ''",
        "UPDATE disk_journal_parts SET extents = REPLACE(extents, '.1.', '.2.') WHERE part = 0",
        "DELETE FROM disk_journal_parts WHERE part = 1",
        "UPDATE disk_journal_parts SET part = 7 - part",
        "UPDATE disk_journal_extents SET end_offset = end_offset + 4096",
        "UPDATE disk_journal_extents SET checksum = 'x'",
    ];
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, lease) = begun(&store, "web").await;
    let disk = DiskRef { context: vm.id, key: key() };
    let mut entry = journal();
    entry.planned.insert(Extent::new(0, 1 << 30).unwrap());
    entry.finished.insert(Extent::new(4096, 8192).unwrap());
    for damage in DAMAGES {
        ExtentJournal::begin(&store, &lease, &key(), &entry).await.unwrap();
        let run = Extent::new(1 << 20, 4096).unwrap();
        ExtentJournal::record(&store, &lease, &key(), run, ByteSize::ZERO).await.unwrap();
        store.load(&disk).await.unwrap().unwrap();
        sqlx::query(damage).execute(&mut folder.connect().await).await.unwrap();
        let error = store.load(&disk).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}: {}", error.chain());
    }
    ExtentJournal::begin(&store, &lease, &key(), &entry).await.unwrap();
    assert_eq!(store.load(&disk).await.unwrap(), Some(entry));
}

/// What is missing is copied again: the runs that are left are still right.
#[tokio::test]
async fn a_journal_that_lost_a_run_says_less_and_nothing_wrong() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, lease) = begun(&store, "web").await;
    ExtentJournal::begin(&store, &lease, &key(), &journal()).await.unwrap();
    for offset in [0, 1 << 20] {
        let run = Extent::new(offset, 4096).unwrap();
        ExtentJournal::record(&store, &lease, &key(), run, ByteSize::ZERO).await.unwrap();
    }
    let forget = "DELETE FROM disk_journal_extents WHERE start_offset = 0";
    sqlx::query(forget).execute(&mut folder.connect().await).await.unwrap();
    let entry = store.load(&DiskRef { context: vm.id, key: key() }).await.unwrap().unwrap();
    assert_eq!(entry.finished.iter().collect::<Vec<_>>(), [Extent::new(1 << 20, 4096).unwrap()]);
}
