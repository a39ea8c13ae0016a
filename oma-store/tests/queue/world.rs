//! One store with the names that were given in it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use oma_core::memory::ManualClock;
use oma_core::record::{
    ClaimLimits, ClaimRequest, JobEnd, JobFilter, JobLine, JobSpec, JournalBasis, JournalEntry, Lease,
    LogEvent, LogFilter, Page, PageStart, Retention, RetryPolicy, SourceDisk, SourceIdentity, SourceVm,
};
use oma_core::state::{JobKind, LogLevel, ReplicationType};
use oma_core::traits::{ExtentJournal, Inventory, JobStore, LogStore, Overview};
use oma_core::{
    AutomationJobId, ByteSize, Clock, ContextId, DiskKey, Endpoint, Error, Extent, ExtentSet, Fence,
    Generation, InstanceUuid, JobId, LogId, Timestamp, VmPath, WorkerId,
};
use serde_json::json;

use super::step::{Event, Line, Step};

pub(crate) trait Stores: JobStore + Inventory + ExtentJournal + LogStore + Overview {}

impl<T: JobStore + Inventory + ExtentJournal + LogStore + Overview> Stores for T {}

/// Runs that the store knows; there is one name more.
pub(crate) const RUNS: [&str; 2] = ["run-0", "run-1"];

const TTL: Duration = Duration::from_secs(30);

pub(crate) struct World<S> {
    store: S,
    clock: Arc<ManualClock>,
    contexts: Vec<Option<ContextId>>,
    jobs: usize,
    leases: Vec<Lease>,
}

fn named<T: std::str::FromStr<Err: Debug>>(kind: &str, number: usize) -> T {
    format!("{kind}-{number}").parse().unwrap()
}

fn told<T: Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.retry()),
    }
}

impl<S: Stores> World<S> {
    pub(crate) fn new(store: S, clock: Arc<ManualClock>) -> Self {
        Self { store, clock, contexts: vec![None; 9], jobs: 0, leases: Vec::new() }
    }

    /// Does it and tells the answer, without what differs between two stores by nature.
    pub(crate) async fn apply(&mut self, step: &Step) -> String {
        let answer = match step.clone() {
            Step::Insert { vm, priority, target } => self.insert(vm, priority, target).await,
            Step::Next { worker, limits, attempts } => self.next(worker, limits, attempts).await,
            Step::Claim { job, worker } => {
                let claimed = self.store.claim(&named("job", job), &named("worker", worker), TTL).await;
                self.leases.extend(claimed.iter().cloned());
                told(claimed)
            }
            Step::Sleep(_) => String::new(),
            Step::Append(events) => self.append(&events).await,
            Step::Events { job, least, forward, from, limit } => {
                self.events(job, least, forward, from, limit).await
            }
            Step::AppendLines { run, lines } => self.append_lines(run, &lines).await,
            Step::Lines { run, after, limit } => {
                told(self.store.lines(&named("run", run), after, limit).await)
            }
            Step::Prune { age, keep } => {
                let older_than = age.map(|age| self.ago(age));
                told(self.store.prune(&Retention { older_than, keep }).await)
            }
            Step::Summary { age } => told(self.store.summary(self.ago(age)).await),
            on_lease => self.with_lease(on_lease).await,
        };
        self.normal(answer)
    }

    fn ago(&self, seconds: u64) -> Timestamp {
        Timestamp::from_millis(self.clock.now().as_millis() - i64::try_from(seconds * 1000).unwrap())
    }

    fn lease(&self, number: usize) -> Lease {
        // The newest leases are the interesting ones.
        let at = self.leases.len().checked_sub(1 + number);
        at.map_or_else(nobody, |at| self.leases[at].clone())
    }

    async fn insert(&mut self, vm: usize, priority: i32, target: Option<usize>) -> String {
        let path: VmPath = named("/DC/vm/web", vm);
        let disk = SourceDisk {
            key: named("disk", 0),
            label: "disk".to_owned(),
            location: "[ds] disk".to_owned(),
            capacity: ByteSize::mib(1),
            unit_number: None,
        };
        let instance_uuid = InstanceUuid::from_path(&path);
        let identity = SourceIdentity { instance_uuid, endpoint: named("vcenter", vm % 3) };
        let source = SourceVm { identity, name: path.to_string(), path, disks: vec![disk] };
        let context = Inventory::record(&self.store, &source).await.unwrap();
        self.contexts[vm] = Some(context.id.clone());
        let disks = vec![named::<DiskKey>("disk", 0)];
        let target = target.map(|target| named("cloud", target));
        let spec = JobSpec::new(named("job", self.jobs), context.id, ReplicationType::Initial, disks);
        let kind = if self.jobs % 7 == 6 { JobKind::Revert } else { JobKind::Replicate };
        let request = Some("anybody's".to_owned());
        let inserted = self.store.insert(JobSpec { kind, priority, target, request, ..spec }).await;
        self.jobs += usize::from(inserted.is_ok());
        told(inserted)
    }

    async fn next(&mut self, worker: usize, limits: [Option<u32>; 3], attempts: u32) -> String {
        let [per_worker, per_source, per_target] = limits;
        let limits = ClaimLimits { per_worker, per_source, per_target };
        let request = ClaimRequest { worker: named("worker", worker), ttl: TTL, limits, attempts };
        let given = self.store.claim_next(&request).await;
        self.leases.extend(given.iter().flatten().cloned());
        told(given)
    }

    async fn with_lease(&self, step: Step) -> String {
        match step {
            Step::Renew(lease) => told(self.store.renew(&self.lease(lease), TTL).await),
            Step::Release(lease) => told(self.store.release(&self.lease(lease)).await),
            Step::Defer { lease, attempts } => {
                let (first, longest) = (Duration::from_secs(20), Duration::from_secs(60));
                let policy = RetryPolicy { attempts, first, longest };
                told(self.store.defer(&self.lease(lease), "it failed", &policy).await)
            }
            Step::End { lease, failed } => {
                let end = if failed { JobEnd::Failed } else { JobEnd::Cancelled };
                told(self.store.end(&self.lease(lease), end("because".to_owned())).await)
            }
            Step::Sync { lease, bytes } => self.sync(&self.lease(lease), bytes).await,
            other => unreachable!("{other:?} is done elsewhere"),
        }
    }

    /// Makes bytes durable, of which the summary tells once the job has ended.
    async fn sync(&self, lease: &Lease, bytes: u64) -> String {
        let basis = JournalBasis {
            generation: Generation::FIRST,
            endpoint: Endpoint::parse("vcenter").unwrap(),
            content: named("point", 0),
            change_id: named("change", 0),
            base: None,
            capacity: ByteSize::mib(1),
        };
        let key = named("disk", 0);
        let entry = JournalEntry::new(basis, ExtentSet::new());
        let begun = ExtentJournal::begin(&self.store, lease, &key, &entry).await;
        let extent = Extent::new(0, 1 + bytes).unwrap();
        told(begun)
            + &told(ExtentJournal::record(&self.store, lease, &key, extent, ByteSize::new(bytes)).await)
    }

    async fn append(&self, events: &[Event]) -> String {
        let event = |event: &Event| LogEvent {
            job: event.job.map(|job| named("job", job)),
            step: None,
            level: event.level,
            message: event.message.clone(),
            attrs: event.attrs.then(|| json!({ "text": event.message, "age": event.age })),
            at: self.ago(event.age),
        };
        told(self.store.append(&events.iter().map(event).collect::<Vec<_>>()).await)
    }

    /// Ids differ between stores: events are named by their place among all.
    async fn events(
        &self,
        job: Option<usize>,
        least: Option<LogLevel>,
        forward: bool,
        from: Option<usize>,
        limit: u32,
    ) -> String {
        let ids: Vec<LogId> = self.all_events().await.into_iter().map(|(id, _)| id).collect();
        let from = from.map(|from| ids.get(from).copied().unwrap_or(LogId(u64::MAX)));
        let start = match (from, forward) {
            (Some(id), true) => PageStart::After(id),
            (Some(id), false) => PageStart::Before(id),
            (None, true) => PageStart::Oldest,
            (None, false) => PageStart::Newest,
        };
        let filter = LogFilter { job: job.map(|job| named("job", job)), step: None, least };
        let place = |id: LogId| ids.iter().position(|known| *known == id).unwrap();
        let page = self.store.events(&filter, &Page { start, limit }).await;
        told(page.map(|page| page.into_iter().map(|(id, event)| (place(id), event)).collect::<Vec<_>>()))
    }

    async fn all_events(&self) -> Vec<(LogId, LogEvent)> {
        let page = Page { start: PageStart::Oldest, limit: Page::LARGEST };
        self.store.events(&LogFilter::default(), &page).await.unwrap()
    }

    async fn append_lines(&self, run: usize, lines: &[Line]) -> String {
        let line = |line: &Line| JobLine {
            number: line.number,
            stream: line.stream,
            text: format!("line {}\0", line.text),
            at: self.ago(line.number),
        };
        let lines: Vec<_> = lines.iter().map(line).collect();
        told(self.store.append_lines(&named::<AutomationJobId>("run", run), &lines).await)
    }

    /// Everything that the store holds of the queue and the logs.
    pub(crate) async fn state(&self) -> String {
        let mut lines = Vec::new();
        let jobs: Vec<_> = self.store.list(JobFilter::default()).try_collect().await.unwrap();
        lines.extend(jobs.iter().map(|job| format!("{job:?}")));
        for context in self.contexts.iter().flatten() {
            lines.push(format!("{:?}", self.store.context(context).await.unwrap()));
            lines.push(format!("{:?}", self.store.disks(context).await.unwrap()));
        }
        let events = self.all_events().await;
        assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0));
        lines.extend(events.into_iter().map(|(_, event)| format!("{event:?}")));
        for run in RUNS {
            let run = AutomationJobId::parse(run).unwrap();
            lines.push(format!("{:?}", self.store.lines(&run, 0, u32::MAX).await.unwrap()));
        }
        lines.push(format!("{:?}", self.store.summary(Timestamp::from_millis(0)).await.unwrap()));
        self.normal(lines.join("\n"))
    }

    /// VM ids are minted by the store: name them by their VM.
    fn normal(&self, mut text: String) -> String {
        for (number, context) in self.contexts.iter().enumerate() {
            if let Some(context) = context {
                text = text.replace(context.as_str(), &format!("vm-{number}"));
            }
        }
        text
    }
}

fn nobody() -> Lease {
    let (job, worker): (JobId, WorkerId) = (named("job", 99), named("worker", 9));
    Lease { job, worker, fence: Fence(1), expires_at: Timestamp::from_millis(0) }
}
