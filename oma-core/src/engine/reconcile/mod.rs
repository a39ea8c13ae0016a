//! Compares what is recorded of volumes with what there is, in both directions, and repairs what is provably ours.
//!
//! ```text
//!  records ──┐                                   ┌─ read it, keep it ─┐
//!  backend ──┼─▶ compare ─▶ Reconciliation ─▶ plan                    ▼
//!  devices ──┘      ▲        findings, advice        execute: each step looks again, under a lease
//!                   └───────────── what is left ◀─────────────────────┘
//! ```
//!
//! Why each repair is safe, and what is never repaired:
//! - *Could not ask* is never *gone* (L21): a volume is forgotten when the backend said that it has none, twice and in two ways, and has
//!   others of this deployment. An empty backend is another place.
//! - A mark moves only forward, on a volume of the same deployment and disk (L02). One that is further than the records is proof that the
//!   records are an old copy: then nothing at all is repaired.
//! - Devices are recorded by an attach or a detach under the volume's mark, which backends refuse when it is another's or elsewhere.
//! - Operations go on as recovery would take them up, deletions that an operator asked for as it would begin them.
//! - Orphans, sizes, marks of others and snapshots are for an operator: no record proves that nobody needs them. In particular none
//!   proves that an orphan never held an epoch, or that no second appliance works with a copy of the database.
//! - Nothing of a VM that failed over, or whose job is live (L07).
//!
//! ```
//! use std::sync::Arc;
//! use oma_core::engine::{FindingClass, Reconciler, ReconcileServices, VolumeServices, VolumeService, VolumesConfig};
//! use oma_core::memory::{MemoryBackend, MemoryStore};
//! use oma_core::record::VolumeTag;
//! use oma_core::traits::{Provisioning, VolumeBackend, VolumeRegistry, VolumeSpec};
//! use oma_core::{ByteSize, ContextId, DiskKey, DiskRef, Generation, OperationId, WorkerId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (store, backend) = (Arc::new(MemoryStore::default()), Arc::new(MemoryBackend::new()));
//! let volumes = VolumeServices { jobs: store.clone(), volumes: store.clone(), backend: backend.clone() };
//! let service = VolumeService::new(volumes, WorkerId::parse("docs")?, VolumesConfig::default());
//! let reconciler = Reconciler::new(service, ReconcileServices { inventory: store.clone(), points: store.clone() });
//!
//! // A volume with our mark whose record was lost with the database.
//! let disk = DiskRef { context: ContextId::mint(), key: DiskKey::parse("disk-2000")? };
//! let tag = VolumeTag { instance: store.instance().await?, disk, generation: Generation::FIRST };
//! let (operation, name, provisioning) = (OperationId::mint(), "web".to_owned(), Provisioning::Thin);
//! backend.create(&VolumeSpec { operation, tag, name, capacity: ByteSize::mib(1), provisioning }).await?;
//!
//! let found = reconciler.compare(None).await?;
//! assert_eq!(found.findings[0].class, FindingClass::Orphan);
//! let plan = found.plan();
//! assert!(plan.steps.is_empty(), "an operator decides");
//! let done = reconciler.execute(&plan).await?;
//! assert_eq!(done.left.findings.len(), 1);
//! # Ok(())
//! # }
//! ```

mod class;
mod compare;
mod execute;
mod judge;
mod plan;
mod report;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::compare::Look;
use crate::Result;
use crate::engine::volumes::{VolumeService, VolumeServices};
use crate::traits::{Inventory, RecoveryPoints};

pub use class::FindingClass;
pub use execute::{Reconciled, StepOutcome};
pub use plan::{ReconcilePlan, Step};
pub use report::{Finding, LocalDevice, Reconciliation, Repair, Seen, SeenRecord, SeenVolume};

/// What is compared beside that which volumes are changed with.
#[derive(Clone, Debug)]
pub struct ReconcileServices {
    /// VMs and how they stand.
    pub inventory: Arc<dyn Inventory>,
    /// Which snapshots are wanted.
    pub points: Arc<dyn RecoveryPoints>,
}

/// Compares records and backend, and executes plans. It works through the service of the same process.
#[derive(Clone, Debug)]
pub struct Reconciler {
    service: VolumeService,
    inventory: Arc<dyn Inventory>,
    points: Arc<dyn RecoveryPoints>,
}

impl Reconciler {
    /// One that repairs through this service.
    #[must_use]
    pub fn new(service: VolumeService, services: ReconcileServices) -> Self {
        let ReconcileServices { inventory, points } = services;
        Self { service, inventory, points }
    }

    /// Compares, and changes nothing. `devices`: every disk of this machine, taken just now; without them the backend is believed
    /// about devices.
    ///
    /// # Errors
    /// What the store answers. What the backend does not answer is a finding.
    pub async fn compare(&self, devices: Option<&[LocalDevice]>) -> Result<Reconciliation> {
        Look::make(self, devices).await
    }

    /// Does the steps of a plan, each if the world still is as the plan saw it, then compares again. The same plan may be executed
    /// again, also after a crash; a step that failed does not keep the others.
    ///
    /// # Errors
    /// `Invalid` for a plan of another deployment; else what the store answers.
    pub async fn execute(&self, plan: &ReconcilePlan) -> Result<Reconciled> {
        let steps = self.carry_out(plan).await?;
        let left = self.compare(None).await?;
        Ok(Reconciled { steps, left })
    }

    fn services(&self) -> &VolumeServices {
        self.service.services()
    }
}
