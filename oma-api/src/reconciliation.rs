use oma_core::engine::{ReconcilePlan, Reconciliation};
use serde::{Deserialize, Serialize};

/// How records and volumes differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// What was found.
    pub found: Reconciliation,
    /// What can be repaired of it.
    pub plan: ReconcilePlan,
}
