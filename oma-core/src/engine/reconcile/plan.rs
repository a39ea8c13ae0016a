use serde::{Deserialize, Serialize};

use super::report::{Finding, Reconciliation, Repair, Seen};
use crate::{DiskRef, InstanceId, OperationId, Timestamp, VolumeId};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The operation that it goes on with, or that it records, if it records one: the same however often the plan is executed.
    pub operation: OperationId,
    /// The disk.
    pub disk: DiskRef,
    /// The volume, as far as there is one.
    pub volume: Option<VolumeId>,
    /// How both sides are before it: else it is not done.
    pub seen: Seen,
    /// What it does.
    pub repair: Repair,
}

impl Step {
    /// How both sides are afterwards, as far as the step says.
    pub(super) fn is_done(&self, now: &Seen) -> bool {
        let record = now.record.as_ref();
        let volume = now.volume.as_ref();
        match &self.repair {
            Repair::Forget => record.is_none(),
            Repair::Retag { tag } => volume.and_then(|volume| volume.tag.as_ref()) == Some(tag),
            Repair::RecordDevice { path } => {
                let recorded = record.and_then(|record| record.device_path.as_ref());
                recorded == Some(path) && volume.and_then(|volume| volume.device_path.as_ref()) == Some(path)
            }
            Repair::RecordDetached => {
                record.is_some_and(|record| record.device_path.is_none())
                    && volume.is_some_and(|volume| volume.device_path.is_none())
            }
            Repair::TakeUp | Repair::Delete => false,
        }
    }
}

/// What is to be done, to be read first. It can be kept as JSON, and executed again after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcilePlan {
    /// The deployment that it is for.
    pub instance: InstanceId,
    /// When the comparison was made.
    pub made_at: Timestamp,
    /// In this order.
    pub steps: Vec<Step>,
}

impl Reconciliation {
    /// The steps for what can be repaired. Nothing is done by making a plan.
    #[must_use]
    pub fn plan(&self) -> ReconcilePlan {
        let mut steps: Vec<Step> = Vec::new();
        for finding in &self.findings {
            let before =
                steps.iter().rev().find(|step| step.volume.is_some() && step.volume == finding.volume);
            let seen = before.map_or_else(|| finding.seen.clone(), after);
            steps.extend(step(finding, seen));
        }
        ReconcilePlan { instance: self.instance.clone(), made_at: self.made_at, steps }
    }
}

fn step(finding: &Finding, seen: Seen) -> Option<Step> {
    let repair = finding.repair.clone()?;
    let operation = finding.operation.clone().unwrap_or_else(OperationId::mint);
    Some(Step { operation, disk: finding.disk.clone()?, volume: finding.volume.clone(), seen, repair })
}

/// What the next step about the same volume will see: marks go first, and only they are followed by another step.
fn after(step: &Step) -> Seen {
    let mut seen = step.seen.clone();
    if let (Repair::Retag { tag }, Some(volume)) = (&step.repair, &mut seen.volume) {
        volume.tag = Some(tag.clone());
    }
    seen
}
