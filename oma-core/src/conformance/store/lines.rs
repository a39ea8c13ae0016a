//! Lines of automation jobs.

use super::super::runner::table;
use super::*;
use crate::Timestamp;
use crate::record::{JobLine, Page};
use crate::state::LineStream;

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        lines_are_answered_as_they_were_recorded_by_number,
        lines_are_read_behind_a_number,
        lines_of_one_job_are_not_those_of_another,
        lines_of_an_unknown_job_are_not_found_and_none_is_read,
        the_same_line_again_changes_nothing,
        a_line_with_another_text_or_stream_is_a_conflict_and_nothing_is_recorded,
        a_line_twice_in_one_call_is_one_line,
        a_line_has_a_number_from_1_on,
        lines_keep_any_text,
        thousands_of_lines_are_recorded_at_once,
        the_same_lines_many_times_at_once_are_recorded_once,
    ]
}

pub(super) fn line(number: u64) -> JobLine {
    JobLine {
        number,
        stream: LineStream::Stdout,
        text: format!("line {number}"),
        at: Timestamp::from_millis(1_700_000_000_000 + i64::try_from(number).unwrap()),
    }
}

impl StoreSubject {
    pub(super) async fn automation_job(&self, text: &str) -> AutomationJobId {
        let id = AutomationJobId::parse(text).unwrap();
        (self.automation)(id.clone()).await;
        id
    }

    pub(super) async fn all_lines(&self, job: &AutomationJobId) -> Vec<JobLine> {
        self.logs.lines(job, 0, u32::MAX).await.unwrap()
    }
}

async fn lines_are_answered_as_they_were_recorded_by_number(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    let complaint = JobLine { stream: LineStream::Stderr, ..line(2) };
    store.logs.append_lines(&job, &[line(7), line(1)]).await.unwrap();
    store.logs.append_lines(&job, std::slice::from_ref(&complaint)).await.unwrap();
    assert_eq!(store.all_lines(&job).await, [line(1), complaint, line(7)]);
}

async fn lines_are_read_behind_a_number(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    store.logs.append_lines(&job, &[1, 2, 5, 6].map(line)).await.unwrap();
    let read = async |after, limit| store.logs.lines(&job, after, limit).await.unwrap();
    assert_eq!(read(0, 2).await, [1, 2].map(line));
    assert_eq!(read(2, 9).await, [5, 6].map(line));
    assert_eq!(read(3, 1).await, [line(5)]);
    assert_eq!(read(6, 9).await, []);
    assert_eq!(read(u64::MAX, 9).await, []);
    assert_eq!(read(0, 0).await, []);
}

async fn lines_of_one_job_are_not_those_of_another(store: StoreSubject) {
    let (one, two) = (store.automation_job("run-1").await, store.automation_job("run-2").await);
    store.logs.append_lines(&one, &[line(1), line(2)]).await.unwrap();
    let other = JobLine { text: "other".to_owned(), ..line(1) };
    store.logs.append_lines(&two, std::slice::from_ref(&other)).await.unwrap();
    assert_eq!(store.all_lines(&one).await, [line(1), line(2)]);
    assert_eq!(store.all_lines(&two).await, [other]);
}

async fn lines_of_an_unknown_job_are_not_found_and_none_is_read(store: StoreSubject) {
    let unknown = AutomationJobId::parse("run-none").unwrap();
    assert_kind(store.logs.append_lines(&unknown, &[line(1)]).await, ErrorKind::NotFound);
    assert_kind(store.logs.append_lines(&unknown, &[]).await, ErrorKind::NotFound);
    assert_eq!(store.all_lines(&unknown).await, []);
}

async fn the_same_line_again_changes_nothing(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    store.logs.append_lines(&job, &[1, 2, 3].map(line)).await.unwrap();
    let later = JobLine { at: line(900).at, ..line(2) };
    store.logs.append_lines(&job, &[later, line(3), line(4)]).await.unwrap();
    assert_eq!(store.all_lines(&job).await, [1, 2, 3, 4].map(line));
}

async fn a_line_with_another_text_or_stream_is_a_conflict_and_nothing_is_recorded(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    store.logs.append_lines(&job, &[1, 2].map(line)).await.unwrap();
    for other in [
        JobLine { text: "other".to_owned(), ..line(2) },
        JobLine { text: "line 2 ".to_owned(), ..line(2) },
        JobLine { text: "LINE 2".to_owned(), ..line(2) },
        JobLine { stream: LineStream::Stderr, ..line(2) },
    ] {
        let error = store.logs.append_lines(&job, &[line(3), other]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.chain().contains("line 2"), "{}", error.chain());
    }
    assert_eq!(store.all_lines(&job).await, [1, 2].map(line));
}

async fn a_line_twice_in_one_call_is_one_line(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    store.logs.append_lines(&job, &[line(1), line(2), line(1)]).await.unwrap();
    let other = JobLine { text: "other".to_owned(), ..line(3) };
    assert_kind(store.logs.append_lines(&job, &[line(3), other]).await, ErrorKind::Conflict);
    assert_eq!(store.all_lines(&job).await, [1, 2].map(line));
}

async fn a_line_has_a_number_from_1_on(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    for number in [0, 1 << 63, u64::MAX] {
        let line = JobLine { number, ..line(1) };
        assert_kind(store.logs.append_lines(&job, &[line]).await, ErrorKind::Invalid);
    }
    assert_eq!(store.all_lines(&job).await, []);
}

async fn lines_keep_any_text(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    let texts = ["", " blank at the end ", &"\u{1f4be}".repeat(1 << 14), "a\tb'\"?\\"];
    let lines: Vec<_> =
        (1..).zip(texts).map(|(number, text)| JobLine { text: text.to_owned(), ..line(number) }).collect();
    store.logs.append_lines(&job, &lines).await.unwrap();
    assert_eq!(store.all_lines(&job).await, lines);
    // Not every database can hold a NUL; a repetition is still known again.
    let with_nul = JobLine { text: "a\0b".to_owned(), ..line(9) };
    for _ in 0..2 {
        store.logs.append_lines(&job, std::slice::from_ref(&with_nul)).await.unwrap();
    }
    assert_eq!(store.logs.lines(&job, 8, 1).await.unwrap()[0].text, "a\u{fffd}b");
}

async fn thousands_of_lines_are_recorded_at_once(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    let lines: Vec<_> = (1..=2345).map(line).collect();
    store.logs.append_lines(&job, &lines[..1234]).await.unwrap();
    store.logs.append_lines(&job, &lines).await.unwrap();
    assert_eq!(store.all_lines(&job).await, lines);
    let many: Vec<_> = (1..=u64::from(Page::LARGEST) + 1).map(line).collect();
    store.logs.append_lines(&job, &many).await.unwrap();
    assert_eq!(store.all_lines(&job).await, many[..many.len() - 1]);
}

async fn the_same_lines_many_times_at_once_are_recorded_once(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    let lines: Vec<_> = (1..=50).map(line).collect();
    let append = |_| {
        let (logs, job, lines) = (store.logs.clone(), job.clone(), lines.clone());
        tokio::spawn(async move { logs.append_lines(&job, &lines).await })
    };
    let tasks: Vec<_> = (0..8).map(append).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.all_lines(&job).await, lines);
}
