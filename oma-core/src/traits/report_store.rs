use std::fmt;

use async_trait::async_trait;

use crate::record::Lease;
use crate::seal::SealedReport;
use crate::{JobId, Result};

/// Verification reports, stored with their jobs: the last one of each.
#[async_trait]
pub trait ReportStore: fmt::Debug + Send + Sync + 'static {
    /// Records the report of a job in place of an earlier one. Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `Invalid` when the report is of another job than the lease.
    async fn put_report(&self, lease: &Lease, report: &SealedReport) -> Result<()>;

    /// The report of a job, as it was recorded; `None` when it has none. It outlives the job's end.
    async fn report_of(&self, job: &JobId) -> Result<Option<SealedReport>>;
}
