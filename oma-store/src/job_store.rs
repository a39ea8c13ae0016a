use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{
    ClaimRequest, JobEnd, JobFilter, JobProgress, JobSpec, Lease, ReplicationJob, RetryPolicy, VmContext,
};
use oma_core::state::{
    ContextEvent, DiskEvent, DiskStatus, JobEvent, JobKind, JobStatus, OperationStatus, Wanted,
};
use oma_core::traits::JobStore;
use oma_core::{ContextId, DiskKey, JobId, Timestamp, WorkerId};

use crate::cleanups::unless_protected;
use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::lease::{OwnDisk, check_kind, guard};
use crate::record::{context, job, operation};
use crate::sql::{jobs, operations, vms};
use crate::store::SqlStore;

impl SqlStore {
    async fn insert_job(&self, spec: &JobSpec) -> Result<ReplicationJob> {
        let disks: BTreeSet<DiskKey> = spec.disks.iter().cloned().collect();
        if disks.is_empty() {
            return Err(StoreError::Invalid("it has no disk; name at least one".to_owned()));
        }
        if disks.len() < spec.disks.len() {
            return Err(StoreError::Invalid("it has a disk twice; name each once".to_owned()));
        }
        if spec.request.as_ref().is_some_and(|request| request.len() > JobSpec::LONGEST_REQUEST) {
            return Err(StoreError::Invalid("its request is longer than 64 KiB; name less in it".to_owned()));
        }
        let mut tx = self.begin().await?;
        // From here on no other job of this VM can begin.
        tx.execute(vms::LOCK, vals![spec.context]).await?;
        if let Some(known) = find(&mut tx, &spec.id).await? {
            let same = known.is_of(&JobSpec { disks: disks.into_iter().collect(), ..spec.clone() });
            return if same { Ok(known) } else { Err(StoreError::exists("job", &spec.id)) };
        }
        let vm = find_context(&mut tx, &spec.context).await?;
        let rows = find_disks(&mut tx, &spec.context, &disks).await?;
        if let Some(live) = tx.find(jobs::LIVE, vals![spec.context], job).await? {
            return Err(StoreError::LiveJob(live.id));
        }
        // One that operates changes nothing of its VM, and is forbidden where replication is (L07).
        let status = vm.status.next(ContextEvent::Replicate)?;
        if !(spec.kind == JobKind::Operate && is_begun(&mut tx, &spec.context, &disks).await?) {
            unless_protected(&mut tx, &spec.context, spec.kind).await?;
        }
        let now = tx.now().await?;
        insert_row(&mut tx, spec, &vm, &disks, now).await?;
        if spec.kind == JobKind::Operate {
            tx.execute(vms::OPERATION_BEGINS, vals![spec.id, now, vm.id]).await?;
            let inserted = must_find(&mut tx, &spec.id).await?;
            tx.commit().await?;
            return Ok(inserted);
        }
        for disk in rows {
            let status = disk.record.status.next(DiskEvent::Assign)?;
            tx.execute(vms::ASSIGN_DISK, vals![spec.id, status, now, disk.row]).await?;
        }
        tx.execute(vms::JOB_BEGINS, vals![status, spec.id, now, now, vm.id]).await?;
        let inserted = must_find(&mut tx, &spec.id).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    async fn want_of_job(&self, id: &JobId, wanted: Wanted) -> Result<ReplicationJob> {
        let mut tx = self.begin().await?;
        let refused = |reason: &str| StoreError::Conflict(reason.to_owned());
        // What is refused locks nothing: whoever asks for the next job passes over a row that is locked.
        must_find(&mut tx, id).await?.may_be_wanted(wanted).map_err(refused)?;
        tx.execute(jobs::LOCK, vals![id]).await?;
        let known = must_find(&mut tx, id).await?;
        known.may_be_wanted(wanted).map_err(refused)?;
        if known.wanted == wanted {
            return Ok(known);
        }
        let now = tx.now().await?;
        tx.execute(jobs::WANT, vals![wanted, now, now, id]).await?;
        let told = must_find(&mut tx, id).await?;
        tx.commit().await?;
        Ok(told)
    }

    async fn delete_job(&self, id: &JobId) -> Result<()> {
        let mut tx = self.begin().await?;
        // Nothing is locked: what has ended stays so, and gets no export and no operation any more.
        let Some(known) = find(&mut tx, id).await? else { return Ok(()) };
        if !known.status.is_terminal() {
            return Err(StoreError::Conflict(format!("it is {}; cancel it first", known.status)));
        }
        if let Some(export) = tx.find(jobs::EXPORT_OF, vals![id], name).await? {
            return Err(StoreError::Conflict(format!("its export {export} is recorded; withdraw it first")));
        }
        if let Some(operation) = tx.find(jobs::OPERATION_OF, vals![id], name).await? {
            let reason = format!("its operation {operation} is unfinished; recover it first");
            return Err(StoreError::Conflict(reason));
        }
        tx.execute(jobs::DELETE, vals![id]).await?;
        tx.commit().await
    }

    async fn claim_job(&self, id: &JobId, worker: &WorkerId, ttl: Duration) -> Result<Lease> {
        let mut tx = self.begin().await?;
        let found = tx.find(jobs::BY_ID, vals![id], leased).await?;
        let (known, until) = found.ok_or_else(|| StoreError::missing("job", id))?;
        if known.status.is_terminal() {
            return Err(StoreError::Conflict(format!(
                "it is {}; only a live job can be driven",
                known.status
            )));
        }
        let now = tx.now().await?;
        let until = until.ok_or(StoreError::Raced)?;
        if let Some(owner) = known.owner.filter(|owner| owner != worker && now < until) {
            return Err(StoreError::Held { worker: owner, until });
        }
        let (fence, expires_at) = (known.fence.next(), now.after(ttl));
        let values = vals![worker, fence, expires_at, now, id, known.fence, until];
        if tx.execute(jobs::CLAIM, values).await? == 0 {
            return Err(StoreError::Raced);
        }
        tx.commit().await?;
        Ok(Lease { job: id.clone(), worker: worker.clone(), fence, expires_at })
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease> {
        let mut tx = self.begin().await?;
        let expires_at = tx.now().await?.after(ttl);
        let values = vals![expires_at, lease.job, lease.fence, lease.worker];
        if tx.execute(jobs::RENEW, values).await? == 0 {
            return Err(StoreError::Fenced);
        }
        tx.commit().await?;
        Ok(Lease { expires_at, ..lease.clone() })
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let mut tx = self.begin().await?;
        let now = tx.now().await?;
        tx.execute(jobs::RELEASE, vals![now, now, lease.job, lease.fence, lease.worker]).await?;
        tx.commit().await
    }

    async fn advance_job(&self, lease: &Lease, from: JobStatus, event: JobEvent) -> Result<ReplicationJob> {
        let mut tx = self.begin().await?;
        let known = guard(&mut tx, lease).await?;
        let next = from.next(event).map_err(|refused| StoreError::Invalid(refused.to_string()))?;
        if next.is_terminal() {
            let reason = format!("{event} ends a job; end it, or commit its epoch");
            return Err(StoreError::Invalid(reason));
        }
        if known.status != from {
            return Err(StoreError::Moved { expected: from, found: known.status });
        }
        let now = tx.now().await?;
        let values = vals![next, now, now, lease.job, lease.fence, lease.worker];
        tx.execute(jobs::ADVANCE, values).await?;
        let advanced = must_find(&mut tx, &lease.job).await?;
        tx.commit().await?;
        Ok(advanced)
    }

    async fn record_progress(&self, lease: &Lease, progress: &JobProgress) -> Result<()> {
        let text = serde_json::to_string(progress)?;
        let mut tx = self.begin().await?;
        if tx.execute(jobs::TELL_PROGRESS, vals![text, lease.job, lease.fence, lease.worker]).await? == 0 {
            return Err(StoreError::Fenced);
        }
        tx.commit().await
    }

    async fn end_job(&self, lease: &Lease, end: &JobEnd) -> Result<ReplicationJob> {
        let mut tx = self.begin().await?;
        let known = guard(&mut tx, lease).await?;
        close(&mut tx, &known, lease, end).await?;
        let ended = must_find(&mut tx, &lease.job).await?;
        tx.commit().await?;
        Ok(ended)
    }
}

/// Ends a job without its epoch; its row is locked already.
pub(crate) async fn close(tx: &mut Tx, known: &ReplicationJob, lease: &Lease, end: &JobEnd) -> Result<()> {
    let (event, reason) = match end {
        JobEnd::Failed(reason) => (JobEvent::Fail, Some(reason)),
        JobEnd::Cancelled(reason) => (JobEvent::Cancel, Some(reason)),
        JobEnd::Done => (JobEvent::Operated, None),
    };
    if event == JobEvent::Operated {
        check_kind(known, JobKind::Operate)?;
    }
    let status = known.status.next(event)?;
    let now = tx.now().await?;
    let values = vals![status, reason, now, now, lease.job, lease.fence, lease.worker];
    tx.execute(jobs::END, values).await?;
    if known.kind == JobKind::Operate {
        return tx.execute(vms::OPERATION_ENDS, vals![now, known.context]).await.map(|_| ());
    }
    tx.execute(vms::FAIL_DISKS, vals![DiskStatus::Failed, now, lease.job]).await?;
    let vm = find_context(tx, &known.context).await?;
    let vm_status = vm.status.next(ContextEvent::Fail)?;
    tx.execute(vms::JOB_FAILS, vals![vm_status, now, now, vm.id]).await.map(|_| ())
}

fn progress(row: &Row) -> Result<Option<JobProgress>> {
    row.fields("replication_jobs", "id").opt_json("progress")
}

/// The name of what is in the way.
pub(crate) fn name(row: &Row) -> Result<String> {
    Ok(row.fields("replication_jobs", "name").text("name")?.to_owned())
}

/// A job and when its lease ends.
fn leased(row: &Row) -> Result<(ReplicationJob, Option<Timestamp>)> {
    Ok((job(row)?, row.fields("replication_jobs", "id").opt_time("due_at")?))
}

pub(crate) async fn find_context(tx: &mut Tx, id: &ContextId) -> Result<VmContext> {
    let found = tx.find(vms::CONTEXT, vals![id], context).await?;
    found.ok_or_else(|| StoreError::missing("VM", id))
}

/// Whether an operation on one of these disks is executing: whoever takes it up only finds out what became of it.
async fn is_begun(tx: &mut Tx, vm: &ContextId, disks: &BTreeSet<DiskKey>) -> Result<bool> {
    for key in disks {
        let left = tx.find(operations::UNFINISHED, vals![vm, key], operation).await?;
        if left.is_some_and(|left| left.status == OperationStatus::Executing) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn insert_row(
    tx: &mut Tx,
    spec: &JobSpec,
    vm: &VmContext,
    disks: &BTreeSet<DiskKey>,
    now: Timestamp,
) -> Result<()> {
    let values = vals![
        spec.id,
        spec.context,
        vm.identity.instance_uuid,
        vm.name,
        vm.path,
        vm.identity.endpoint,
        spec.kind,
        spec.replication_type,
        JobStatus::Initializing,
        vm.epoch.next(),
        serde_json::to_string(disks)?,
        spec.priority,
        spec.target,
        spec.request,
        now,
        now,
        now,
    ];
    tx.execute(jobs::INSERT, values).await.map(|_| ())
}

async fn find_disks(tx: &mut Tx, vm: &ContextId, keys: &BTreeSet<DiskKey>) -> Result<Vec<OwnDisk>> {
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let disk = tx.find(vms::DISK, vals![vm, key], OwnDisk::read).await?;
        found.push(disk.ok_or_else(|| StoreError::missing("disk", key))?);
    }
    Ok(found)
}

async fn find(tx: &mut Tx, id: &JobId) -> Result<Option<ReplicationJob>> {
    tx.find(jobs::BY_ID, vals![id], job).await
}

pub(crate) async fn must_find(tx: &mut Tx, id: &JobId) -> Result<ReplicationJob> {
    find(tx, id).await?.ok_or_else(|| StoreError::missing("job", id))
}

#[async_trait]
impl JobStore for SqlStore {
    async fn insert(&self, spec: JobSpec) -> oma_core::Result<ReplicationJob> {
        self.settled(|| self.insert_job(&spec)).await.map_err(|error| error.at("record job", &spec.id))
    }

    async fn get(&self, id: &JobId) -> oma_core::Result<Option<ReplicationJob>> {
        let found = self.db.find(jobs::BY_ID, vals![id], job).await;
        found.map_err(|error| error.at("read job", id))
    }

    async fn live(&self, context: &ContextId) -> oma_core::Result<Option<ReplicationJob>> {
        let found = self.db.find(jobs::LIVE, vals![context], job).await;
        found.map_err(|error| error.at("find the live job of VM", context))
    }

    async fn want(&self, id: &JobId, wanted: Wanted) -> oma_core::Result<ReplicationJob> {
        let told = self.settled(|| self.want_of_job(id, wanted)).await;
        told.map_err(|error| error.at("say what is wanted of job", id))
    }

    async fn delete(&self, id: &JobId) -> oma_core::Result<()> {
        self.settled(|| self.delete_job(id)).await.map_err(|error| error.at("delete job", id))
    }

    fn list(&self, filter: JobFilter) -> BoxStream<'_, oma_core::Result<ReplicationJob>> {
        self.list_jobs(filter)
    }

    async fn claim(&self, id: &JobId, worker: &WorkerId, ttl: Duration) -> oma_core::Result<Lease> {
        self.settled(|| self.claim_job(id, worker, ttl)).await.map_err(|error| error.at("claim job", id))
    }

    async fn claim_next(&self, request: &ClaimRequest) -> oma_core::Result<Option<Lease>> {
        let given = self.next_job(request).await;
        given.map_err(|error| error.at("claim the next job for", &request.worker))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> oma_core::Result<Lease> {
        let renewed = self.settled(|| self.renew_lease(lease, ttl)).await;
        renewed.map_err(|error| error.at("renew the lease of job", &lease.job))
    }

    async fn release(&self, lease: &Lease) -> oma_core::Result<()> {
        let released = self.settled(|| self.release_lease(lease)).await;
        released.map_err(|error| error.at("give back the lease of job", &lease.job))
    }

    async fn defer(
        &self,
        lease: &Lease,
        error: &str,
        policy: &RetryPolicy,
    ) -> oma_core::Result<ReplicationJob> {
        let deferred = self.settled(|| self.defer_job(lease, error, policy)).await;
        deferred.map_err(|error| error.at("defer job", &lease.job))
    }

    async fn advance(
        &self,
        lease: &Lease,
        from: JobStatus,
        event: JobEvent,
    ) -> oma_core::Result<ReplicationJob> {
        let advanced = self.settled(|| self.advance_job(lease, from, event)).await;
        advanced.map_err(|error| error.at("advance job", &lease.job))
    }

    async fn tell_progress(&self, lease: &Lease, progress: &JobProgress) -> oma_core::Result<()> {
        let told = self.settled(|| self.record_progress(lease, progress)).await;
        told.map_err(|error| error.at("record the progress of job", &lease.job))
    }

    async fn progress(&self, id: &JobId) -> oma_core::Result<Option<JobProgress>> {
        let found = self.db.find(jobs::PROGRESS_TOLD, vals![id], progress).await;
        found.map(Option::flatten).map_err(|error| error.at("read the progress of job", id))
    }

    async fn end(&self, lease: &Lease, end: JobEnd) -> oma_core::Result<ReplicationJob> {
        self.settled(|| self.end_job(lease, &end)).await.map_err(|error| error.at("end job", &lease.job))
    }
}
