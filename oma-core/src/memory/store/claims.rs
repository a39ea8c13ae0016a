//! Which job is driven next, and what follows from attempts that failed.

use std::cmp::Reverse;

use super::error::Refusal;
use super::{Job, State};
use crate::record::{ClaimLimits, ClaimRequest, JobEnd, Lease, ReplicationJob, RetryPolicy};
use crate::state::{JobKind, Wanted};
use crate::{JobId, Timestamp, WorkerId};

impl State {
    pub(super) fn claim_next(
        &mut self,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> Result<Option<Lease>, Refusal> {
        let is_candidate = |job: &&Job| job.is_due(now) && job.record.is_for_anybody();
        let mut due: Vec<_> = self.jobs.values().filter(is_candidate).collect();
        due.sort_by_key(|job| (Reverse(job.record.priority), job.seq));
        let due: Vec<JobId> = due.into_iter().map(|job| job.record.id.clone()).collect();
        for id in due {
            if self.is_bounded(&id, &request.worker, &request.limits, now) {
                continue;
            }
            if self.outlives_its_worker(&id, request.attempts, now)? {
                return self.claim(&id, &request.worker, request.ttl, now).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether a bound forbids this job.
    fn is_bounded(&self, id: &JobId, worker: &WorkerId, limits: &ClaimLimits, now: Timestamp) -> bool {
        let job = &self.jobs[id].record;
        let reached = |limit: Option<u32>, counts: &dyn Fn(&ReplicationJob) -> bool| {
            let held = |job: &&Job| {
                let is_driven = job.record.owner.is_some() && job.record.kind != JobKind::Operate;
                is_driven && !job.is_due(now) && counts(&job.record)
            };
            limit.is_some_and(|limit| {
                u32::try_from(self.jobs.values().filter(held).count()).is_ok_and(|held| held >= limit)
            })
        };
        let source = |job: &ReplicationJob| &self.contexts[&job.context].identity.endpoint;
        reached(limits.per_worker, &|other| other.owner.as_ref() == Some(worker))
            || reached(limits.per_source, &|other| source(other) == source(job))
            || (job.target.is_some() && reached(limits.per_target, &|other| other.target == job.target))
    }

    /// Counts the attempt of a worker that vanished, if there was one. `false` when that was one too many.
    fn outlives_its_worker(&mut self, id: &JobId, attempts: u32, now: Timestamp) -> Result<bool, Refusal> {
        let job = self.jobs.get_mut(id).expect("it is a candidate");
        let (Some(error), Some(worker)) = (job.record.vanished(), job.record.owner.clone()) else {
            return Ok(true);
        };
        // An operator's word is not lost for that.
        if job.record.wanted == Wanted::Cancel {
            return Ok(true);
        }
        job.record.attempts = job.record.attempts.saturating_add(1);
        if job.record.attempts < attempts {
            job.record.error = Some(error);
            return Ok(true);
        }
        let lease = Lease { job: id.clone(), worker, fence: job.record.fence, expires_at: now };
        let end = JobEnd::gave_up(job.record.attempts, &error);
        self.end_job(&lease, end, now).map(|_| false)
    }

    pub(super) fn defer(
        &mut self,
        lease: &Lease,
        error: &str,
        policy: &RetryPolicy,
        now: Timestamp,
    ) -> Result<ReplicationJob, Refusal> {
        let job = &mut self.guard_mut(lease)?.record;
        job.attempts = job.attempts.saturating_add(1);
        if job.attempts >= policy.attempts {
            let end = JobEnd::gave_up(job.attempts, error);
            return self.end_job(lease, end, now);
        }
        job.error = Some(error.to_owned());
        job.owner = None;
        job.due_at = Some(now.after(policy.pause(&job.id, job.attempts)));
        job.updated_at = now;
        Ok(job.clone())
    }
}
