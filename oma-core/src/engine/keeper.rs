//! Keeps a lease alive while a job is driven, and stops the work when it is lost (L16, L17).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ErrorKind;
use crate::record::Lease;
use crate::traits::JobStore;

/// Renews a lease until dropped.
#[derive(Debug)]
pub(super) struct LeaseKeeper {
    task: JoinHandle<()>,
    lost: CancellationToken,
}

impl LeaseKeeper {
    /// Renews three times per `ttl`; cancels `stop` when the lease is lost. It was `asked` for then: the store may count from
    /// any moment since.
    pub(super) fn start(
        jobs: Arc<dyn JobStore>,
        lease: Lease,
        ttl: Duration,
        asked: Instant,
        stop: CancellationToken,
    ) -> Self {
        let lost = CancellationToken::new();
        let task = tokio::spawn(keep(jobs, lease, ttl, asked + ttl, stop, lost.clone()));
        Self { task, lost }
    }

    /// Whether somebody else may drive the job by now.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    jobs: Arc<dyn JobStore>,
    lease: Lease,
    ttl: Duration,
    mut ends: Instant,
    stop: CancellationToken,
    lost: CancellationToken,
) {
    let pause = ttl / 3;
    loop {
        tokio::time::sleep(pause).await;
        let asked = Instant::now();
        match tokio::time::timeout_at(ends, jobs.renew(&lease, ttl)).await {
            Ok(Ok(_)) => ends = asked + ttl,
            // Until the lease ends nobody else can have claimed the job, and the store may come back.
            Ok(Err(error)) if error.kind() != ErrorKind::Fenced && Instant::now() + pause < ends => {
                tracing::warn!(job = %lease.job, error = %error.chain(), "could not renew the lease");
            }
            outcome => {
                let why =
                    outcome.map_or_else(|_| "the store did not answer".to_owned(), |r| format!("{r:?}"));
                tracing::error!(job = %lease.job, why, "lost the lease");
                lost.cancel();
                stop.cancel();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock as _;
    use crate::record::{ClaimRequest, JobEnd, JobFilter, JobProgress, JobSpec, ReplicationJob, RetryPolicy};
    use crate::state::{JobEvent, JobStatus, Wanted};
    use crate::{ContextId, Error, Fence, JobId, Result, SystemClock, WorkerId};
    use async_trait::async_trait;
    use futures_util::stream::BoxStream;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    mockall::mock! {
        #[derive(Debug)]
        Jobs {}
        #[async_trait]
        impl JobStore for Jobs {
            async fn insert(&self, spec: JobSpec) -> Result<ReplicationJob>;
            async fn get(&self, id: &JobId) -> Result<Option<ReplicationJob>>;
            async fn live(&self, context: &ContextId) -> Result<Option<ReplicationJob>>;
            fn list(&self, filter: JobFilter) -> BoxStream<'static, Result<ReplicationJob>>;
            async fn claim(&self, id: &JobId, worker: &WorkerId, ttl: Duration) -> Result<Lease>;
            async fn claim_next(&self, request: &ClaimRequest) -> Result<Option<Lease>>;
            async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease>;
            async fn release(&self, lease: &Lease) -> Result<()>;
            async fn defer(&self, lease: &Lease, error: &str, policy: &RetryPolicy) -> Result<ReplicationJob>;
            async fn advance(&self, lease: &Lease, from: JobStatus, event: JobEvent) -> Result<ReplicationJob>;
            async fn end(&self, lease: &Lease, end: JobEnd) -> Result<ReplicationJob>;
            async fn want(&self, id: &JobId, wanted: Wanted) -> Result<ReplicationJob>;
            async fn delete(&self, id: &JobId) -> Result<()>;
            async fn tell_progress(&self, lease: &Lease, progress: &JobProgress) -> Result<()>;
            async fn progress(&self, id: &JobId) -> Result<Option<JobProgress>>;
        }
    }

    const TTL: Duration = Duration::from_secs(30);

    fn lease() -> Lease {
        let now = SystemClock.now();
        Lease {
            job: JobId::mint(now),
            worker: WorkerId::parse("w").unwrap(),
            fence: Fence(1),
            expires_at: now.after(TTL),
        }
    }

    fn answering(answer: impl Fn(&Lease) -> Result<Lease> + Send + Sync + 'static) -> Arc<dyn JobStore> {
        let mut jobs = MockJobs::new();
        jobs.expect_renew().returning(move |lease, _| answer(lease));
        Arc::new(jobs)
    }

    #[tokio::test(start_paused = true)]
    async fn l16_a_fenced_lease_stops_the_work_at_the_first_renewal() {
        let stop = CancellationToken::new();
        let fenced = answering(|lease| Err(Error::new(ErrorKind::Fenced, "renew", &lease.job)));
        let begun = Instant::now();
        let keeper = LeaseKeeper::start(fenced, lease(), TTL, begun, stop.clone());
        stop.cancelled().await;
        assert!(keeper.is_lost());
        assert!(begun.elapsed() <= TTL / 3 + Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn l17_failed_renewals_stop_the_work_only_when_the_lease_would_end() {
        let stop = CancellationToken::new();
        let dead = answering(|lease| Err(Error::new(ErrorKind::Unavailable, "renew", &lease.job)));
        let begun = Instant::now();
        let _keeper = LeaseKeeper::start(dead, lease(), TTL, begun, stop.clone());
        stop.cancelled().await;
        assert!(begun.elapsed() >= TTL / 2 && begun.elapsed() <= TTL, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_lease_keeps_the_work_going() {
        let stop = CancellationToken::new();
        let keeper = LeaseKeeper::start(
            answering(|lease| Ok(lease.clone())),
            lease(),
            TTL,
            Instant::now(),
            stop.clone(),
        );
        tokio::time::sleep(TTL * 20).await;
        assert!(!stop.is_cancelled() && !keeper.is_lost());
    }

    /// Answers a renewal after a while each, and then never.
    #[derive(Debug)]
    struct Slow(Mutex<VecDeque<Duration>>);

    impl Slow {
        fn answering(after: &[u64]) -> Arc<dyn JobStore> {
            Arc::new(Self(Mutex::new(after.iter().map(|seconds| Duration::from_secs(*seconds)).collect())))
        }
    }

    const ONLY: &str = "a keeper only renews";

    #[async_trait]
    impl JobStore for Slow {
        async fn renew(&self, lease: &Lease, _ttl: Duration) -> Result<Lease> {
            let pause = self.0.lock().unwrap().pop_front();
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
            Ok(lease.clone())
        }
        async fn insert(&self, _: JobSpec) -> Result<ReplicationJob> {
            unreachable!("{ONLY}")
        }
        async fn get(&self, _: &JobId) -> Result<Option<ReplicationJob>> {
            unreachable!("{ONLY}")
        }
        async fn live(&self, _: &ContextId) -> Result<Option<ReplicationJob>> {
            unreachable!("{ONLY}")
        }
        fn list(&self, _: JobFilter) -> BoxStream<'static, Result<ReplicationJob>> {
            unreachable!("{ONLY}")
        }
        async fn claim(&self, _: &JobId, _: &WorkerId, _: Duration) -> Result<Lease> {
            unreachable!("{ONLY}")
        }
        async fn claim_next(&self, _: &ClaimRequest) -> Result<Option<Lease>> {
            unreachable!("{ONLY}")
        }
        async fn release(&self, _: &Lease) -> Result<()> {
            unreachable!("{ONLY}")
        }
        async fn defer(&self, _: &Lease, _: &str, _: &RetryPolicy) -> Result<ReplicationJob> {
            unreachable!("{ONLY}")
        }
        async fn advance(&self, _: &Lease, _: JobStatus, _: JobEvent) -> Result<ReplicationJob> {
            unreachable!("{ONLY}")
        }
        async fn end(&self, _: &Lease, _: JobEnd) -> Result<ReplicationJob> {
            unreachable!("{ONLY}")
        }
        async fn want(&self, _: &JobId, _: Wanted) -> Result<ReplicationJob> {
            unreachable!("{ONLY}")
        }
        async fn delete(&self, _: &JobId) -> Result<()> {
            unreachable!("{ONLY}")
        }
        async fn tell_progress(&self, _: &Lease, _: &JobProgress) -> Result<()> {
            unreachable!("{ONLY}")
        }
        async fn progress(&self, _: &JobId) -> Result<Option<JobProgress>> {
            unreachable!("{ONLY}")
        }
    }

    /// The store counts from some moment since it was asked, so a late answer gives less time, not more; one that never comes
    /// gives none.
    #[tokio::test(start_paused = true)]
    async fn l16_the_work_ends_with_the_lease_however_late_the_store_answers() {
        for (answers, ends) in [(&[][..], 30), (&[18], 10 + 30), (&[0, 18], 20 + 30)] {
            let (stop, begun) = (CancellationToken::new(), Instant::now());
            let keeper = LeaseKeeper::start(Slow::answering(answers), lease(), TTL, begun, stop.clone());
            stop.cancelled().await;
            assert!(keeper.is_lost());
            let (took, ends) = (begun.elapsed(), Duration::from_secs(ends));
            assert!(took <= ends + Duration::from_millis(5), "{answers:?}: {took:?}");
        }
    }
}
