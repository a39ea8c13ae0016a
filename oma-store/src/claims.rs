//! Which job is driven next, and what follows from attempts that failed.
//!
//! ```text
//! no bound asked   lock the first due row, passing over rows that others lock: claimers do not wait for each other
//! bounds asked     lock one row for all such claimers, count the leases, take the first due row that no bound forbids
//! ```

use std::collections::HashMap;

use oma_core::record::{ClaimLimits, ClaimRequest, JobEnd, Lease, ReplicationJob, RetryPolicy};
use oma_core::state::Wanted;
use oma_core::{Endpoint, JobId, TargetName, Timestamp, WorkerId};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::job_store::{close, must_find};
use crate::lease::guard;
use crate::record::job;
use crate::sql::{jobs, meta};
use crate::store::SqlStore;

/// The row of `oma_meta` that whoever counts leases locks.
const CLAIMS: &str = "claims";
/// Candidates that are looked at at once when bounds are asked.
const PAGE: i64 = 64;

/// What became of the first candidate.
enum Next {
    Given(Lease),
    /// Its attempts were used up.
    Ended,
    /// There was none.
    Nothing,
}

impl SqlStore {
    pub(crate) async fn next_job(&self, request: &ClaimRequest) -> Result<Option<Lease>> {
        loop {
            match self.settled(|| self.first_candidate(request)).await? {
                Next::Given(lease) => return Ok(Some(lease)),
                Next::Ended => {}
                Next::Nothing => return Ok(None),
            }
        }
    }

    async fn first_candidate(&self, request: &ClaimRequest) -> Result<Next> {
        let mut tx = self.begin().await?;
        let found = if request.limits == ClaimLimits::default() {
            let now = tx.now().await?;
            tx.find(jobs::NEXT, vals![now], job).await?
        } else {
            first_allowed(&mut tx, request).await?
        };
        let Some(found) = found else {
            // What a lock row may have needed stays.
            tx.commit().await?;
            return Ok(Next::Nothing);
        };
        let next = if outlives_its_worker(&mut tx, &found, request.attempts).await? {
            Next::Given(give(&mut tx, &found, request).await?)
        } else {
            Next::Ended
        };
        tx.commit().await?;
        Ok(next)
    }

    pub(crate) async fn defer_job(
        &self,
        lease: &Lease,
        error: &str,
        policy: &RetryPolicy,
    ) -> Result<ReplicationJob> {
        let mut tx = self.begin().await?;
        let known = guard(&mut tx, lease).await?;
        let attempts = count_attempt(&mut tx, &known, lease, error).await?;
        if attempts >= policy.attempts {
            close(&mut tx, &known, lease, &JobEnd::gave_up(attempts, error)).await?;
        } else {
            let now = tx.now().await?;
            let due_at = now.after(policy.pause(&lease.job, attempts));
            tx.execute(jobs::RELEASE, vals![due_at, now, lease.job, lease.fence, lease.worker]).await?;
        }
        let deferred = must_find(&mut tx, &lease.job).await?;
        tx.commit().await?;
        Ok(deferred)
    }
}

async fn count_attempt(tx: &mut Tx, known: &ReplicationJob, lease: &Lease, error: &str) -> Result<u32> {
    let attempts = known.attempts.saturating_add(1);
    let values = vals![attempts, error, lease.job, lease.fence, lease.worker];
    tx.execute(jobs::ATTEMPT, values).await?;
    Ok(attempts)
}

/// Counts the attempt of a worker that vanished, if there was one. `false` when that was one too many: it is ended.
async fn outlives_its_worker(tx: &mut Tx, known: &ReplicationJob, attempts: u32) -> Result<bool> {
    let (Some(error), Some(worker)) = (known.vanished(), known.owner.clone()) else {
        return Ok(true);
    };
    // An operator's word is not lost for that.
    if known.wanted == Wanted::Cancel {
        return Ok(true);
    }
    let expires_at = tx.now().await?;
    let lease = Lease { job: known.id.clone(), worker, fence: known.fence, expires_at };
    let counted = count_attempt(tx, known, &lease, &error).await?;
    if counted < attempts {
        return Ok(true);
    }
    close(tx, known, &lease, &JobEnd::gave_up(counted, &error)).await?;
    Ok(false)
}

async fn give(tx: &mut Tx, known: &ReplicationJob, request: &ClaimRequest) -> Result<Lease> {
    let now = tx.now().await?;
    let (fence, expires_at) = (known.fence.next(), now.after(request.ttl));
    let values = vals![request.worker, fence, expires_at, now, known.id, known.fence, known.due_at];
    if tx.execute(jobs::CLAIM, values).await? == 0 {
        return Err(StoreError::Raced);
    }
    Ok(Lease { job: known.id.clone(), worker: request.worker.clone(), fence, expires_at })
}

/// The first due job that no bound forbids, its row locked.
async fn first_allowed(tx: &mut Tx, request: &ClaimRequest) -> Result<Option<ReplicationJob>> {
    if tx.find(meta::LOCK, vals![CLAIMS], |_| Ok(())).await?.is_none() {
        // Of several that are the first, one writes it, and the others are undone and come again.
        tx.execute(meta::SET, vals![CLAIMS, "locked by whoever counts leases"]).await?;
    }
    // Asked only now: the wait for the others may have been long.
    let now = tx.now().await?;
    let held = tx.all(jobs::LEASES, vals![now], held).await?;
    let counts = Counts::of(&held, request);
    if counts.is_full() {
        return Ok(None);
    }
    let mut walk = Walk::Below(i64::MAX);
    loop {
        let page = walk.page(tx, now).await?;
        for candidate in page.iter().filter(|candidate| counts.allow(candidate)) {
            // Somebody may have come before who asked for no bound.
            if let Some(found) = tx.find(jobs::DUE, vals![candidate.id, now], job).await? {
                return Ok(Some(found));
            }
        }
        match walk.next(&page) {
            Some(next) => walk = next,
            None => return Ok(None),
        }
    }
}

/// A lease that has not ended: who holds it, of which source and target the job is.
type Held = (WorkerId, Endpoint, Option<TargetName>);

fn held(row: &Row) -> Result<Held> {
    let fields = row.fields("replication_jobs", "id");
    Ok((fields.parse("owner")?, fields.parse("vcenter_host")?, fields.opt_parse("target")?))
}

/// How many jobs are driven.
struct Counts<'h> {
    limits: ClaimLimits,
    by_worker: u32,
    by_source: HashMap<&'h Endpoint, u32>,
    by_target: HashMap<&'h TargetName, u32>,
}

impl<'h> Counts<'h> {
    fn of(held: &'h [Held], request: &ClaimRequest) -> Self {
        let mut counts = Self {
            limits: request.limits,
            by_worker: 0,
            by_source: HashMap::new(),
            by_target: HashMap::new(),
        };
        for (worker, source, target) in held {
            counts.by_worker += u32::from(*worker == request.worker);
            *counts.by_source.entry(source).or_default() += 1;
            if let Some(target) = target {
                *counts.by_target.entry(target).or_default() += 1;
            }
        }
        counts
    }

    /// Whether the worker has as many as it may.
    fn is_full(&self) -> bool {
        self.limits.per_worker.is_some_and(|limit| self.by_worker >= limit)
    }

    fn allow(&self, candidate: &Candidate) -> bool {
        let (source, target) = (&candidate.source, candidate.target.as_ref());
        let of_source = self.by_source.get(source).copied().unwrap_or_default();
        let of_target = target.map(|target| self.by_target.get(target).copied().unwrap_or_default());
        let is_below = |count: u32, limit: Option<u32>| limit.is_none_or(|limit| count < limit);
        is_below(of_source, self.limits.per_source)
            && of_target.is_none_or(|count| is_below(count, self.limits.per_target))
    }
}

/// A job that is due.
struct Candidate {
    seq: i64,
    id: JobId,
    priority: i64,
    source: Endpoint,
    target: Option<TargetName>,
}

impl Candidate {
    fn read(row: &Row) -> Result<Self> {
        let fields = row.fields("replication_jobs", "id");
        Ok(Self {
            seq: fields.int("seq")?,
            id: fields.parse("id")?,
            priority: fields.int("priority")?,
            source: fields.parse("vcenter_host")?,
            target: fields.opt_parse("target")?,
        })
    }
}

/// Where a walk along the queue stands. Two statements, each of which finds its place in the index at once.
enum Walk {
    /// All below this priority are left.
    Below(i64),
    /// All of this priority behind this one, and all below it, are left.
    Behind(i64, i64),
}

impl Walk {
    async fn page(&self, tx: &mut Tx, now: Timestamp) -> Result<Vec<Candidate>> {
        let (sql, values) = match self {
            Self::Below(priority) => (jobs::DUE_BELOW, vals![priority, now, PAGE]),
            Self::Behind(priority, seq) => (jobs::DUE_BEHIND, vals![priority, seq, now, PAGE]),
        };
        tx.all(sql, values, Candidate::read).await
    }

    fn next(&self, page: &[Candidate]) -> Option<Self> {
        let is_full = i64::try_from(page.len()).is_ok_and(|rows| rows == PAGE);
        match (self, page.last().filter(|_| is_full)) {
            (_, Some(last)) => Some(Self::Behind(last.priority, last.seq)),
            (Self::Behind(priority, _), None) => Some(Self::Below(*priority)),
            (Self::Below(_), None) => None,
        }
    }
}
