//! How long logs are kept.

use super::super::runner::table;
use super::*;
use crate::record::{JobLine, LogEvent, LogFilter, PageStart, Pruned, Retention};

use super::lines::line;
use super::logs::event;

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        without_a_rule_everything_is_kept,
        what_is_too_old_is_deleted,
        only_the_newest_are_kept,
        of_lines_those_recorded_last_are_kept,
        what_either_rule_gives_up_is_deleted,
        thousands_are_deleted_in_one_call,
        thousands_of_one_moment_are_deleted_in_one_call,
        a_deleted_line_can_be_recorded_again,
        ids_of_deleted_events_are_not_given_again,
    ]
}

impl StoreSubject {
    async fn prune(&self, older_than: Option<u32>, keep: Option<u64>) -> (u64, u64) {
        let older_than = older_than.map(|number| event(number).at);
        let Pruned { events, lines } = self.logs.prune(&Retention { older_than, keep }).await.unwrap();
        (events, lines)
    }

    async fn kept(&self) -> Vec<String> {
        self.page(&LogFilter::default(), PageStart::Oldest, u32::MAX).await
    }
}

async fn without_a_rule_everything_is_kept(store: StoreSubject) {
    store.append(0..3).await;
    assert_eq!(store.prune(None, None).await, (0, 0));
    assert_eq!(store.kept().await, ["0", "1", "2"]);
}

async fn what_is_too_old_is_deleted(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    // In an order that is not that of their times.
    store.append([7, 2, 5, 4].into_iter()).await;
    store.logs.append_lines(&job, &[line(3), line(5), line(9)]).await.unwrap();
    assert_eq!(store.prune(Some(5), None).await, (2, 1));
    assert_eq!(store.kept().await, ["7", "5"]);
    assert_eq!(store.all_lines(&job).await, [line(5), line(9)]);
    assert_eq!(store.prune(Some(5), None).await, (0, 0));
}

async fn only_the_newest_are_kept(store: StoreSubject) {
    // The newest are those recorded last, whatever their times.
    store.append([9, 8, 1, 2].into_iter()).await;
    assert_eq!(store.prune(None, Some(4)).await, (0, 0));
    assert_eq!(store.prune(None, Some(2)).await, (2, 0));
    assert_eq!(store.kept().await, ["1", "2"]);
    assert_eq!(store.prune(None, Some(0)).await, (2, 0));
    assert!(store.kept().await.is_empty());
}

async fn of_lines_those_recorded_last_are_kept(store: StoreSubject) {
    let (one, two) = (store.automation_job("run-1").await, store.automation_job("run-2").await);
    store.logs.append_lines(&one, &[line(1), line(9)]).await.unwrap();
    store.logs.append_lines(&two, &[line(1)]).await.unwrap();
    store.logs.append_lines(&one, &[line(3)]).await.unwrap();
    assert_eq!(store.prune(None, Some(2)).await, (0, 2));
    assert_eq!(store.all_lines(&one).await, [line(3)]);
    assert_eq!(store.all_lines(&two).await, [line(1)]);
    assert_eq!(store.prune(None, Some(0)).await, (0, 2));
}

async fn what_either_rule_gives_up_is_deleted(store: StoreSubject) {
    store.append([1, 9, 2, 8].into_iter()).await;
    assert_eq!(store.prune(Some(5), Some(3)).await, (2, 0));
    assert_eq!(store.kept().await, ["9", "8"]);
    // What one rule gives up makes no room under the other one.
    store.append([2].into_iter()).await;
    assert_eq!(store.prune(Some(5), Some(2)).await, (2, 0));
    assert_eq!(store.kept().await, ["8"]);
}

async fn thousands_are_deleted_in_one_call(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    store.append(0..7000).await;
    let lines: Vec<_> = (1..=6500).map(line).collect();
    store.logs.append_lines(&job, &lines).await.unwrap();
    assert_eq!(store.prune(Some(5001), None).await, (5001, 5000));
    assert_eq!(store.prune(None, Some(9)).await, (1990, 1491));
    assert_eq!(store.kept().await.len(), 9);
    assert_eq!(store.all_lines(&job).await, lines[6491..]);
}

async fn thousands_of_one_moment_are_deleted_in_one_call(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    let events: Vec<_> = (0..6000).map(|number| LogEvent { at: event(7).at, ..event(number) }).collect();
    store.logs.append(&events).await.unwrap();
    let lines: Vec<_> = (1..=6000).map(|number| JobLine { at: event(7).at, ..line(number) }).collect();
    store.logs.append_lines(&job, &lines).await.unwrap();
    store.append(8..9).await;
    assert_eq!(store.prune(Some(8), None).await, (6000, 6000));
    assert_eq!(store.kept().await, ["8"]);
}

async fn a_deleted_line_can_be_recorded_again(store: StoreSubject) {
    let job = store.automation_job("run-1").await;
    store.logs.append_lines(&job, &[line(1)]).await.unwrap();
    store.prune(None, Some(0)).await;
    let other = JobLine { text: "other".to_owned(), ..line(1) };
    store.logs.append_lines(&job, std::slice::from_ref(&other)).await.unwrap();
    assert_eq!(store.all_lines(&job).await, [other]);
}

async fn ids_of_deleted_events_are_not_given_again(store: StoreSubject) {
    let (filter, page) = logs::all();
    store.append(0..3).await;
    let last = store.logs.events(&filter, &page).await.unwrap()[2].0;
    store.prune(None, Some(0)).await;
    store.append(3..4).await;
    assert!(store.logs.events(&filter, &page).await.unwrap()[0].0 > last);
}
