//! The steps of jobs, and what is told of them.

use serde_json::json;

use super::super::runner::table;
use super::logs::event;
use super::*;
use crate::record::{
    JobEnd, JobEntry, JobStep, LogEvent, LogFilter, Page, PageStart, Retention, StepEnd, Told,
};
use crate::state::{LogLevel, StepStatus};
use crate::{Fence, Timestamp};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        steps_are_answered_as_they_were_told,
        nothing_told_is_nothing_recorded,
        a_step_that_goes_on_is_told_by_several_calls,
        lines_belong_to_the_step_that_runs,
        a_step_that_another_one_follows_has_failed,
        a_step_that_a_later_attempt_finds_running_has_failed,
        an_end_without_a_step_changes_nothing,
        l16_an_earlier_attempt_tells_nothing_once_a_later_one_has_begun,
        an_unknown_job_has_no_steps_and_is_told_of_by_nobody,
        how_a_job_ended_is_told_afterwards,
        steps_are_answered_page_by_page,
        lines_are_filtered_by_their_step,
        an_event_of_an_unknown_step_is_not_found,
        steps_and_lines_keep_any_text,
        the_lines_of_a_job_are_trimmed_and_its_steps_stay,
        thousands_of_lines_are_told_and_trimmed_at_once,
        steps_outlive_their_lines,
        a_deleted_job_takes_its_steps,
        what_is_told_at_once_is_all_kept,
    ]
}

fn at(number: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + number)
}

fn entry(number: i64, what: Told) -> JobEntry {
    JobEntry { at: at(number), what }
}

fn begins(number: i64, name: &str) -> JobEntry {
    entry(number, Told::Begins(name.to_owned()))
}

fn ends(number: i64) -> JobEntry {
    entry(number, Told::Ends(StepEnd::Completed))
}

fn line(number: i64) -> JobEntry {
    let message = format!("event {number}");
    entry(number, Told::Line { level: LogLevel::Info, message, attrs: None })
}

impl StoreSubject {
    async fn tell(&self, lease: &Lease, entries: &[JobEntry]) {
        self.job_log.record(lease, entries).await.unwrap();
    }

    async fn steps(&self, job: &JobId) -> Vec<JobStep> {
        self.job_log.steps(job, 0, u32::MAX).await.unwrap()
    }

    /// The steps in short: name, status, when each ended.
    async fn told(&self, job: &JobId) -> Vec<(String, StepStatus, Option<Timestamp>)> {
        self.steps(job).await.into_iter().map(|step| (step.name, step.status, step.ended_at)).collect()
    }

    /// What is kept of a job: the step of each line, and its message without the first word.
    async fn lines_of(&self, job: &JobId) -> Vec<(Option<u32>, String)> {
        let filter = LogFilter { job: Some(job.clone()), ..LogFilter::default() };
        let page = Page { start: PageStart::Oldest, limit: Page::LARGEST };
        let lines = self.logs.events(&filter, &page).await.unwrap();
        lines.into_iter().map(|(_, event)| (event.step, event.message.replace("event ", ""))).collect()
    }
}

async fn steps_are_answered_as_they_were_told(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let failed = StepEnd::Failed("the source went away".to_owned());
    let told = [
        begins(1, "freeze"),
        ends(2),
        begins(3, "copy"),
        entry(4, Told::Ends(StepEnd::Skipped)),
        begins(5, "verify"),
        entry(6, Told::Ends(failed)),
        begins(7, "commit"),
    ];
    store.tell(&lease, &told).await;
    let step = |number, name: &str, status, ended: Option<i64>, error: Option<&str>| JobStep {
        job: lease.job.clone(),
        number,
        name: name.to_owned(),
        status,
        attempt: lease.fence,
        worker: Some(lease.worker.clone()),
        started_at: at(i64::from(number) * 2 - 1),
        ended_at: ended.map(at),
        error: error.map(str::to_owned),
    };
    let expected = [
        step(1, "freeze", StepStatus::Completed, Some(2), None),
        step(2, "copy", StepStatus::Skipped, Some(4), None),
        step(3, "verify", StepStatus::Failed, Some(6), Some("the source went away")),
        step(4, "commit", StepStatus::Running, None, None),
    ];
    assert_eq!(store.steps(&lease.job).await, expected);
}

async fn nothing_told_is_nothing_recorded(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[]).await;
    assert_eq!((store.steps(&lease.job).await, store.lines_of(&lease.job).await), (vec![], vec![]));
}

async fn a_step_that_goes_on_is_told_by_several_calls(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(1, "copy")]).await;
    store.tell(&lease, &[line(2)]).await;
    store.tell(&lease, &[ends(3), line(4), begins(5, "commit")]).await;
    store.tell(&lease, &[ends(6)]).await;
    let expected = [("copy", 3), ("commit", 6)]
        .map(|(name, ended)| (name.to_owned(), StepStatus::Completed, Some(at(ended))));
    assert_eq!(store.told(&lease.job).await, expected);
    assert_eq!(store.lines_of(&lease.job).await, [(Some(1), "2".to_owned()), (None, "4".to_owned())]);
}

async fn lines_belong_to_the_step_that_runs(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let attrs = json!({ "disk": "disk-2000", "bytes": u64::MAX });
    let what = Told::Line { level: LogLevel::Warn, message: "slow".to_owned(), attrs: Some(attrs.clone()) };
    store.tell(&lease, &[line(0), begins(1, "copy"), entry(2, what), ends(3), line(4)]).await;
    let filter = LogFilter { job: Some(lease.job.clone()), ..LogFilter::default() };
    let page = Page { start: PageStart::Oldest, limit: 9 };
    let events: Vec<_> =
        store.logs.events(&filter, &page).await.unwrap().into_iter().map(|(_, event)| event).collect();
    let job = Some(lease.job.clone());
    let outside = |number: u32| LogEvent { job: job.clone(), ..event(number) };
    let inside = LogEvent {
        job: job.clone(),
        step: Some(1),
        level: LogLevel::Warn,
        message: "slow".to_owned(),
        attrs: Some(attrs),
        at: at(2),
    };
    assert_eq!(events, [outside(0), inside, outside(4)]);
}

async fn a_step_that_another_one_follows_has_failed(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(1, "copy"), begins(2, "copy")]).await;
    let told = store.steps(&lease.job).await;
    assert_eq!((told[0].status, told[0].ended_at), (StepStatus::Failed, Some(at(2))));
    assert_eq!(told[0].error.as_deref(), Some(JobStep::UNTOLD));
    assert_eq!((told[1].status, told[1].error.as_deref()), (StepStatus::Running, None));
}

async fn a_step_that_a_later_attempt_finds_running_has_failed(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(1, "copy")]).await;
    let later = store.take_over(&lease).await;
    store.tell(&later, &[line(2)]).await;
    let told = store.steps(&lease.job).await;
    assert_eq!((told[0].status, told[0].error.as_deref()), (StepStatus::Failed, Some(JobStep::UNTOLD)));
    // It is no step of that attempt.
    assert_eq!(store.lines_of(&lease.job).await, [(None, "2".to_owned())]);
    store.tell(&later, &[begins(3, "freeze")]).await;
    let attempts: Vec<_> = store.steps(&lease.job).await.iter().map(|step| step.attempt).collect();
    assert_eq!(attempts, [lease.fence, later.fence]);
}

async fn an_end_without_a_step_changes_nothing(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[ends(1)]).await;
    assert_eq!(store.steps(&lease.job).await, []);
    store.tell(&lease, &[begins(2, "copy"), ends(3), ends(4)]).await;
    let expected = [("copy".to_owned(), StepStatus::Completed, Some(at(3)))];
    assert_eq!(store.told(&lease.job).await, expected);
}

async fn l16_an_earlier_attempt_tells_nothing_once_a_later_one_has_begun(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(1, "copy")]).await;
    let later = store.take_over(&lease).await;
    // Nothing is told of the later one yet.
    store.tell(&lease, &[line(2)]).await;
    store.tell(&later, &[begins(3, "freeze")]).await;
    assert_kind(store.job_log.record(&lease, &[line(4), ends(5)]).await, ErrorKind::Fenced);
    let running = ("freeze".to_owned(), StepStatus::Running, None);
    assert_eq!(store.told(&lease.job).await[1..], [running]);
    assert_eq!(store.lines_of(&lease.job).await, [(Some(1), "2".to_owned())]);
}

async fn an_unknown_job_has_no_steps_and_is_told_of_by_nobody(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let unknown = Lease { job: JobId::parse("job-none").unwrap(), fence: Fence(1), ..lease };
    assert_kind(store.job_log.record(&unknown, &[begins(1, "copy"), line(2)]).await, ErrorKind::NotFound);
    assert_eq!(store.steps(&unknown.job).await, []);
    assert_eq!(store.job_log.trim(&unknown.job, 0).await.unwrap(), 0);
    assert!(store.page(&LogFilter::default(), PageStart::Oldest, 9).await.is_empty());
}

async fn how_a_job_ended_is_told_afterwards(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(1, "copy")]).await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    store.tell(&lease, &[entry(2, Told::Ends(StepEnd::Failed("why".to_owned()))), line(3)]).await;
    assert_eq!(store.steps(&lease.job).await[0].error.as_deref(), Some("why"));
    assert_eq!(store.lines_of(&lease.job).await, [(None, "3".to_owned())]);
}

async fn steps_are_answered_page_by_page(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let told: Vec<_> = (0..5).flat_map(|number| [begins(number, "copy"), ends(number)]).collect();
    store.tell(&lease, &told).await;
    let page = async |after, limit| -> Vec<u32> {
        let steps = store.job_log.steps(&lease.job, after, limit).await.unwrap();
        steps.iter().map(|step| step.number).collect()
    };
    assert_eq!(page(0, 2).await, [1, 2]);
    assert_eq!(page(2, 9).await, [3, 4, 5]);
    assert!(page(5, 9).await.is_empty() && page(0, 0).await.is_empty() && page(u32::MAX, 9).await.is_empty());
}

async fn lines_are_filtered_by_their_step(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let loud = entry(5, Told::Line { level: LogLevel::Error, message: "event 5".to_owned(), attrs: None });
    let told = [line(0), begins(1, "copy"), line(2), ends(3), begins(3, "verify"), line(4), loud];
    store.tell(&lease, &told).await;
    let of = |step, least| LogFilter { job: Some(lease.job.clone()), step: Some(step), least };
    assert_eq!(store.page(&of(1, None), PageStart::Oldest, 9).await, ["2"]);
    assert_eq!(store.page(&of(2, None), PageStart::Newest, 9).await, ["5", "4"]);
    assert_eq!(store.page(&of(2, None), PageStart::Oldest, 1).await, ["4"]);
    assert_eq!(store.page(&of(2, Some(LogLevel::Warn)), PageStart::Oldest, 9).await, ["5"]);
    assert!(store.page(&of(3, None), PageStart::Oldest, 9).await.is_empty());
    let of_no_job = LogFilter { step: Some(1), ..LogFilter::default() };
    assert!(store.page(&of_no_job, PageStart::Oldest, 9).await.is_empty());
}

async fn an_event_of_an_unknown_step_is_not_found(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(1, "copy")]).await;
    let of = |job, step| LogEvent { job, step: Some(step), ..event(1) };
    store.logs.append(&[of(Some(lease.job.clone()), 1)]).await.unwrap();
    for unknown in [of(Some(lease.job.clone()), 2), of(None, 1)] {
        assert_kind(store.logs.append(&[event(2), unknown]).await, ErrorKind::NotFound);
    }
    assert_eq!(store.lines_of(&lease.job).await, [(Some(1), "1".to_owned())]);
}

async fn steps_and_lines_keep_any_text(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let text = "\u{1f4be} a\r\nb\t'\"?\0 ";
    let what = Told::Line { level: LogLevel::Info, message: text.to_owned(), attrs: None };
    let failed = StepEnd::Failed(text.to_owned());
    store.tell(&lease, &[begins(1, text), entry(2, what), entry(3, Told::Ends(failed))]).await;
    let kept = text.replace('\0', "\u{fffd}");
    let step = store.steps(&lease.job).await.remove(0);
    assert_eq!((step.name.as_str(), step.error.as_deref()), (kept.as_str(), Some(kept.as_str())));
    assert_eq!(store.lines_of(&lease.job).await, [(Some(1), kept)]);
}

async fn the_lines_of_a_job_are_trimmed_and_its_steps_stay(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(0, "copy"), line(1), line(2), ends(3), line(4)]).await;
    store.append(0..3).await;
    assert_eq!(store.job_log.trim(&lease.job, 3).await.unwrap(), 0);
    assert_eq!(store.job_log.trim(&lease.job, 1).await.unwrap(), 2);
    assert_eq!(store.lines_of(&lease.job).await, [(None, "4".to_owned())]);
    assert_eq!(store.job_log.trim(&lease.job, 0).await.unwrap(), 1);
    assert_eq!(store.told(&lease.job).await.len(), 1);
    // What happened to nobody's job stays.
    assert_eq!(store.page(&LogFilter::default(), PageStart::Oldest, 9).await, ["0", "1", "2"]);
}

async fn thousands_of_lines_are_told_and_trimmed_at_once(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let told: Vec<_> = (0..4321).map(line).collect();
    store.tell(&lease, &told).await;
    assert_eq!(store.job_log.trim(&lease.job, 10).await.unwrap(), 4311);
    let left: Vec<_> = store.lines_of(&lease.job).await.into_iter().map(|(_, message)| message).collect();
    assert!(left.iter().eq(&(4311..4321).map(|number| number.to_string()).collect::<Vec<_>>()), "{left:?}");
}

async fn steps_outlive_their_lines(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(0, "copy"), line(1), ends(2)]).await;
    let gone = Retention { older_than: Some(at(9)), keep: None };
    assert_eq!(store.logs.prune(&gone).await.unwrap().events, 1);
    assert_eq!(store.told(&lease.job).await.len(), 1);
}

async fn a_deleted_job_takes_its_steps(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.tell(&lease, &[begins(0, "copy"), line(1), ends(2)]).await;
    store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    store.jobs.delete(&lease.job).await.unwrap();
    assert_eq!(store.steps(&lease.job).await, []);
    assert_kind(store.job_log.record(&lease, &[line(3)]).await, ErrorKind::NotFound);
    let page = Page { start: PageStart::Oldest, limit: 9 };
    let left = store.logs.events(&LogFilter::default(), &page).await.unwrap().remove(0).1;
    assert_eq!((left.job, left.step, left.message.as_str()), (None, None, "event 1"));
}

async fn what_is_told_at_once_is_all_kept(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let tell = |number: i64| {
        let (log, lease) = (store.job_log.clone(), lease.clone());
        let told: Vec<_> =
            std::iter::once(begins(number, "copy")).chain((0..20).map(line)).chain([ends(number)]).collect();
        tokio::spawn(async move { log.record(&lease, &told).await })
    };
    let tasks: Vec<_> = (0..6).map(tell).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let numbers: Vec<_> = store.steps(&lease.job).await.iter().map(|step| step.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let lines = store.lines_of(&lease.job).await;
    assert!((1..=6).all(|step| lines.iter().filter(|(of, _)| *of == Some(step)).count() == 20));
}
