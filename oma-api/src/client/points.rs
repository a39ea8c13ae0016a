//! Recovery points of an appliance, as an operator's program asks for them.

use std::time::Duration;

use oma_core::{JobId, RecoveryPointId, Result, VmPath};
use reqwest::Method;

use super::appliance::Appliance;
use super::http::Asked;
use crate::{PointRow, ReplicationRow};

impl Appliance {
    /// The recovery points of a VM, of all without one: VM by VM, of each those of the latest epoch first.
    ///
    /// # Errors
    /// `NotFound` for an unknown VM; as [`Appliance::begin`].
    pub async fn points(&self, vm: Option<&VmPath>) -> Result<Vec<PointRow>> {
        let path: &[(&str, &str)] = match vm {
            Some(vm) => &[("vm_path", vm.as_str())],
            None => &[],
        };
        self.all(&["points"], path, vm.map_or("the list of recovery points", VmPath::as_str)).await
    }

    /// A recovery point.
    ///
    /// # Errors
    /// `NotFound`; as [`Appliance::begin`].
    pub async fn point(&self, id: &RecoveryPointId) -> Result<PointRow> {
        self.ask(Method::GET, &["points", id.as_str()], Asked::<()>::default(), id).await
    }

    /// Has a recovery point deleted; whether it is gone after so long. May be asked again.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it may be needed; as [`Appliance::begin`].
    pub async fn delete_point(&self, id: &RecoveryPointId, within: Duration) -> Result<bool> {
        let wait = waiting(within);
        let asked = Asked::<()> { query: &[("wait", &wait)], ..Asked::default() };
        let left: Option<PointRow> =
            self.ask_maybe(Method::DELETE, &["points", id.as_str()], asked, id).await?;
        Ok(left.is_none())
    }

    /// Has the volumes of a VM go back to a recovery point by a job with this id, and answers that once it has ended well, or as it is after
    /// so long. The same call again begins nothing a second time.
    ///
    /// # Errors
    /// What it failed with; `NotFound`; `Conflict`; as [`Appliance::begin`].
    pub async fn revert_to_point(
        &self,
        id: &RecoveryPointId,
        job: &JobId,
        within: Duration,
    ) -> Result<ReplicationRow> {
        let wait = waiting(within);
        let asked = Asked::<()> { query: &[("wait", &wait)], key: Some(job.as_str()), ..Asked::default() };
        self.ask(Method::POST, &["points", id.as_str(), "revert"], asked, id).await
    }
}

fn waiting(within: Duration) -> String {
    format!("{}ms", within.as_millis().min(300_000))
}
