use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use oma_core::record::{
    Cleanup, CleanupEnd, CleanupFilter, CleanupNews, CleanupPlan, CleanupSpec, CleanupStep, FailoverRecord,
    Order, Orphans,
};
use oma_core::state::{CleanupEvent, CleanupStatus, CleanupStepStatus, JobKind};
use oma_core::traits::Cleanups;
use oma_core::{CleanupId, ContextId, FailoverJobId, JobId, Timestamp};

use crate::db::{Row, Sql, Tx, Val, vals};
use crate::error::{Result, StoreError};
use crate::job_store::find_context;
use crate::page::{PAGE, pages};
use crate::sql::{cleanups, vms};
use crate::store::SqlStore;

impl SqlStore {
    async fn record_cleanup(&self, spec: &CleanupSpec) -> Result<Cleanup> {
        let plan = serde_json::to_string(&spec.plan)?;
        let mut tx = self.begin().await?;
        if let Some(known) = find(&mut tx, &spec.id).await? {
            let same = known.spec == *spec;
            return if same { Ok(known) } else { Err(StoreError::exists("cleanup", &spec.id)) };
        }
        find_context(&mut tx, &spec.plan.context).await?;
        let now = tx.now().await?;
        let (job, context, status) = (&spec.plan.job, &spec.plan.context, CleanupStatus::Planned);
        let values = vals![spec.id, job, context, spec.worker, plan, status, now, now];
        tx.execute(cleanups::INSERT, values).await?;
        for (seq, action) in spec.plan.steps.iter().enumerate() {
            let values = vals![spec.id, number(seq), action.label(), CleanupStepStatus::Pending, now];
            tx.execute(cleanups::INSERT_STEP, values).await?;
        }
        let recorded = must_find(&mut tx, &spec.id).await?;
        tx.commit().await?;
        Ok(recorded)
    }

    async fn find_cleanup(&self, id: &CleanupId) -> Result<Option<Cleanup>> {
        let mut tx = self.db.snapshot().await?;
        find(&mut tx, id).await
    }

    async fn record_begin(&self, id: &CleanupId) -> Result<Cleanup> {
        let mut tx = self.begin().await?;
        let job = must_find(&mut tx, id).await?.spec.plan.job;
        tx.execute(cleanups::LOCK_OF_JOB, vals![job]).await?;
        let known = must_find(&mut tx, id).await?;
        let status = known.status.next(CleanupEvent::Execute)?;
        let now = tx.now().await?;
        tx.execute(cleanups::SUPERSEDE, vals![Cleanup::superseded(id), now, job, id]).await?;
        if known.status != status {
            let none = None::<String>;
            tx.execute(cleanups::SET_STATUS, vals![status, none, none, now, id]).await?;
        }
        let begun = must_find(&mut tx, id).await?;
        tx.commit().await?;
        Ok(begun)
    }

    async fn record_step(&self, id: &CleanupId, step: usize, news: &CleanupNews) -> Result<()> {
        let mut tx = self.begin().await?;
        tx.execute(cleanups::LOCK, vals![id]).await?;
        let known = must_find(&mut tx, id).await?;
        if known.status != CleanupStatus::Executing {
            return Err(StoreError::Conflict(format!("it is {}, not executing", known.status)));
        }
        let before = known.steps.get(step).ok_or_else(|| StoreError::missing("step", &step))?;
        let failures = before.failures.saturating_add(u32::from(news.status == CleanupStepStatus::Failed));
        let operation = news.operation.as_ref().or(before.operation.as_ref());
        let now = tx.now().await?;
        let values = vals![news.status, u64::from(failures), operation, news.error, now, id, number(step)];
        tx.execute(cleanups::TELL_STEP, values).await?;
        tx.execute(cleanups::TOUCH, vals![now, id]).await?;
        tx.commit().await
    }

    async fn record_end(&self, id: &CleanupId, end: &CleanupEnd) -> Result<Cleanup> {
        let mut tx = self.begin().await?;
        tx.execute(cleanups::LOCK, vals![id]).await?;
        let known = must_find(&mut tx, id).await?;
        if known.is_ended_so(end) {
            return Ok(known);
        }
        let (event, left, error) = match end {
            CleanupEnd::Completed(left) => (CleanupEvent::Complete, Some(serde_json::to_string(left)?), None),
            CleanupEnd::Refused(why) => (CleanupEvent::Refuse, None, Some(why)),
        };
        let status = known.status.next(event)?;
        if event == CleanupEvent::Complete && !known.is_done() {
            return Err(StoreError::Conflict(Cleanup::NOT_DONE.to_owned()));
        }
        if let CleanupEnd::Completed(left) = end
            && !left.is_clean()
        {
            return Err(StoreError::Conflict(Cleanup::NOT_CLEAN.to_owned()));
        }
        let now = tx.now().await?;
        tx.execute(cleanups::SET_STATUS, vals![status, left, error, now, id]).await?;
        let ended = must_find(&mut tx, id).await?;
        tx.commit().await?;
        Ok(ended)
    }

    async fn cleanup_page(&self, filter: &CleanupFilter, last: Option<i64>) -> Result<Vec<(i64, Cleanup)>> {
        let mut tx = self.db.snapshot().await?;
        let behind = match (last, &filter.after) {
            (Some(seq), _) => seq,
            (None, None) => match filter.order {
                Order::Newest => i64::MAX,
                Order::Oldest => i64::MIN,
            },
            (None, Some(id)) => {
                let found = tx.find(cleanups::BY_ID, vals![id], Found::read).await?;
                found.ok_or_else(|| StoreError::missing("cleanup", id))?.seq
            }
        };
        let (newest, oldest, values): (Sql, Sql, Result<Vec<Val>>) = match (&filter.job, filter.status) {
            (Some(job), Some(status)) => {
                (cleanups::NEWEST_OF_BOTH, cleanups::OLDEST_OF_BOTH, vals![job, status, behind, PAGE])
            }
            (Some(job), None) => (cleanups::NEWEST_OF_JOB, cleanups::OLDEST_OF_JOB, vals![job, behind, PAGE]),
            (None, Some(status)) => {
                (cleanups::NEWEST_OF_STATUS, cleanups::OLDEST_OF_STATUS, vals![status, behind, PAGE])
            }
            (None, None) => (cleanups::NEWEST, cleanups::OLDEST, vals![behind, PAGE]),
        };
        let sql = if filter.order == Order::Newest { newest } else { oldest };
        let mut page = Vec::new();
        for found in tx.all(sql, values, Found::read).await? {
            page.push((found.seq, found.with_steps(&mut tx).await?));
        }
        Ok(page)
    }

    async fn prune_ended(&self, older_than: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let mut gone = 0;
        for status in CleanupStatus::ALL.iter().filter(|status| **status != CleanupStatus::Executing) {
            gone += tx.execute(cleanups::PRUNE, vals![*status, older_than]).await?;
        }
        tx.commit().await?;
        Ok(gone)
    }

    async fn delete_failover(&self, id: &FailoverJobId) -> Result<()> {
        let mut tx = self.begin().await?;
        let Some(known) = tx.find(cleanups::FAILOVER, vals![id], failover).await? else { return Ok(()) };
        if let Some(why) = known.needed() {
            return Err(StoreError::Conflict(why));
        }
        if tx.execute(cleanups::FORGET_FAILOVER, vals![id]).await? == 0 {
            return Err(StoreError::Raced);
        }
        tx.commit().await
    }

    async fn count_orphans(&self, job: &JobId, context: &ContextId) -> Result<Orphans> {
        let mut tx = self.db.snapshot().await?;
        Ok(Orphans {
            disks: count(&mut tx, cleanups::LEFT_DISKS, vals![job]).await?,
            exports: count(&mut tx, cleanups::LEFT_EXPORTS, vals![job]).await?,
            export_mappings: count(&mut tx, cleanups::LEFT_MAPPINGS, vals![job]).await?,
            device_mappings: count(&mut tx, cleanups::LEFT_DEVICES, vals![context, job]).await?,
            operations: count(&mut tx, cleanups::LEFT_OPERATIONS, vals![job]).await?,
            failovers: count(&mut tx, cleanups::LEFT_FAILOVERS, vals![job]).await?,
            ..Orphans::default()
        })
    }
}

/// Volumes that a VM may run from stay as they are (L07), but for a cleanup that names what it was told of. The VM is locked: no
/// failover that locks it, too, begins meanwhile.
pub(crate) async fn unless_protected(tx: &mut Tx, vm: &ContextId, kind: JobKind) -> Result<()> {
    tx.execute(vms::LOCK, vals![vm]).await?;
    let mut failovers = tx.all(cleanups::FAILOVERS, vals![vm], failover).await?;
    failovers.sort_by(|one, other| one.id.cmp(&other.id));
    if FailoverRecord::protecting(&failovers, &[]).is_none() {
        return Ok(());
    }
    let mut named = Vec::new();
    if kind == JobKind::Operate {
        let executing = tx.all(cleanups::EXECUTING_OF_VM, vals![vm], Found::read).await?;
        named.extend(executing.into_iter().filter_map(|found| found.cleanup.spec.plan.failover_job));
    }
    let protecting = FailoverRecord::protecting(&failovers, &named);
    protecting.map_or(Ok(()), |failover| Err(StoreError::Conflict(failover.refusal())))
}

async fn count(tx: &mut Tx, sql: Sql, values: Result<Vec<Val>>) -> Result<u64> {
    let counted = |row: &Row| row.fields("leftovers", "rows_left").count("rows_left");
    Ok(tx.find(sql, values, counted).await?.unwrap_or_default())
}

async fn find(tx: &mut Tx, id: &CleanupId) -> Result<Option<Cleanup>> {
    match tx.find(cleanups::BY_ID, vals![id], Found::read).await? {
        Some(found) => found.with_steps(tx).await.map(Some),
        None => Ok(None),
    }
}

async fn must_find(tx: &mut Tx, id: &CleanupId) -> Result<Cleanup> {
    find(tx, id).await?.ok_or_else(|| StoreError::missing("cleanup", id))
}

/// Steps are numbered from 0.
fn number(step: usize) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

/// A row of `cleanups`, whose steps stand elsewhere.
#[derive(Debug)]
pub(crate) struct Found {
    seq: i64,
    cleanup: Cleanup,
}

impl Found {
    pub(crate) fn read(row: &Row) -> Result<Self> {
        let fields = row.fields("cleanups", "id");
        let plan: CleanupPlan = fields.json("plan")?;
        let cleanup = Cleanup {
            spec: CleanupSpec { id: fields.parse("id")?, worker: fields.parse("worker")?, plan },
            status: fields.parse("status")?,
            steps: Vec::new(),
            left: fields.opt_json("leftovers")?,
            error: fields.opt_text("error_message")?.map(str::to_owned),
            created_at: fields.time("created_at")?,
            updated_at: fields.time("updated_at")?,
        };
        Ok(Self { seq: fields.int("seq")?, cleanup })
    }

    async fn with_steps(self, tx: &mut Tx) -> Result<Cleanup> {
        let mut cleanup = self.cleanup;
        let told = tx.all(cleanups::STEPS, vals![cleanup.spec.id], Told::read).await?;
        let id = &cleanup.spec.id;
        if told.len() != cleanup.spec.plan.steps.len() {
            let reason = format!("{} rows for a plan of {} steps", told.len(), cleanup.spec.plan.steps.len());
            return Err(StoreError::Row {
                table: "cleanup_steps",
                key: id.to_string(),
                column: "seq",
                reason,
            });
        }
        let steps = cleanup.spec.plan.steps.iter().zip(told);
        cleanup.steps = steps.map(|(action, told)| told.of(action.clone())).collect();
        Ok(cleanup)
    }
}

/// A row of `cleanup_steps`: what the step does stands in the plan.
#[derive(Debug)]
struct Told {
    status: CleanupStepStatus,
    error: Option<String>,
    failures: u32,
    operation: Option<oma_core::OperationId>,
    updated_at: Timestamp,
}

impl Told {
    fn read(row: &Row) -> Result<Self> {
        let fields = row.fields("cleanup_steps", "id");
        Ok(Self {
            status: fields.parse("status")?,
            error: fields.opt_text("error_message")?.map(str::to_owned),
            failures: u32::try_from(fields.count("failures")?).unwrap_or(u32::MAX),
            operation: fields.opt_parse("operation_id")?,
            updated_at: fields.time("updated_at")?,
        })
    }

    fn of(self, action: oma_core::record::CleanupAction) -> CleanupStep {
        let Self { status, error, failures, operation, updated_at } = self;
        CleanupStep { action, status, error, failures, operation, updated_at }
    }
}

/// A row of `failover_jobs`.
pub(crate) fn failover(row: &Row) -> Result<FailoverRecord> {
    let fields = row.fields("failover_jobs", "job_id");
    Ok(FailoverRecord {
        id: fields.parse("job_id")?,
        context: fields.parse("vm_context_id")?,
        replication_job: fields.opt_parse("replication_job_id")?,
        kind: fields.parse("job_type")?,
        status: fields.parse("status")?,
        destination_vm: fields.opt_text("destination_vm_id")?.map(str::to_owned),
    })
}

#[async_trait]
impl Cleanups for SqlStore {
    async fn insert_cleanup(&self, spec: &CleanupSpec) -> oma_core::Result<Cleanup> {
        let recorded = self.settled(|| self.record_cleanup(spec)).await;
        recorded.map_err(|error| error.at("record cleanup", &spec.id))
    }

    async fn cleanup(&self, id: &CleanupId) -> oma_core::Result<Option<Cleanup>> {
        self.find_cleanup(id).await.map_err(|error| error.at("read cleanup", id))
    }

    fn cleanups(&self, filter: CleanupFilter) -> BoxStream<'_, oma_core::Result<Cleanup>> {
        let page = move |behind| {
            let filter = filter.clone();
            async move {
                let page = self.cleanup_page(&filter, behind).await;
                page.map_err(|error| error.at("list", "cleanups"))
            }
        };
        pages(None, |(seq, _): &(i64, Cleanup)| *seq, page).map_ok(|(_, cleanup)| cleanup).boxed()
    }

    async fn begin_cleanup(&self, id: &CleanupId) -> oma_core::Result<Cleanup> {
        let begun = self.settled(|| self.record_begin(id)).await;
        begun.map_err(|error| error.at("begin cleanup", id))
    }

    async fn tell_step(&self, id: &CleanupId, step: usize, news: &CleanupNews) -> oma_core::Result<()> {
        let told = self.settled(|| self.record_step(id, step, news)).await;
        told.map_err(|error| error.at("record a step of cleanup", id))
    }

    async fn end_cleanup(&self, id: &CleanupId, end: &CleanupEnd) -> oma_core::Result<Cleanup> {
        let ended = self.settled(|| self.record_end(id, end)).await;
        ended.map_err(|error| error.at("end cleanup", id))
    }

    async fn prune_cleanups(&self, older_than: Timestamp) -> oma_core::Result<u64> {
        let pruned = self.settled(|| self.prune_ended(older_than)).await;
        pruned.map_err(|error| error.at("prune", "cleanups"))
    }

    async fn failovers(&self, context: &ContextId) -> oma_core::Result<Vec<FailoverRecord>> {
        let found = self.db.all(cleanups::FAILOVERS, vals![context], failover).await;
        let mut found = found.map_err(|error| error.at("list the failover jobs of VM", context))?;
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(found)
    }

    async fn forget_failover(&self, id: &FailoverJobId) -> oma_core::Result<()> {
        let forgotten = self.settled(|| self.delete_failover(id)).await;
        forgotten.map_err(|error| error.at("delete failover job", id))
    }

    async fn orphans(&self, job: &JobId, context: &ContextId) -> oma_core::Result<Orphans> {
        let counted = self.count_orphans(job, context).await;
        counted.map_err(|error| error.at("count what is left of job", job))
    }
}
