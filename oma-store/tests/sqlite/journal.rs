use oma_core::record::JournalBasis;
use oma_core::traits::ExtentJournal;
use oma_core::{ByteSize, DiskRef, Extent, ExtentSet, Generation, PointId};
use proptest::prelude::*;
use sqlx::Row;

use crate::fixture::{Folder, begun, key};

fn basis() -> JournalBasis {
    JournalBasis {
        generation: Generation::FIRST,
        content: PointId::parse("point").unwrap(),
        base: None,
        capacity: ByteSize::gib(40),
    }
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
    ExtentJournal::begin(&store, &lease, &key(), &basis(), &ExtentSet::new()).await.unwrap();
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
    ExtentJournal::begin(&store, &lease, &key(), &basis(), &ExtentSet::new()).await.unwrap();
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
