//! What an appliance tells of replications beside how they stand.

use oma_core::seal::SealedReport;
use oma_core::{ContextId, JobId, Result};
use reqwest::Method;

use super::appliance::Appliance;
use super::http::Asked;
use crate::ForecastReport;

impl Appliance {
    /// The verification report of a job, as it was sealed.
    ///
    /// # Errors
    /// `NotFound` for an unknown job, and for one without a report; as [`Appliance::begin`].
    pub async fn report_of(&self, job: &JobId) -> Result<SealedReport> {
        let path = ["replications", job.as_str(), "report"];
        self.ask(Method::GET, &path, Asked::<()>::default(), job).await
    }

    /// What the next epoch of a VM will cost.
    ///
    /// # Errors
    /// `NotFound` for an unknown VM, and for one with too few epochs; as [`Appliance::begin`].
    pub async fn forecast(&self, vm: &ContextId) -> Result<ForecastReport> {
        self.ask(Method::GET, &["vms", vm.as_str(), "forecast"], Asked::<()>::default(), vm).await
    }
}
