//! Cleanups of an appliance, as an operator's program asks for them.

use std::time::Duration;

use oma_core::state::CleanupStatus;
use oma_core::{CleanupId, JobId, Result};
use reqwest::Method;

use super::appliance::Appliance;
use super::http::Asked;
use crate::{CleanupRow, Page, PlanCleanup};

impl Appliance {
    /// Has a cleanup planned. The same key and request answer the same plan.
    ///
    /// # Errors
    /// As the route answers; as [`Appliance::begin`].
    pub async fn plan_cleanup(&self, key: &CleanupId, request: &PlanCleanup) -> Result<CleanupRow> {
        let asked = Asked { key: Some(key.as_str()), body: Some(request), ..Asked::default() };
        self.ask(Method::POST, &["cleanups"], asked, &request.job_id).await
    }

    /// A cleanup, with each of its steps.
    ///
    /// # Errors
    /// `NotFound`; as [`Appliance::begin`].
    pub async fn cleanup(&self, id: &CleanupId) -> Result<CleanupRow> {
        self.ask(Method::GET, &["cleanups", id.as_str()], Asked::<()>::default(), id).await
    }

    /// The newest cleanups of a job that stand so, a thousand at most.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn cleanups(&self, job: &JobId, status: CleanupStatus) -> Result<Vec<CleanupRow>> {
        let query = [("job_id", job.as_str()), ("status", status.as_str()), ("limit", "1000")];
        let asked = Asked::<()> { query: &query, ..Asked::default() };
        let found: Page<CleanupRow> = self.ask(Method::GET, &["cleanups"], asked, job).await?;
        Ok(found.items)
    }

    /// Has a cleanup executed, or gone on with at once, and answers it once it is not carried out any more, or as it is after so long. One
    /// that is executing then and has no step that failed is carried out still.
    ///
    /// # Errors
    /// As [`Appliance::cleanup`]; `Conflict` when something is to be done first, and when it is refused.
    pub async fn execute_cleanup(&self, id: &CleanupId, within: Duration) -> Result<CleanupRow> {
        let wait = format!("{}ms", within.as_millis().min(300_000));
        let query = [("wait", wait.as_str())];
        let asked = Asked::<()> { query: &query, ..Asked::default() };
        self.ask(Method::POST, &["cleanups", id.as_str(), "execute"], asked, id).await
    }
}
