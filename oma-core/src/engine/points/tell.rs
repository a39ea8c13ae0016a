//! How far a revert is, beside it: what cannot be told does not stop it.

use crate::engine::recorder::tell;
use crate::engine::services::Services;
use crate::record::{DiskAdvance, JobProgress, Lease};
use crate::state::LogLevel;
use crate::{ByteSize, Clock as _, DiskKey, SystemClock};

/// The step that is told.
const STEP: &str = "revert";

/// Tells of one revert.
pub(super) struct Teller<'a> {
    services: &'a Services,
    lease: &'a Lease,
    disks: Vec<DiskAdvance>,
}

impl<'a> Teller<'a> {
    pub(super) const fn new(services: &'a Services, lease: &'a Lease) -> Self {
        Self { services, lease, disks: Vec::new() }
    }

    /// The disks are known, and nothing of them is done.
    pub(super) async fn begins(&mut self, disks: impl IntoIterator<Item = (DiskKey, ByteSize)>) {
        self.disks = disks.into_iter().map(|(key, total)| untouched(key, total)).collect();
        self.disks.sort_by(|a, b| a.key.cmp(&b.key));
        self.progress(Some(STEP)).await;
    }

    /// A volume has its content of then.
    pub(super) async fn has(&mut self, key: &DiskKey) {
        for disk in self.disks.iter_mut().filter(|disk| disk.key == *key) {
            (disk.done, disk.durable) = (disk.total, disk.total);
        }
        self.progress(Some(STEP)).await;
        self.line(LogLevel::Info, format!("the volume of {key} has the content that it had")).await;
    }

    /// Nobody reverts any more.
    pub(super) async fn ends(&self) {
        if !self.disks.is_empty() {
            self.progress(None).await;
        }
    }

    pub(super) async fn line(&self, level: LogLevel, message: String) {
        tell(self.services.job_log.as_ref(), self.lease, level, message).await;
    }

    async fn progress(&self, step: Option<&str>) {
        let (step, at) = (step.map(str::to_owned), SystemClock.now());
        let progress = JobProgress { step, at, disks: self.disks.clone() };
        if let Err(error) = self.services.jobs.tell_progress(self.lease, &progress).await {
            tracing::debug!(job = %self.lease.job, error = %error.chain(), "could not tell how far it is");
        }
    }
}

const fn untouched(key: DiskKey, total: ByteSize) -> DiskAdvance {
    let nothing = ByteSize::ZERO;
    DiskAdvance {
        key,
        total,
        done: nothing,
        durable: nothing,
        read: nothing,
        written: nothing,
        zero: nothing,
        unchanged: nothing,
        rate: None,
        mean_rate: None,
        remaining: None,
        bottleneck: None,
    }
}
