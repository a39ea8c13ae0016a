use async_trait::async_trait;

use super::MemoryStore;
use super::error::Refusal;
use crate::record::Lease;
use crate::seal::SealedReport;
use crate::traits::ReportStore;
use crate::{JobId, Result};

#[async_trait]
impl ReportStore for MemoryStore {
    async fn put_report(&self, lease: &Lease, report: &SealedReport) -> Result<()> {
        self.change("record the report of", &lease.job, |state, _| {
            if report.report.job.as_ref() != Some(&lease.job) {
                return Err(Refusal::Input("the report is of another job"));
            }
            state.guard(lease)?;
            state.reports.insert(lease.job.clone(), report.clone());
            Ok(())
        })
    }

    async fn report_of(&self, job: &JobId) -> Result<Option<SealedReport>> {
        Ok(self.state().reports.get(job).cloned())
    }
}
