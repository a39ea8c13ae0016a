use super::*;
use oma_core::PointId;
use tempfile::TempDir;

fn basis() -> CopyBasis {
    CopyBasis {
        content: PointId::parse("a").unwrap(),
        capacity: ByteSize::gib(1),
        target: "t".to_owned(),
        target_capacity: ByteSize::gib(1),
        extents: None,
    }
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).unwrap()
}

/// A journal with two finished extents, closed.
async fn closed() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal");
    let journal = FileJournal::open(&path).await.unwrap();
    journal.begin(&basis(), ByteSize::mib(1)).await.unwrap();
    for at in [0, 8192] {
        journal.record(extent(at, 4096)).await.unwrap();
    }
    (folder, path)
}

async fn finished(path: &Path) -> Vec<Extent> {
    let journal = FileJournal::open(path).await.unwrap();
    journal.load().await.unwrap().unwrap().finished.iter().collect()
}

#[tokio::test]
async fn l15_a_torn_last_line_is_written_over() {
    let (_folder, path) = closed().await;
    let whole = fs::read(&path).unwrap();
    for cut in whole.len() - 30..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let journal = FileJournal::open(&path).await.unwrap();
        assert_eq!(journal.load().await.unwrap().unwrap().finished.bytes().bytes(), 4096);
        journal.begin(&basis(), ByteSize::ZERO).await.unwrap();
        journal.record(extent(65_536, 1)).await.unwrap();
        drop(journal);
        assert_eq!(finished(&path).await, [extent(0, 4096), extent(65_536, 1)]);
    }
    // A file system may make a file longer before it has the data.
    fs::write(&path, [&whole[..], &[0; 100]].concat()).unwrap();
    assert_eq!(finished(&path).await, [extent(0, 4096), extent(8192, 4096)]);
}

#[tokio::test]
async fn a_journal_that_was_changed_is_refused() {
    let (_folder, path) = closed().await;
    let mut damaged = fs::read(&path).unwrap();
    damaged[40] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = FileJournal::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.chain().contains("line 1") && error.chain().contains("remove"), "{}", error.chain());
    assert!(fs::read(&path).unwrap() == damaged);
}

#[tokio::test]
async fn no_other_file_is_taken_for_a_journal_or_changed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notes");
    for text in ["my notes\n", "o", "oma-copy-journal-9 {}\n"] {
        fs::write(&path, text).unwrap();
        let opened = FileJournal::open(&path).await;
        if text == "o" {
            // As much of a journal as was written when its maker was killed.
            assert_eq!(opened.unwrap().load().await.unwrap(), None);
            continue;
        }
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    let error = FileJournal::open(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let journal = FileJournal::open(folder.path().join("later")).await.unwrap();
    fs::write(folder.path().join("later"), "somebody's").unwrap();
    assert!(journal.begin(&basis(), ByteSize::ZERO).await.is_err());
    assert_eq!(fs::read_to_string(folder.path().join("later")).unwrap(), "somebody's");
}

#[tokio::test]
async fn l16_one_copy_at_a_time_has_a_journal() {
    let (_folder, path) = closed().await;
    let journal = FileJournal::open(&path).await.unwrap();
    assert_eq!(FileJournal::open(&path).await.unwrap_err().kind(), ErrorKind::Busy);
    drop(journal);
    FileJournal::open(&path).await.unwrap();
}

/// Gives a journal so many lines that the next run writes it anew.
async fn lengthen(path: &Path) {
    let journal = FileJournal::open(path).await.unwrap();
    let open = journal.0.state.lock().unwrap().take().unwrap();
    let mut chain = open.parsed.chain.clone();
    let more: String =
        (0..2000).map(|at| chain.finished(&[extent(1 << 20 | at << 4, 16)].into_iter().collect())).collect();
    open.file.write_all_at(more.as_bytes(), open.parsed.length).unwrap();
}

#[tokio::test]
async fn a_long_journal_is_made_short_and_says_the_same() {
    let (folder, path) = closed().await;
    lengthen(&path).await;
    let before = finished(&path).await;
    let (length, left) = (fs::metadata(&path).unwrap().len(), folder.path().join(".journal.new"));
    fs::write(&left, "of a run that was killed").unwrap();
    let journal = FileJournal::open(&path).await.unwrap();
    journal.begin(&basis(), ByteSize::mib(1)).await.unwrap();
    assert_eq!(
        FileJournal::open(&path).await.unwrap_err().kind(),
        ErrorKind::Busy,
        "it is locked all the time"
    );
    drop(journal);
    assert_eq!(finished(&path).await, before);
    assert!(fs::metadata(&path).unwrap().len() < length / 10 && !left.exists());
    let entry = FileJournal::open(&path).await.unwrap().load().await.unwrap().unwrap();
    assert_eq!(entry.unrecorded, ByteSize::mib(2));
}

#[tokio::test]
async fn what_came_into_the_place_of_a_journal_stays() {
    for is_long in [false, true] {
        let (_folder, path) = closed().await;
        if is_long {
            lengthen(&path).await;
        }
        let journal = FileJournal::open(&path).await.unwrap();
        fs::rename(&path, path.with_extension("moved")).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        journal.begin(&basis(), ByteSize::ZERO).await.unwrap();
        journal.end().await.unwrap();
        journal.end().await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
        // Of a copy that is done, whatever the target became since.
        let moved = FileJournal::open(path.with_extension("moved")).await.unwrap();
        assert_eq!(moved.load().await.unwrap(), None);
    }
}

#[tokio::test]
async fn l15_a_journal_that_somebody_removed_is_written_anew_when_a_run_begins() {
    for is_long in [false, true] {
        let (_folder, path) = closed().await;
        if is_long {
            lengthen(&path).await;
        }
        let before = finished(&path).await;
        let journal = FileJournal::open(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        journal.begin(&basis(), ByteSize::ZERO).await.unwrap();
        journal.record(extent(1 << 29, 4096)).await.unwrap();
        assert_eq!(FileJournal::open(&path).await.unwrap_err().kind(), ErrorKind::Busy);
        drop(journal);
        assert_eq!(finished(&path).await, [before, vec![extent(1 << 29, 4096)]].concat());
    }
}

#[tokio::test]
async fn l16_a_journal_that_was_taken_for_that_of_a_killed_maker_is_not_written() {
    let (_folder, path) = closed().await;
    let entry = FileJournal::open(&path).await.unwrap().load().await.unwrap().unwrap();
    let new = path.with_extension("new");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&new).unwrap();
    // Between the making and the lock.
    assert_eq!(FileJournal::open(&new).await.unwrap().load().await.unwrap(), None);
    let seen = file.try_clone().unwrap();
    assert!(fill(file, &new, &entry).unwrap().is_none());
    assert_eq!((seen.metadata().unwrap().len(), new.exists()), (0, false));
    make(&new, &entry).unwrap();
    assert_eq!(finished(&new).await, finished(&path).await);
}

#[tokio::test]
async fn l14_a_journal_that_was_moved_away_says_nothing_any_more_once_it_is_forgotten() {
    let (folder, path) = closed().await;
    let journal = FileJournal::open(&path).await.unwrap();
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    fs::write(&path, "of somebody else").unwrap();
    assert_eq!(journal.forget().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(fs::read(&path).unwrap(), b"of somebody else");
    drop(journal);
    assert!(FileJournal::open(&moved).await.unwrap().load().await.unwrap().is_none());
}
