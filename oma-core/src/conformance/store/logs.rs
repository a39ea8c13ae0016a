//! Log events: recorded at once, read by pages.

use serde_json::json;

use super::super::runner::table;
use super::*;
use crate::record::{LogEvent, LogFilter, Page, PageStart};
use crate::state::LogLevel;
use crate::{LogId, Timestamp};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        events_are_answered_as_they_were_recorded,
        no_event_at_all_is_recorded_too,
        ids_grow_in_the_order_of_recording,
        pages_go_forward_from_the_oldest,
        pages_go_backward_from_the_newest,
        a_page_is_never_larger_than_the_largest,
        events_are_filtered_by_their_job,
        events_are_filtered_by_how_much_they_matter,
        filters_and_pages_go_together,
        thousands_of_events_are_recorded_at_once,
        an_event_of_an_unknown_job_is_not_found_and_nothing_is_recorded,
        events_keep_any_text,
        a_nul_in_an_event_is_kept_as_the_replacement_character,
        events_recorded_at_once_are_all_kept,
        events_of_any_time_are_kept,
    ]
}

async fn events_of_any_time_are_kept(store: StoreSubject) {
    let times =
        [Timestamp::MAX, Timestamp::MIN, Timestamp::from_millis(-1), Timestamp::from_millis(951_782_400_001)];
    let events: Vec<_> = times.iter().map(|at| LogEvent { at: *at, ..event(0) }).collect();
    store.logs.append(&events).await.unwrap();
    let recorded: Vec<_> = store.recorded().await.into_iter().map(|(_, event)| event.at).collect();
    assert_eq!(recorded, times);
}

pub(super) fn event(number: u32) -> LogEvent {
    LogEvent {
        job: None,
        step: None,
        level: LogLevel::Info,
        message: format!("event {number}"),
        attrs: None,
        at: Timestamp::from_millis(1_700_000_000_000 + i64::from(number)),
    }
}

pub(super) fn all() -> (LogFilter, Page) {
    (LogFilter::default(), Page { start: PageStart::Oldest, limit: Page::LARGEST })
}

impl StoreSubject {
    pub(super) async fn append(&self, numbers: impl Iterator<Item = u32>) {
        let events: Vec<_> = numbers.map(event).collect();
        self.logs.append(&events).await.unwrap();
    }

    /// The messages of a page, without their first word.
    pub(super) async fn page(&self, filter: &LogFilter, start: PageStart, limit: u32) -> Vec<String> {
        let page = self.logs.events(filter, &Page { start, limit }).await.unwrap();
        page.into_iter().map(|(_, event)| event.message.replace("event ", "")).collect()
    }

    async fn recorded(&self) -> Vec<(LogId, LogEvent)> {
        let (filter, page) = all();
        self.logs.events(&filter, &page).await.unwrap()
    }
}

async fn events_are_answered_as_they_were_recorded(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let attrs =
        json!({ "z": [1, -2.5, null, true], "a": { "text": "\u{1f4be} \"quoted\"" }, "big": u64::MAX });
    let mut events = Vec::new();
    for (number, level) in (0..).zip(LogLevel::ALL) {
        events.push(LogEvent { level: *level, ..event(number) });
    }
    events[1] = LogEvent { job: Some(lease.job), attrs: Some(attrs), ..event(9) };
    events[2].attrs = Some(json!(null));
    store.logs.append(&events).await.unwrap();
    let recorded: Vec<_> = store.recorded().await.into_iter().map(|(_, event)| event).collect();
    assert_eq!(recorded, events);
}

async fn no_event_at_all_is_recorded_too(store: StoreSubject) {
    store.logs.append(&[]).await.unwrap();
    assert_eq!(store.recorded().await, []);
}

async fn ids_grow_in_the_order_of_recording(store: StoreSubject) {
    // Their own times say nothing about the order in which they arrive.
    store.append([5, 3, 4].into_iter()).await;
    store.append([1, 2].into_iter()).await;
    let recorded = store.recorded().await;
    let messages: Vec<_> = recorded.iter().map(|(_, event)| event.message.as_str()).collect();
    assert_eq!(messages, ["event 5", "event 3", "event 4", "event 1", "event 2"]);
    assert!(recorded.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(recorded[0].0 > LogId::FIRST);
}

async fn pages_go_forward_from_the_oldest(store: StoreSubject) {
    store.append(0..5).await;
    let recorded = store.recorded().await;
    let any = LogFilter::default();
    assert_eq!(store.page(&any, PageStart::Oldest, 2).await, ["0", "1"]);
    assert_eq!(store.page(&any, PageStart::After(recorded[1].0), 2).await, ["2", "3"]);
    assert_eq!(store.page(&any, PageStart::After(recorded[3].0), 2).await, ["4"]);
    assert!(store.page(&any, PageStart::After(recorded[4].0), 2).await.is_empty());
    assert_eq!(store.page(&any, PageStart::After(LogId::FIRST), 1).await, ["0"]);
}

async fn pages_go_backward_from_the_newest(store: StoreSubject) {
    store.append(0..5).await;
    let recorded = store.recorded().await;
    let any = LogFilter::default();
    assert_eq!(store.page(&any, PageStart::Newest, 2).await, ["4", "3"]);
    assert_eq!(store.page(&any, PageStart::Before(recorded[3].0), 2).await, ["2", "1"]);
    assert_eq!(store.page(&any, PageStart::Before(recorded[1].0), 2).await, ["0"]);
    assert!(store.page(&any, PageStart::Before(recorded[0].0), 2).await.is_empty());
    assert_eq!(store.page(&any, PageStart::Before(LogId(u64::MAX)), 1).await, ["4"]);
    assert!(store.page(&any, PageStart::After(LogId(u64::MAX)), 1).await.is_empty());
}

async fn a_page_is_never_larger_than_the_largest(store: StoreSubject) {
    store.append(0..Page::LARGEST + 1).await;
    let any = LogFilter::default();
    let largest = usize::try_from(Page::LARGEST).unwrap();
    assert_eq!(store.page(&any, PageStart::Oldest, u32::MAX).await.len(), largest);
    assert_eq!(store.page(&any, PageStart::Newest, u32::MAX).await.len(), largest);
    assert!(store.page(&any, PageStart::Newest, 0).await.is_empty());
}

async fn events_are_filtered_by_their_job(store: StoreSubject) {
    let (one, two) = (store.queued(1, |_, _| ()).await, store.queued(2, |_, _| ()).await);
    let jobs = [Some(&one), None, Some(&two), Some(&one)];
    let of = |(number, job): (u32, &Option<&JobId>)| LogEvent { job: job.cloned(), ..event(number) };
    let events: Vec<_> = (0..).zip(&jobs).map(of).collect();
    store.logs.append(&events).await.unwrap();
    let of_one = LogFilter { job: Some(one), step: None, least: None };
    assert_eq!(store.page(&of_one, PageStart::Oldest, 9).await, ["0", "3"]);
    assert_eq!(store.page(&of_one, PageStart::Newest, 9).await, ["3", "0"]);
    let of_nobody = LogFilter { job: Some(JobId::parse("job-none").unwrap()), step: None, least: None };
    assert!(store.page(&of_nobody, PageStart::Oldest, 9).await.is_empty());
}

async fn events_are_filtered_by_how_much_they_matter(store: StoreSubject) {
    use LogLevel::{Debug, Error, Info, Warn};
    let levels = [Info, Error, Debug, Warn, Error];
    let events: Vec<_> =
        (0..).zip(levels).map(|(number, level)| LogEvent { level, ..event(number) }).collect();
    store.logs.append(&events).await.unwrap();
    for (least, expected) in [
        (Debug, &["0", "1", "2", "3", "4"][..]),
        (Info, &["0", "1", "3", "4"]),
        (Warn, &["1", "3", "4"]),
        (Error, &["1", "4"]),
    ] {
        let filter = LogFilter { job: None, step: None, least: Some(least) };
        assert_eq!(store.page(&filter, PageStart::Oldest, 9).await, expected);
        let newest_first: Vec<_> = expected.iter().rev().copied().collect();
        assert_eq!(store.page(&filter, PageStart::Newest, 9).await, newest_first);
    }
}

async fn filters_and_pages_go_together(store: StoreSubject) {
    use LogLevel::{Error, Info, Warn};
    let job = store.queued(1, |_, _| ()).await;
    let events: Vec<_> = (0..12)
        .map(|number| LogEvent {
            job: (number % 2 == 0).then(|| job.clone()),
            level: [Error, Info, Warn][usize::try_from(number % 3).unwrap()],
            ..event(number)
        })
        .collect();
    store.logs.append(&events).await.unwrap();
    let recorded = store.recorded().await;
    let filter = LogFilter { job: Some(job), step: None, least: Some(Warn) };
    assert_eq!(store.page(&filter, PageStart::Oldest, 3).await, ["0", "2", "6"]);
    assert_eq!(store.page(&filter, PageStart::After(recorded[2].0), 9).await, ["6", "8"]);
    assert_eq!(store.page(&filter, PageStart::Before(recorded[8].0), 2).await, ["6", "2"]);
    let anybodys = LogFilter { job: None, step: None, least: Some(Warn) };
    assert_eq!(store.page(&anybodys, PageStart::After(recorded[2].0), 3).await, ["3", "5", "6"]);
    assert_eq!(store.page(&anybodys, PageStart::Before(recorded[6].0), 3).await, ["5", "3", "2"]);
}

async fn thousands_of_events_are_recorded_at_once(store: StoreSubject) {
    store.append(0..3457).await;
    let messages: Vec<_> = store.recorded().await.into_iter().map(|(_, event)| event.message).collect();
    assert!(messages.iter().eq(&(0..3457).map(|number| event(number).message).collect::<Vec<_>>()));
}

async fn an_event_of_an_unknown_job_is_not_found_and_nothing_is_recorded(store: StoreSubject) {
    let unknown = JobId::parse("job-none").unwrap();
    let mut events: Vec<_> = (0..2500).map(event).collect();
    events[2400].job = Some(unknown.clone());
    let error = store.logs.append(&events).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.chain().contains(unknown.as_str()), "{}", error.chain());
    assert_eq!(store.recorded().await, []);
}

async fn events_keep_any_text(store: StoreSubject) {
    let texts = [
        String::new(),
        " blank at the end ".to_owned(),
        "\u{1f4be}".repeat(1 << 14),
        "a\r\nb\t'\"?".to_owned(),
    ];
    let events: Vec<_> = texts.iter().map(|text| LogEvent { message: text.clone(), ..event(0) }).collect();
    store.logs.append(&events).await.unwrap();
    let recorded: Vec<_> = store.recorded().await.into_iter().map(|(_, event)| event.message).collect();
    assert_eq!(recorded, texts);
}

async fn a_nul_in_an_event_is_kept_as_the_replacement_character(store: StoreSubject) {
    let attrs = Some(json!({ "text": "a\0b" }));
    let with_nul = LogEvent { message: "a\0b".to_owned(), attrs: attrs.clone(), ..event(0) };
    store.logs.append(&[with_nul]).await.unwrap();
    let recorded = store.recorded().await.remove(0).1;
    assert_eq!(recorded.message, "a\u{fffd}b");
    // JSON writes it as an escape.
    assert_eq!(recorded.attrs, attrs);
}

async fn events_recorded_at_once_are_all_kept(store: StoreSubject) {
    let append = |number: u32| {
        let logs = store.logs.clone();
        let events: Vec<_> = (number * 100..number * 100 + 100).map(event).collect();
        tokio::spawn(async move { logs.append(&events).await })
    };
    let tasks: Vec<_> = (0..8).map(append).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let mut messages: Vec<_> = store.recorded().await.into_iter().map(|(_, event)| event.message).collect();
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 800);
}
