use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;

use super::error::Refusal;
use super::{Line, MemoryStore, State};
use crate::record::{JobLine, LogEvent, LogFilter, Page, PageStart, Pruned, Retention};
use crate::traits::LogStore;
use crate::{AutomationJobId, LogId, Result, Timestamp};

#[async_trait]
impl LogStore for MemoryStore {
    async fn append(&self, events: &[LogEvent]) -> Result<()> {
        self.change("record", &"log events", |state, _| state.append(events))
    }

    async fn events(&self, filter: &LogFilter, page: &Page) -> Result<Vec<(LogId, LogEvent)>> {
        let state = self.state();
        let wanted = |(_, event): &(&LogId, &LogEvent)| {
            (filter.job.is_none() || filter.job == event.job)
                && (filter.step.is_none() || filter.step == event.step && filter.job.is_some())
                && filter.least.is_none_or(|least| event.level >= least)
        };
        let size = usize::try_from(page.size()).unwrap_or(usize::MAX);
        let copied = |(id, event): (&LogId, &LogEvent)| (*id, event.clone());
        let before = |end: Bound<LogId>| {
            let older = state.events.range((Bound::Unbounded, end)).rev();
            older.filter(wanted).take(size).map(copied).collect()
        };
        let after = |start: Bound<LogId>| {
            let newer = state.events.range((start, Bound::Unbounded));
            newer.filter(wanted).take(size).map(copied).collect()
        };
        Ok(match page.start {
            PageStart::Oldest => after(Bound::Unbounded),
            PageStart::After(id) => after(Bound::Excluded(id)),
            PageStart::Newest => before(Bound::Unbounded),
            PageStart::Before(id) => before(Bound::Excluded(id)),
        })
    }

    async fn append_lines(&self, job: &AutomationJobId, lines: &[JobLine]) -> Result<()> {
        self.change("record lines of automation job", job, |state, _| state.append_lines(job, lines))
    }

    async fn lines(&self, job: &AutomationJobId, after: u64, limit: u32) -> Result<Vec<JobLine>> {
        let state = self.state();
        let (first, last) = ((job.clone(), after), (job.clone(), u64::MAX));
        let behind = state.lines.range((Bound::Excluded(first), Bound::Included(last)));
        let size = usize::try_from(limit.min(Page::LARGEST)).unwrap_or(usize::MAX);
        Ok(behind.take(size).map(|(_, line)| line.record.clone()).collect())
    }

    async fn prune(&self, retention: &Retention) -> Result<Pruned> {
        Ok(self.state().prune(retention))
    }
}

/// Not every database can hold a NUL in a text.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl State {
    fn append(&mut self, events: &[LogEvent]) -> Result<(), Refusal> {
        let mut jobs = events.iter().filter_map(|event| event.job.as_ref());
        if let Some(job) = jobs.find(|job| !self.jobs.contains_key(job)) {
            return Err(Refusal::unknown("job", job));
        }
        let is_known = |event: &&LogEvent| match (&event.job, event.step) {
            (_, None) => true,
            (Some(job), Some(step)) => self.steps.contains_key(&(job.clone(), step)),
            (None, Some(_)) => false,
        };
        if let Some(event) = events.iter().find(|event| !is_known(event)) {
            return Err(Refusal::unknown("step of the job", event.step.unwrap_or_default()));
        }
        for event in events {
            self.add_event(event.clone());
        }
        Ok(())
    }

    pub(super) fn add_event(&mut self, event: LogEvent) {
        self.last_event = self.last_event.next();
        self.events.insert(self.last_event, LogEvent { message: text(&event.message), ..event });
    }

    fn append_lines(&mut self, job: &AutomationJobId, lines: &[JobLine]) -> Result<(), Refusal> {
        if !self.automation_jobs.contains(job) {
            return Err(Refusal::unknown("automation job", job));
        }
        if lines.iter().any(|line| i64::try_from(line.number).map_or(true, |number| number == 0)) {
            return Err(Refusal::Input("lines are numbered from 1 on, below 2^63"));
        }
        let mut new: BTreeMap<u64, JobLine> = BTreeMap::new();
        for line in lines {
            let line = JobLine { text: text(&line.text), ..line.clone() };
            let recorded = self.lines.get(&(job.clone(), line.number)).map(|line| &line.record);
            match recorded.or_else(|| new.get(&line.number)) {
                Some(known) if (&known.text, known.stream) == (&line.text, line.stream) => {}
                Some(_) => return Err(Refusal::OtherLine(line.number)),
                None => {
                    new.insert(line.number, line);
                }
            }
        }
        for (number, record) in new {
            self.last_line += 1;
            self.lines.insert((job.clone(), number), Line { record, seq: self.last_line });
        }
        Ok(())
    }

    fn prune(&mut self, retention: &Retention) -> Pruned {
        let last_event = last_given_up(self.events.keys().copied().collect(), retention.keep);
        let seqs = self.lines.values().map(|line| line.seq).collect();
        let last_line = last_given_up(seqs, retention.keep);
        let aged = |at: Timestamp| retention.older_than.is_some_and(|oldest| at < oldest);
        let before = (self.events.len(), self.lines.len());
        self.events.retain(|id, event| last_event.is_none_or(|last| *id > last) && !aged(event.at));
        self.lines.retain(|_, line| last_line.is_none_or(|last| line.seq > last) && !aged(line.record.at));
        let gone = |before: usize, after: usize| u64::try_from(before - after).unwrap_or(u64::MAX);
        Pruned { events: gone(before.0, self.events.len()), lines: gone(before.1, self.lines.len()) }
    }
}

/// The last of those that are not kept by count; `None` when all are.
fn last_given_up<T: Ord + Copy>(mut all: Vec<T>, keep: Option<u64>) -> Option<T> {
    all.sort_unstable_by(|a, b| b.cmp(a));
    let keep = usize::try_from(keep?).unwrap_or(usize::MAX);
    all.get(keep).copied()
}
