//! The queries: calls of the store, and statements of the seeds.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use oma_core::record::{ClaimLimits, ClaimRequest, JobFilter, Lease, LogFilter, Page, PageStart};
use oma_core::state::LogLevel;
use oma_core::traits::{ChangeIdRepo, Inventory, JobStore, LogStore, Overview};
use oma_core::{
    AutomationJobId, Clock, ContextId, DiskKey, DiskRef, Endpoint, Generation, JobId, SystemClock, Timestamp,
    VmPath, WorkerId,
};
use oma_store::SqlStore;

use crate::Result;
use crate::bare::Value;
use crate::fill::Shape;

/// What a reader is shown at once.
const ROWS: u32 = 50;
const DAY: i64 = 86_400_000;

/// A query, asked with one random number after the other.
pub(super) struct Probe {
    pub(super) name: &'static str,
    pub(super) way: Way,
}

pub(super) enum Way {
    /// A statement, and the values for a number.
    Sql(&'static str, fn(&Shape, i64) -> Vec<Value>),
    /// A call of the store.
    Store(for<'s> fn(&'s SqlStore, Shape, i64) -> Answer<'s>),
}

type Answer<'s> = BoxFuture<'s, Result<Found>>;

/// How many rows were found, never none, and what is to be given back.
pub(super) struct Found {
    pub(super) rows: usize,
    pub(super) lease: Option<Lease>,
}

const fn store(name: &'static str, call: for<'s> fn(&'s SqlStore, Shape, i64) -> Answer<'s>) -> Probe {
    Probe { name, way: Way::Store(call) }
}

const fn sql(name: &'static str, text: &'static str, values: fn(&Shape, i64) -> Vec<Value>) -> Probe {
    Probe { name, way: Way::Sql(text, values) }
}

pub(super) const PROBES: &[Probe] = &[
    sql(
        "seed 002: change ids of a VM path",
        "SELECT vm_disks.* FROM vm_disks JOIN replication_jobs ON vm_disks.job_id = replication_jobs.id \
         WHERE replication_jobs.source_vm_path = ? AND vm_disks.disk_change_id IS NOT NULL \
         AND vm_disks.disk_change_id != '' ORDER BY vm_disks.updated_at DESC",
        |shape, key| vec![path(key % shape.vms).into()],
    ),
    store("VM by path", vm_by_path),
    store("change id of a disk", change_id),
    sql(
        "seed 001: volumes of a job",
        "SELECT ov.volume_id, ov.volume_name, ov.status, ov.device_path FROM vm_disks vd \
         JOIN ossea_volumes ov ON vd.ossea_volume_id = ov.id WHERE vd.job_id = ?",
        |shape, key| vec![Shape::job(shape.newest_job(key % shape.vms)).to_string().into()],
    ),
    store("job by id", job_by_id),
    store("live job of a VM", live_job),
    store("newest jobs", newest_jobs),
    store("jobs of a VM", jobs_of_vm),
    store("history of a disk", history),
    store("next job", next_job),
    store("next job within bounds", next_job_within_bounds),
    store("newest events of a job", events_of_job),
    store("newest events", newest_events),
    store("newest warnings and errors", newest_warnings),
    store("lines of a run", lines),
    store("summary of a day", summary),
    sql(
        "seed 004: runs of a status",
        "SELECT * FROM jobs WHERE status = ? ORDER BY created_at DESC LIMIT 50",
        |_, key| vec![status(key).into()],
    ),
    sql(
        "seed 004: a user's runs of a status",
        "SELECT * FROM jobs WHERE user_id = ? AND status = ? ORDER BY created_at DESC LIMIT 50",
        |shape, key| vec![(key / 8 % shape.users() + 1).into(), ended(key).into()],
    ),
    sql(
        "seed 004: lines of a run",
        "SELECT * FROM job_logs WHERE job_id = ? ORDER BY line_number",
        |shape, key| vec![(key % shape.jobs() + 1).into()],
    ),
    sql(
        "seed 004: audit of a resource",
        "SELECT * FROM audit_logs WHERE resource_type = ? AND resource_id = ? ORDER BY id DESC LIMIT 50",
        |shape, key| {
            let resource = key % (shape.jobs() / 10);
            let kind = if resource % 2 == 0 { "job" } else { "server" };
            vec![kind.into(), resource.to_string().into()]
        },
    ),
];

fn path(vm: i64) -> String {
    format!("/DC{}/vm/web-{vm}", vm % 4)
}

fn status(key: i64) -> &'static str {
    match key % 5 {
        0 => "pending",
        1 => "running",
        2 => "failed",
        3 => "cancelled",
        _ => "completed",
    }
}

fn ended(key: i64) -> &'static str {
    match key % 3 {
        0 => "failed",
        1 => "cancelled",
        _ => "completed",
    }
}

/// For calls that answer rows.
fn found<'s>(rows: impl Future<Output = Result<usize>> + Send + 's) -> Answer<'s> {
    async move { Ok(Found { rows: rows.await?, lease: None }) }.boxed()
}

/// The first page of a stream.
async fn first<T>(stream: BoxStream<'_, oma_core::Result<T>>) -> Result<usize> {
    let rows: Vec<T> = stream.take(usize::try_from(ROWS)?).try_collect().await?;
    Ok(rows.len())
}

fn context(vm: i64) -> Result<ContextId> {
    Ok(ContextId::parse(Shape::vm(vm).to_string())?)
}

fn disk(shape: Shape, key: i64) -> Result<DiskRef> {
    let text = if key % 2 == 0 { "disk-2000" } else { "disk-2001" };
    Ok(DiskRef { context: context(key / 2 % shape.vms)?, key: DiskKey::parse(text)? })
}

fn vm_by_path(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    found(async move {
        let vm = store.by_path(&VmPath::parse(path(key % shape.vms))?).await?;
        Ok(vm.iter().count())
    })
}

fn change_id(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    found(async move {
        let endpoint = Endpoint::parse(format!("vcenter-{}.example", key / 2 % shape.vms % 8))?;
        let change = store.current(&disk(shape, key)?, Generation::FIRST, &endpoint).await?;
        Ok(change.iter().count())
    })
}

fn job_by_id(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    found(async move {
        let job = store.get(&JobId::parse(Shape::job(key % shape.jobs()).to_string())?).await?;
        Ok(job.iter().count())
    })
}

fn live_job(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    found(async move {
        let vm = key % (shape.vms / shape.live_each) * shape.live_each;
        Ok(store.live(&context(vm)?).await?.iter().count())
    })
}

fn newest_jobs(store: &SqlStore, _: Shape, _: i64) -> Answer<'_> {
    found(first(store.list(JobFilter::default())))
}

fn jobs_of_vm(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    found(async move {
        let filter = JobFilter { context: Some(context(key % shape.vms)?), ..JobFilter::default() };
        first(store.list(filter)).await
    })
}

fn history(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    found(async move { first(ChangeIdRepo::history(store, &disk(shape, key)?)).await })
}

fn claim(store: &SqlStore, limits: ClaimLimits) -> Answer<'_> {
    async move {
        let worker = WorkerId::parse("bench")?;
        let request = ClaimRequest { worker, ttl: Duration::from_secs(60), limits, attempts: 5 };
        let lease = store.claim_next(&request).await?;
        Ok(Found { rows: lease.iter().count(), lease })
    }
    .boxed()
}

fn next_job(store: &SqlStore, _: Shape, _: i64) -> Answer<'_> {
    claim(store, ClaimLimits::default())
}

/// Bounds that leave room: every lease is counted, none is refused.
fn next_job_within_bounds(store: &SqlStore, _: Shape, _: i64) -> Answer<'_> {
    let bound = Some(10_000);
    claim(store, ClaimLimits { per_worker: bound, per_source: bound, per_target: bound })
}

fn page(store: &SqlStore, filter: Result<LogFilter>) -> Answer<'_> {
    found(async move {
        let page = Page { start: PageStart::Newest, limit: ROWS };
        Ok(store.events(&filter?, &page).await?.len())
    })
}

fn events_of_job(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    let job = JobId::parse(Shape::job(key % shape.jobs()).to_string());
    page(store, job.map(|job| LogFilter { job: Some(job), step: None, least: None }).map_err(Into::into))
}

fn newest_events(store: &SqlStore, _: Shape, _: i64) -> Answer<'_> {
    page(store, Ok(LogFilter::default()))
}

fn newest_warnings(store: &SqlStore, _: Shape, _: i64) -> Answer<'_> {
    page(store, Ok(LogFilter { job: None, step: None, least: Some(LogLevel::Warn) }))
}

fn lines(store: &SqlStore, shape: Shape, key: i64) -> Answer<'_> {
    found(async move {
        let run = AutomationJobId::parse(Shape::run(key % shape.jobs()).to_string())?;
        Ok(store.lines(&run, 0, ROWS).await?.len())
    })
}

fn summary(store: &SqlStore, _: Shape, _: i64) -> Answer<'_> {
    found(async move {
        let since = Timestamp::from_millis(SystemClock.now().as_millis() - DAY);
        Ok(store.summary(since).await?.ended.len())
    })
}
