use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::error::Refusal;
use super::{Intent, Job, MemoryStore, State, listed};
use crate::record::{
    ClaimRequest, JobEnd, JobFilter, JobProgress, JobSpec, Lease, ReplicationJob, RetryPolicy,
};
use crate::state::{ContextEvent, DiskStatus, JobEvent, JobKind, JobStatus, OperationStatus, Wanted};
use crate::traits::JobStore;
use crate::{ByteSize, ContextId, DiskRef, Fence, JobId, Result, Timestamp, WorkerId};

#[async_trait]
impl JobStore for MemoryStore {
    async fn insert(&self, spec: JobSpec) -> Result<ReplicationJob> {
        let id = spec.id.clone();
        self.change("record job", &id, |state, now| state.insert_job(spec, now))
    }

    async fn get(&self, id: &JobId) -> Result<Option<ReplicationJob>> {
        Ok(self.state().jobs.get(id).map(|job| job.record.clone()))
    }

    async fn live(&self, context: &ContextId) -> Result<Option<ReplicationJob>> {
        let state = self.state();
        let current = state.contexts.get(context).and_then(|context| context.current_job.as_ref());
        Ok(current.and_then(|id| state.jobs.get(id)).map(|job| job.record.clone()))
    }

    async fn want(&self, id: &JobId, wanted: Wanted) -> Result<ReplicationJob> {
        self.change("say what is wanted of job", id, |state, now| state.want(id, wanted, now))
    }

    async fn delete(&self, id: &JobId) -> Result<()> {
        self.change("delete job", id, |state, _| state.delete_job(id))
    }

    fn list(&self, filter: JobFilter) -> BoxStream<'_, Result<ReplicationJob>> {
        let now = self.clock.now();
        let wanted = |job: &&Job| {
            filter.lets_through(&job.record)
                && filter.left_to.as_ref().is_none_or(|worker| job.is_left_to(worker, now))
        };
        let state = self.state();
        let last = match &filter.after {
            None => None,
            Some(id) => match state.jobs.get(id) {
                Some(job) => Some(job.seq),
                None => {
                    let error = Refusal::unknown("job", id).into_error("list jobs behind", id);
                    return stream::iter([Err(error)]).boxed();
                }
            },
        };
        let is_behind = |job: &&Job| last.is_none_or(|last| filter.order.is_behind(&job.seq, &last));
        let mut jobs: Vec<_> = state.jobs.values().filter(wanted).filter(is_behind).collect();
        jobs.sort_by(|one, other| filter.order.compare(&one.seq, &other.seq));
        listed(jobs.into_iter().map(|job| job.record.clone()).collect())
    }

    async fn claim(&self, id: &JobId, worker: &WorkerId, ttl: Duration) -> Result<Lease> {
        self.change("claim job", id, |state, now| state.claim(id, worker, ttl, now))
    }

    async fn claim_next(&self, request: &ClaimRequest) -> Result<Option<Lease>> {
        self.change("claim the next job for", &request.worker, |state, now| state.claim_next(request, now))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease> {
        self.change("renew lease", &lease.job, |state, now| {
            let expires_at = now.after(ttl);
            state.guard_mut(lease)?.record.due_at = Some(expires_at);
            Ok(Lease { expires_at, ..lease.clone() })
        })
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.change("release lease", &lease.job, |state, now| {
            if let Ok(job) = state.guard_mut(lease) {
                job.record.owner = None;
                job.record.due_at = Some(now);
                job.record.updated_at = now;
            }
            Ok(())
        })
    }

    async fn defer(&self, lease: &Lease, error: &str, policy: &RetryPolicy) -> Result<ReplicationJob> {
        self.change("defer job", &lease.job, |state, now| state.defer(lease, error, policy, now))
    }

    async fn advance(&self, lease: &Lease, from: JobStatus, event: JobEvent) -> Result<ReplicationJob> {
        self.change("advance job", &lease.job, |state, now| {
            let job = &mut state.guard_mut(lease)?.record;
            let next = from.next(event).map_err(Refusal::Impossible)?;
            if next.is_terminal() {
                return Err(Refusal::Input("this event ends a job; end the job or commit its epoch"));
            }
            Refusal::unless_same(&job.status, &from)?;
            job.status = next;
            job.updated_at = now;
            Ok(job.clone())
        })
    }

    async fn tell_progress(&self, lease: &Lease, progress: &JobProgress) -> Result<()> {
        self.change("record the progress of job", &lease.job, |state, _| {
            let ended = |job: &&mut Job| job.record.status.is_terminal() && job.record.fence == lease.fence;
            match state.jobs.get_mut(&lease.job).filter(ended) {
                Some(job) => job.progress = Some(progress.clone()),
                None => state.guard_mut(lease)?.progress = Some(progress.clone()),
            }
            Ok(())
        })
    }

    async fn progress(&self, id: &JobId) -> Result<Option<JobProgress>> {
        Ok(self.state().jobs.get(id).and_then(|job| job.progress.clone()))
    }

    async fn end(&self, lease: &Lease, end: JobEnd) -> Result<ReplicationJob> {
        self.change("end job", &lease.job, |state, now| state.end_job(lease, end, now))
    }
}

impl State {
    /// Whether an operation on a disk is executing: whoever takes it up only finds out what became of it.
    fn is_begun(&self, disk: &DiskRef) -> bool {
        self.unfinished(disk).is_some_and(|left| left.status == OperationStatus::Executing)
    }

    fn insert_job(&mut self, mut spec: JobSpec, now: Timestamp) -> Result<ReplicationJob, Refusal> {
        spec.disks.sort();
        if spec.disks.is_empty() {
            return Err(Refusal::NoDisk);
        }
        if let Some(pair) = spec.disks.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refusal::DiskTwice(pair[0].clone()));
        }
        if spec.request.as_ref().is_some_and(|request| request.len() > JobSpec::LONGEST_REQUEST) {
            return Err(Refusal::Input("the request is longer than 64 KiB; name less in it"));
        }
        if let Some(job) = self.jobs.get(&spec.id) {
            let same = job.record.is_of(&spec);
            return same.then(|| job.record.clone()).ok_or(Refusal::OtherSpec);
        }
        let context =
            self.contexts.get(&spec.context).ok_or_else(|| Refusal::unknown("VM", &spec.context))?;
        let disk = |key| DiskRef { context: spec.context.clone(), key };
        if let Some(key) = spec.disks.iter().find(|key| !self.disks.contains_key(&disk((*key).clone()))) {
            return Err(Refusal::unknown("disk", key));
        }
        if let Some(live) = &context.current_job {
            return Err(Refusal::LiveJob(live.clone()));
        }
        let replicating = context.status.next(ContextEvent::Replicate)?;
        let operates = spec.kind == JobKind::Operate;
        if !(operates && spec.disks.iter().any(|key| self.is_begun(&disk(key.clone())))) {
            self.unless_protected(&spec.context, spec.kind)?;
        }
        let context =
            self.contexts.get_mut(&spec.context).ok_or_else(|| Refusal::unknown("VM", &spec.context))?;
        if !operates {
            context.status = replicating;
        }
        context.current_job = Some(spec.id.clone());
        context.updated_at = now;
        let epoch = context.epoch.next();
        for disk in spec.disks.iter().filter(|_| !operates).map(|key| disk(key.clone())) {
            let record = &mut self.disk_mut(&disk).record;
            record.job = Some(spec.id.clone());
            record.status = DiskStatus::Pending;
            record.bytes_synced = ByteSize::ZERO;
            record.updated_at = now;
        }
        let record = ReplicationJob {
            id: spec.id.clone(),
            context: spec.context,
            kind: spec.kind,
            replication_type: spec.replication_type,
            status: JobStatus::Initializing,
            epoch,
            disks: spec.disks,
            priority: spec.priority,
            target: spec.target,
            request: spec.request,
            wanted: Wanted::Run,
            error: None,
            attempts: 0,
            due_at: Some(now),
            fence: Fence::FIRST,
            owner: None,
            created_at: now,
            updated_at: now,
            completed_at: None,
        };
        self.last_job += 1;
        let job = Job {
            record: record.clone(),
            seq: self.last_job,
            bytes: ByteSize::ZERO,
            progress: None,
            committed: None,
        };
        self.jobs.insert(spec.id, job);
        Ok(record)
    }

    fn want(&mut self, id: &JobId, wanted: Wanted, now: Timestamp) -> Result<ReplicationJob, Refusal> {
        let job = &mut self.jobs.get_mut(id).ok_or_else(|| Refusal::unknown("job", id))?.record;
        job.may_be_wanted(wanted).map_err(Refusal::NotWanted)?;
        if job.wanted != wanted {
            job.wanted = wanted;
            job.updated_at = now;
            if job.owner.is_none() {
                job.due_at = Some(now);
            }
        }
        Ok(job.clone())
    }

    fn delete_job(&mut self, id: &JobId) -> Result<(), Refusal> {
        let Some(job) = self.jobs.get(id) else { return Ok(()) };
        if !job.record.status.is_terminal() {
            return Err(Refusal::InUse(format!("it is {}; cancel it first", job.record.status)));
        }
        if let Some(export) = self.exports.values().find(|export| export.job == *id) {
            return Err(Refusal::InUse(format!("its export {} is recorded; withdraw it first", export.name)));
        }
        let unfinished =
            |intent: &&Intent| intent.record.spec.job == *id && !intent.record.status.is_terminal();
        if let Some(intent) = self.operations.values().find(unfinished) {
            let operation = &intent.record.spec.id;
            return Err(Refusal::InUse(format!("its operation {operation} is unfinished; recover it first")));
        }
        self.forget_job(id);
        Ok(())
    }

    /// With all that is recorded of it.
    pub(super) fn forget_job(&mut self, id: &JobId) {
        self.jobs.remove(id);
        self.reports.remove(id);
        self.history.retain(|record| record.job != *id);
        for disk in self.disks.values_mut().filter(|disk| disk.record.job.as_ref() == Some(id)) {
            disk.record.job = None;
        }
        for failover in self.failovers.values_mut().filter(|row| row.replication_job.as_ref() == Some(id)) {
            failover.replication_job = None;
        }
        for event in self.events.values_mut().filter(|event| event.job.as_ref() == Some(id)) {
            event.job = None;
            event.step = None;
        }
        self.steps.retain(|(job, _), _| job != id);
    }

    pub(super) fn claim(
        &mut self,
        id: &JobId,
        worker: &WorkerId,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Lease, Refusal> {
        let job = self.jobs.get_mut(id).ok_or_else(|| Refusal::unknown("job", id))?;
        if job.record.status.is_terminal() {
            return Err(Refusal::differs(job.record.status, "a live job"));
        }
        let other = job.record.owner.as_ref().filter(|owner| *owner != worker && !job.is_due(now));
        if let Some(owner) = other {
            return Err(Refusal::Held(owner.clone()));
        }
        job.record.fence = job.record.fence.next();
        job.record.owner = Some(worker.clone());
        job.record.updated_at = now;
        let expires_at = now.after(ttl);
        job.record.due_at = Some(expires_at);
        Ok(Lease { job: id.clone(), worker: worker.clone(), fence: job.record.fence, expires_at })
    }

    pub(super) fn end_job(
        &mut self,
        lease: &Lease,
        end: JobEnd,
        now: Timestamp,
    ) -> Result<ReplicationJob, Refusal> {
        let job = &self.guard(lease)?.record;
        let (event, reason) = match end {
            JobEnd::Failed(reason) => (JobEvent::Fail, Some(reason)),
            JobEnd::Cancelled(reason) => (JobEvent::Cancel, Some(reason)),
            JobEnd::Done => (JobEvent::Operated, None),
        };
        let next = job.status.next(event)?;
        if job.kind == JobKind::Operate {
            self.close_vm(lease, None, now)?;
        } else {
            if event == JobEvent::Operated {
                return Err(Refusal::differs(job.kind, JobKind::Operate));
            }
            let disks: Vec<_> = job.disk_refs().collect();
            self.close_vm(lease, Some(ContextEvent::Fail), now)?;
            for disk in disks {
                let record = &mut self.disk_mut(&disk).record;
                record.status = DiskStatus::Failed;
                record.updated_at = now;
            }
        }
        let job = &mut self.guard_mut(lease)?.record;
        job.error = reason;
        job.close(next, now);
        Ok(job.clone())
    }

    /// Takes the job of a lease away from its VM; without an event the VM stays as it is.
    pub(super) fn close_vm(
        &mut self,
        lease: &Lease,
        event: Option<ContextEvent>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let id = self.guard(lease)?.record.context.clone();
        let context = self.contexts.get_mut(&id).expect("a job's VM is recorded and never removed");
        if let Some(event) = event {
            context.status = context.status.next(event)?;
        }
        context.current_job = None;
        context.updated_at = now;
        Ok(())
    }

    pub(super) fn guard_mut(&mut self, lease: &Lease) -> Result<&mut Job, Refusal> {
        self.guard(lease)?;
        Ok(self.jobs.get_mut(&lease.job).expect("the guard found it"))
    }
}

impl Job {
    /// Whether anybody may take it up.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.record.due_at.is_some_and(|due_at| due_at <= now)
    }

    /// Whether it operates and this worker may take it up.
    fn is_left_to(&self, worker: &WorkerId, now: Timestamp) -> bool {
        let ReplicationJob { kind, status, owner, .. } = &self.record;
        let is_free = owner.as_ref().is_none_or(|owner| owner == worker) || self.is_due(now);
        *kind == JobKind::Operate && !status.is_terminal() && is_free
    }
}

impl ReplicationJob {
    pub(super) fn disk_refs(&self) -> impl Iterator<Item = DiskRef> {
        self.disks.iter().map(|key| DiskRef { context: self.context.clone(), key: key.clone() })
    }

    /// Ends it and gives its lease back.
    pub(super) fn close(&mut self, status: JobStatus, now: Timestamp) {
        self.status = status;
        self.owner = None;
        self.due_at = None;
        self.updated_at = now;
        self.completed_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{SourceDisk, SourceIdentity, SourceVm};
    use crate::state::{ContextStatus, ReplicationType};
    use crate::traits::Inventory;
    use crate::{Clock, DiskKey, Endpoint, ErrorKind, InstanceUuid, SystemClock, VmPath};

    fn vm() -> SourceVm {
        let path = VmPath::parse("/DC/vm/web").unwrap();
        let disk = SourceDisk {
            key: DiskKey::parse("disk-2000").unwrap(),
            label: String::new(),
            location: "disk.raw".to_owned(),
            capacity: ByteSize::mib(1),
            unit_number: None,
        };
        let identity = SourceIdentity {
            instance_uuid: InstanceUuid::from_path(&path),
            endpoint: Endpoint::parse("direct").unwrap(),
        };
        SourceVm { identity, name: "web".to_owned(), path, disks: vec![disk] }
    }

    #[tokio::test]
    async fn l07_a_vm_whose_state_forbids_replication_gets_no_job() {
        let store = MemoryStore::default();
        let context = store.record(&vm()).await.unwrap();
        let disks = vec![DiskKey::parse("disk-2000").unwrap()];
        let id = JobId::mint(SystemClock.now());
        let spec = JobSpec::new(id, context.id.clone(), ReplicationType::Initial, disks);
        // No call of this crate leads there yet: failover does, later.
        for status in [ContextStatus::FailedOverTest, ContextStatus::FailedOverLive, ContextStatus::Completed]
        {
            store.state().contexts.get_mut(&context.id).unwrap().status = status;
            for kind in JobKind::ALL {
                let spec = JobSpec { kind: *kind, ..spec.clone() };
                assert_eq!(store.insert(spec).await.unwrap_err().kind(), ErrorKind::Conflict, "{kind}");
            }
            let now = store.context(&context.id).await.unwrap().unwrap();
            assert_eq!((now.status, now.current_job), (status, None));
            assert_eq!(store.get(&spec.id).await.unwrap(), None);
        }
    }
}
