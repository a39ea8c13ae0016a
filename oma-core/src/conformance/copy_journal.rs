//! What every [`CopyJournal`] promises.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::runner::table;
use super::{Case, Guard};
use crate::record::CopyBasis;
use crate::traits::CopyJournal;
use crate::{ByteSize, ErrorKind, Extent, PointId};

/// Opens the journal of the same place once more, as the next run does after the process died.
pub type ReopenJournal = Arc<dyn Fn() -> BoxFuture<'static, Arc<dyn CopyJournal>> + Send + Sync>;

/// Where there is no journal yet.
pub struct CopyJournalSubject {
    /// Opens it. One that was opened before is dropped first.
    pub open: ReopenJournal,
    /// What it lives on.
    pub guard: Guard,
}

impl fmt::Debug for CopyJournalSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyJournalSubject").finish_non_exhaustive()
    }
}

/// Cases over a place without a journal.
#[must_use]
pub fn copy_journal_cases() -> Vec<Case<CopyJournalSubject>> {
    table![
        without_a_journal_there_is_nothing_to_load_or_add_to,
        l15_what_was_noted_is_there_in_the_next_run,
        each_run_adds_what_it_may_leave_unrecorded_and_what_is_finished_stays,
        a_journal_of_another_copy_is_refused_and_stays,
        records_are_idempotent_and_come_in_any_order,
        l14_what_was_forgotten_is_not_finished_and_the_journal_stays,
        a_journal_that_was_ended_is_gone_and_another_copy_may_begin,
    ]
}

fn basis(content: &str) -> CopyBasis {
    CopyBasis {
        content: PointId::parse(content).unwrap(),
        capacity: ByteSize::gib(1),
        target: "target".to_owned(),
        target_capacity: ByteSize::gib(2),
        extents: None,
    }
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).unwrap()
}

const STEP: ByteSize = ByteSize::mib(1);

async fn without_a_journal_there_is_nothing_to_load_or_add_to(subject: CopyJournalSubject) {
    let journal = (subject.open)().await;
    assert_eq!(journal.load().await.unwrap(), None);
    assert_eq!(journal.record(extent(0, 1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    journal.end().await.unwrap();
}

async fn l15_what_was_noted_is_there_in_the_next_run(subject: CopyJournalSubject) {
    let journal = (subject.open)().await;
    journal.begin(&basis("a"), STEP).await.unwrap();
    journal.record(extent(0, 4096)).await.unwrap();
    journal.record(extent(65_536, 1)).await.unwrap();
    let before = journal.load().await.unwrap().unwrap();
    drop(journal);
    let after = (subject.open)().await.load().await.unwrap().unwrap();
    assert_eq!(after, before);
    assert_eq!(after.finished.iter().collect::<Vec<_>>(), [extent(0, 4096), extent(65_536, 1)]);
    assert_eq!((after.basis, after.unrecorded), (basis("a"), STEP));
}

async fn each_run_adds_what_it_may_leave_unrecorded_and_what_is_finished_stays(subject: CopyJournalSubject) {
    for run in 1..4 {
        let journal = (subject.open)().await;
        journal.begin(&basis("a"), STEP).await.unwrap();
        journal.record(extent(run * 10, 5)).await.unwrap();
        let entry = journal.load().await.unwrap().unwrap();
        assert_eq!(entry.unrecorded, ByteSize::mib(run));
        assert_eq!(entry.finished.bytes(), ByteSize::new(run * 5));
    }
}

async fn a_journal_of_another_copy_is_refused_and_stays(subject: CopyJournalSubject) {
    let journal = (subject.open)().await;
    journal.begin(&basis("a"), STEP).await.unwrap();
    journal.record(extent(0, 4096)).await.unwrap();
    let before = journal.load().await.unwrap();
    let others = [
        basis("b"),
        CopyBasis { capacity: ByteSize::gib(2), ..basis("a") },
        CopyBasis { target: "other".to_owned(), ..basis("a") },
        CopyBasis { target_capacity: ByteSize::gib(1), ..basis("a") },
        CopyBasis { extents: Some("hash".to_owned()), ..basis("a") },
    ];
    for other in others {
        assert_eq!(journal.begin(&other, STEP).await.unwrap_err().kind(), ErrorKind::Conflict, "{other:?}");
        assert_eq!(journal.load().await.unwrap(), before);
    }
}

async fn records_are_idempotent_and_come_in_any_order(subject: CopyJournalSubject) {
    let journal = (subject.open)().await;
    journal.begin(&basis("a"), STEP).await.unwrap();
    for (offset, length) in [(100, 10), (0, 50), (100, 10), (40, 60), (0, 1)] {
        journal.record(extent(offset, length)).await.unwrap();
    }
    drop(journal);
    let entry = (subject.open)().await.load().await.unwrap().unwrap();
    assert_eq!(entry.finished.iter().collect::<Vec<_>>(), [extent(0, 110)]);
}

async fn l14_what_was_forgotten_is_not_finished_and_the_journal_stays(subject: CopyJournalSubject) {
    let journal = (subject.open)().await;
    assert_eq!(journal.forget().await.unwrap_err().kind(), ErrorKind::NotFound);
    journal.begin(&basis("a"), STEP).await.unwrap();
    journal.record(extent(0, 4096)).await.unwrap();
    journal.forget().await.unwrap();
    drop(journal);
    let journal = (subject.open)().await;
    let entry = journal.load().await.unwrap().unwrap();
    assert_eq!((entry.finished.is_empty(), entry.basis), (true, basis("a")));
    assert_eq!(entry.unrecorded, STEP + ByteSize::kib(4), "it is copied again");
    journal.record(extent(8192, 1)).await.unwrap();
    assert_eq!(journal.load().await.unwrap().unwrap().finished.bytes(), ByteSize::new(1));
}

async fn a_journal_that_was_ended_is_gone_and_another_copy_may_begin(subject: CopyJournalSubject) {
    let journal = (subject.open)().await;
    journal.begin(&basis("a"), STEP).await.unwrap();
    journal.record(extent(0, 4096)).await.unwrap();
    journal.end().await.unwrap();
    journal.end().await.unwrap();
    drop(journal);
    let journal = (subject.open)().await;
    assert_eq!(journal.load().await.unwrap(), None);
    journal.begin(&basis("b"), STEP).await.unwrap();
    assert!(journal.load().await.unwrap().unwrap().finished.is_empty());
}
