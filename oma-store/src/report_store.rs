use async_trait::async_trait;
use oma_core::JobId;
use oma_core::record::Lease;
use oma_core::seal::SealedReport;
use oma_core::traits::ReportStore;

use crate::db::{Row, vals};
use crate::error::{Result, StoreError};
use crate::lease::guard;
use crate::sql::reports;
use crate::store::SqlStore;

impl SqlStore {
    async fn record_report(&self, lease: &Lease, report: &SealedReport) -> Result<()> {
        if report.report.job.as_ref() != Some(&lease.job) {
            return Err(StoreError::Invalid("the report is of another job".to_owned()));
        }
        let mut tx = self.begin().await?;
        guard(&mut tx, lease).await?;
        let now = tx.now().await?;
        tx.execute(reports::DELETE, vals![lease.job]).await?;
        tx.execute(reports::INSERT, vals![lease.job, serde_json::to_string(report)?, now]).await?;
        tx.commit().await
    }

    async fn find_report(&self, job: &JobId) -> Result<Option<SealedReport>> {
        let mut tx = self.db.snapshot().await?;
        tx.find(reports::OF_JOB, vals![job], report).await
    }
}

/// A row of `verification_reports`.
pub(crate) fn report(row: &Row) -> Result<SealedReport> {
    row.fields("verification_reports", "job_id").json("report")
}

#[async_trait]
impl ReportStore for SqlStore {
    async fn put_report(&self, lease: &Lease, report: &SealedReport) -> oma_core::Result<()> {
        let recorded = self.settled(|| self.record_report(lease, report)).await;
        recorded.map_err(|error| error.at("record the report of", &lease.job))
    }

    async fn report_of(&self, job: &JobId) -> oma_core::Result<Option<SealedReport>> {
        self.find_report(job).await.map_err(|error| error.at("read the report of", job))
    }
}
