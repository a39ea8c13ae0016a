//! VMs and disks that an appliance has on record.

use oma_core::{ContextId, Result};
use reqwest::Method;

use super::appliance::Appliance;
use super::http::Asked;
use crate::{DiskRow, VmRow};

impl Appliance {
    /// All VMs, in the order of their records' ids.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn vms(&self) -> Result<Vec<VmRow>> {
        self.all(&["vms"], &[], "the list of VMs").await
    }

    /// The disks of a VM, with their volumes.
    ///
    /// # Errors
    /// `NotFound`; as [`Appliance::begin`].
    pub async fn disks(&self, vm: &ContextId) -> Result<Vec<DiskRow>> {
        self.ask(Method::GET, &["vms", vm.as_str(), "disks"], Asked::<()>::default(), vm).await
    }
}
