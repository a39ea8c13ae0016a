use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::error::Refusal;
use super::{MemoryStore, State, listed};
use crate::record::{
    Cleanup, CleanupEnd, CleanupFilter, CleanupNews, CleanupSpec, CleanupStep, FailoverRecord, Orphans,
};
use crate::state::{CleanupEvent, CleanupStatus, CleanupStepStatus, JobKind};
use crate::traits::Cleanups;
use crate::{CleanupId, ContextId, FailoverJobId, JobId, Result, Timestamp};

impl MemoryStore {
    /// Makes a failover job known, as it stands: nothing of this crate does yet. A second time it stands as it is said then.
    pub fn add_failover(&self, failover: FailoverRecord) {
        self.state().failovers.insert(failover.id.clone(), failover);
    }
}

#[async_trait]
impl Cleanups for MemoryStore {
    async fn insert_cleanup(&self, spec: &CleanupSpec) -> Result<Cleanup> {
        self.change("record cleanup", &spec.id, |state, now| state.insert_cleanup(spec, now))
    }

    async fn cleanup(&self, id: &CleanupId) -> Result<Option<Cleanup>> {
        Ok(self.state().cleanups.iter().find(|cleanup| cleanup.spec.id == *id).cloned())
    }

    fn cleanups(&self, filter: CleanupFilter) -> BoxStream<'_, Result<Cleanup>> {
        let state = self.state();
        let last = match &filter.after {
            None => None,
            Some(id) => match state.cleanups.iter().position(|cleanup| cleanup.spec.id == *id) {
                Some(at) => Some(at),
                None => {
                    let error = Refusal::unknown("cleanup", id).into_error("list cleanups behind", id);
                    return stream::iter([Err(error)]).boxed();
                }
            },
        };
        let wanted = |(at, cleanup): &(usize, &Cleanup)| {
            last.is_none_or(|last| filter.order.is_behind(at, &last))
                && filter.job.as_ref().is_none_or(|job| cleanup.spec.plan.job == *job)
                && filter.status.is_none_or(|status| cleanup.status == status)
        };
        let mut found: Vec<_> = state.cleanups.iter().enumerate().filter(wanted).collect();
        found.sort_by(|(one, _), (other, _)| filter.order.compare(one, other));
        listed(found.into_iter().map(|(_, cleanup)| cleanup.clone()).collect())
    }

    async fn begin_cleanup(&self, id: &CleanupId) -> Result<Cleanup> {
        self.change("begin cleanup", id, |state, now| state.begin_cleanup(id, now))
    }

    async fn tell_step(&self, id: &CleanupId, step: usize, news: &CleanupNews) -> Result<()> {
        self.change("record a step of cleanup", id, |state, now| {
            let cleanup = state.cleanup_mut(id)?;
            Refusal::unless_same(&cleanup.status, &CleanupStatus::Executing)?;
            let told = cleanup.steps.get_mut(step).ok_or_else(|| Refusal::unknown("step", step))?;
            told.tell(news, now);
            cleanup.updated_at = now;
            Ok(())
        })
    }

    async fn end_cleanup(&self, id: &CleanupId, end: &CleanupEnd) -> Result<Cleanup> {
        self.change("end cleanup", id, |state, now| state.cleanup_mut(id)?.end(end, now))
    }

    async fn prune_cleanups(&self, older_than: Timestamp) -> Result<u64> {
        self.change("prune", &"cleanups", |state, _| {
            let before = state.cleanups.len();
            let stays = |cleanup: &Cleanup| {
                cleanup.status == CleanupStatus::Executing || cleanup.updated_at >= older_than
            };
            state.cleanups.retain(stays);
            Ok(u64::try_from(before - state.cleanups.len()).unwrap_or(u64::MAX))
        })
    }

    async fn failovers(&self, context: &ContextId) -> Result<Vec<FailoverRecord>> {
        let state = self.state();
        Ok(state.failovers.values().filter(|failover| failover.context == *context).cloned().collect())
    }

    async fn forget_failover(&self, id: &FailoverJobId) -> Result<()> {
        self.change("delete failover job", id, |state, _| {
            if let Some(why) = state.failovers.get(id).and_then(FailoverRecord::needed) {
                return Err(Refusal::InUse(why));
            }
            state.failovers.remove(id);
            Ok(())
        })
    }

    async fn orphans(&self, job: &JobId, _: &ContextId) -> Result<Orphans> {
        Ok(self.state().orphans(job))
    }
}

impl State {
    /// Volumes that a VM may run from stay as they are (L07), but for a cleanup that names what it was told of.
    pub(super) fn unless_protected(&self, vm: &ContextId, kind: JobKind) -> Result<(), Refusal> {
        let of_vm = self.failovers.values().filter(|failover| failover.context == *vm);
        let failovers: Vec<_> = of_vm.cloned().collect();
        let executing = |cleanup: &&Cleanup| {
            cleanup.status == CleanupStatus::Executing && cleanup.spec.plan.context == *vm
        };
        let cleanups = self.cleanups.iter().filter(executing).filter(|_| kind == JobKind::Operate);
        let named: Vec<_> = cleanups.filter_map(|cleanup| cleanup.spec.plan.failover_job.clone()).collect();
        let protecting = FailoverRecord::protecting(&failovers, &named);
        protecting.map_or(Ok(()), |failover| Err(Refusal::InUse(failover.refusal())))
    }

    fn cleanup_mut(&mut self, id: &CleanupId) -> Result<&mut Cleanup, Refusal> {
        let found = self.cleanups.iter_mut().find(|cleanup| cleanup.spec.id == *id);
        found.ok_or_else(|| Refusal::unknown("cleanup", id))
    }

    fn insert_cleanup(&mut self, spec: &CleanupSpec, now: Timestamp) -> Result<Cleanup, Refusal> {
        if let Some(known) = self.cleanups.iter().find(|cleanup| cleanup.spec.id == spec.id) {
            return if known.spec == *spec { Ok(known.clone()) } else { Err(Refusal::OtherSpec) };
        }
        if !self.contexts.contains_key(&spec.plan.context) {
            return Err(Refusal::unknown("VM", &spec.plan.context));
        }
        let step = |action: &crate::record::CleanupAction| CleanupStep {
            action: action.clone(),
            status: CleanupStepStatus::Pending,
            error: None,
            failures: 0,
            operation: None,
            updated_at: now,
        };
        let cleanup = Cleanup {
            spec: spec.clone(),
            status: CleanupStatus::Planned,
            steps: spec.plan.steps.iter().map(step).collect(),
            left: None,
            error: None,
            created_at: now,
            updated_at: now,
        };
        self.cleanups.push(cleanup.clone());
        Ok(cleanup)
    }

    fn begin_cleanup(&mut self, id: &CleanupId, now: Timestamp) -> Result<Cleanup, Refusal> {
        let cleanup = self.cleanup_mut(id)?;
        let next = cleanup.status.next(CleanupEvent::Execute)?;
        if cleanup.status != next {
            cleanup.status = next;
            cleanup.updated_at = now;
        }
        let begun = cleanup.clone();
        let rivals = self.cleanups.iter_mut().filter(|other| other.spec.plan.job == begun.spec.plan.job);
        for other in rivals.filter(|other| other.status == CleanupStatus::Executing && other.spec.id != *id) {
            other.end(&CleanupEnd::Refused(Cleanup::superseded(id)), now)?;
        }
        Ok(begun)
    }

    fn orphans(&self, job: &JobId) -> Orphans {
        let is_gone = !self.jobs.contains_key(job);
        let count = |items: usize| u64::try_from(items).unwrap_or(u64::MAX);
        let exports = count(self.exports.values().filter(|export| export.job == *job).count());
        let disks = self.disks.values().filter(|disk| disk.record.job.as_ref() == Some(job)).count();
        let of_job = |failover: &&FailoverRecord| failover.replication_job.as_ref() == Some(job);
        let failovers = self.failovers.values().filter(of_job).count();
        let unfinished = self
            .operations
            .values()
            .filter(|intent| intent.record.spec.job == *job && !intent.record.status.is_terminal());
        Orphans {
            disks: if is_gone { count(disks) } else { 0 },
            exports,
            export_mappings: exports,
            operations: count(unfinished.count()),
            failovers: if is_gone { count(failovers) } else { 0 },
            ..Orphans::default()
        }
    }
}

impl CleanupStep {
    fn tell(&mut self, news: &CleanupNews, now: Timestamp) {
        self.status = news.status;
        self.error.clone_from(&news.error);
        self.failures = self.failures.saturating_add(u32::from(news.status == CleanupStepStatus::Failed));
        if news.operation.is_some() {
            self.operation.clone_from(&news.operation);
        }
        self.updated_at = now;
    }
}

impl Cleanup {
    fn end(&mut self, end: &CleanupEnd, now: Timestamp) -> Result<Self, Refusal> {
        if self.is_ended_so(end) {
            return Ok(self.clone());
        }
        let event = match end {
            CleanupEnd::Completed(_) => CleanupEvent::Complete,
            CleanupEnd::Refused(_) => CleanupEvent::Refuse,
        };
        let next = self.status.next(event)?;
        if event == CleanupEvent::Complete && !self.is_done() {
            return Err(Refusal::Stands(Self::NOT_DONE));
        }
        if let CleanupEnd::Completed(left) = end
            && !left.is_clean()
        {
            return Err(Refusal::Stands(Self::NOT_CLEAN));
        }
        match end {
            CleanupEnd::Completed(left) => self.left = Some(*left),
            CleanupEnd::Refused(why) => self.error = Some(why.clone()),
        }
        self.status = next;
        self.updated_at = now;
        Ok(self.clone())
    }
}
