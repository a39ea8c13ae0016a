//! Does what a plan says, and nothing else.

use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use super::Reconciler;
use super::plan::{ReconcilePlan, Step};
use super::report::{Reconciliation, Repair, Seen, SeenRecord};
use crate::engine::volumes::Mend;
use crate::record::Operation;
use crate::state::{OperationKind, OperationStatus};
use crate::traits::Volume;
use crate::{Error, ErrorKind, Result, VolumeId};

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// It is done.
    Done,
    /// It was done before.
    DoneBefore,
    /// It goes on: the backend has not told yet.
    UnderWay,
    /// The world is not as the plan saw it, or somebody else is at it: nothing was done. Compare again.
    Refused(String),
    /// It failed, and is found again by the next comparison.
    Failed(String),
}

/// What executing a plan did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconciled {
    /// Each step, in order.
    pub steps: Vec<(Step, StepOutcome)>,
    /// What is left: a second comparison, after the last step, without local devices.
    pub left: Reconciliation,
}

impl Reconciler {
    pub(super) async fn carry_out(&self, plan: &ReconcilePlan) -> Result<Vec<(Step, StepOutcome)>> {
        let instance = self.services().volumes.instance().await?;
        if plan.instance != instance {
            let reason = format!("it is for deployment {}; this is {instance}", plan.instance);
            return Err(Error::new(ErrorKind::Invalid, "execute plan of", plan.made_at).because(reason));
        }
        let mut steps = Vec::new();
        for step in &plan.steps {
            let outcome = self.step(plan, step).await.unwrap_or_else(|error| refused_or_failed(&error));
            tracing::info!(disk = %step.disk, repair = ?step.repair, ?outcome, "reconcile");
            steps.push((step.clone(), outcome));
        }
        Ok(steps)
    }

    async fn step(&self, plan: &ReconcilePlan, step: &Step) -> Result<StepOutcome> {
        match &step.repair {
            Repair::TakeUp | Repair::Delete => self.go_on(step).await,
            Repair::Forget | Repair::Retag { .. } | Repair::RecordDevice { .. } | Repair::RecordDetached => {
                self.repair(plan, step).await
            }
        }
    }

    /// Goes on with an operation that is left.
    async fn go_on(&self, step: &Step) -> Result<StepOutcome> {
        let Some(left) = self.service.left(&step.operation).await? else {
            return Ok(StepOutcome::DoneBefore);
        };
        let begun = match (&step.repair, left.status) {
            (Repair::Delete, _) => self.service.begin_due(&left).await?,
            (_, OperationStatus::Executing) => self.service.resume(&left).await?,
            _ => return Ok(StepOutcome::Refused("it is not executing any more".to_owned())),
        };
        if begun || self.service.driven().has(&left.spec.id) {
            return self.ended(&left.spec.id).await;
        }
        Ok(StepOutcome::Refused("somebody else is at it, or has to finish it, or it is not due".to_owned()))
    }

    async fn repair(&self, plan: &ReconcilePlan, step: &Step) -> Result<StepOutcome> {
        let volume = step.volume.as_ref();
        let volume = volume.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "repair", &step.disk).because("the step names no volume")
        })?;
        // Killed on the way, it was finished by recovery, or is now.
        if let Some(left) = self.service.left(&step.operation).await? {
            self.service.resume(&left).await?;
            return self.ended(&left.spec.id).await;
        }
        let mend = match &step.repair {
            Repair::Forget => Mend::Forget(volume),
            Repair::Retag { tag } => Mend::Retag(volume, tag),
            Repair::RecordDevice { .. } => Mend::Operate(&step.operation, OperationKind::Attach, volume),
            _ => Mend::Operate(&step.operation, OperationKind::Detach, volume),
        };
        let mut done_before = false;
        let check = async {
            let go_on = self.is_as_planned(plan, step, volume).await?;
            done_before = !go_on;
            Ok(go_on)
        };
        match self.service.mend(&step.disk, mend, check).await? {
            Some(operation) => self.ended(&operation).await,
            None if done_before => Ok(StepOutcome::DoneBefore),
            None => Ok(StepOutcome::Done),
        }
    }

    /// Whether both sides are what the plan saw; `false` when nothing is left to do. Asked under the lease.
    async fn is_as_planned(&self, plan: &ReconcilePlan, step: &Step, volume: &VolumeId) -> Result<bool> {
        let now = self.seen(volume).await?;
        if step.is_done(&now) {
            return Ok(false);
        }
        let changed =
            |reason: String| Err(Error::new(ErrorKind::Conflict, "repair volume", volume).because(reason));
        if now != step.seen {
            return changed("it is not as the plan saw it; compare again".to_owned());
        }
        if now.record.as_ref().is_none_or(|record| record.disk != step.disk) {
            return changed(format!("it is not for disk {}", step.disk));
        }
        match &step.repair {
            Repair::Forget => self.is_gone(plan, volume).await,
            Repair::Retag { tag } if tag.instance != plan.instance || tag.disk != step.disk => {
                changed(format!("{tag} is not its mark"))
            }
            _ => Ok(true),
        }
    }

    /// Asked in two ways: the place must still have others of ours (L21).
    async fn is_gone(&self, plan: &ReconcilePlan, volume: &VolumeId) -> Result<bool> {
        let listing = self.services().backend.list(&plan.instance).try_collect::<Vec<Volume>>();
        let listed = self.service.answered(volume, listing).await?;
        if listed.is_empty() || listed.iter().any(|listed| listed.id == *volume) {
            let reason = "the backend lists it, or nothing of ours at all";
            return Err(Error::new(ErrorKind::Conflict, "forget volume", volume).because(reason));
        }
        Ok(true)
    }

    async fn seen(&self, volume: &VolumeId) -> Result<Seen> {
        let services = self.services();
        let found = self.service.answered(volume, services.backend.get(volume)).await?;
        let record = match services.volumes.volume(volume).await? {
            None => None,
            Some(record) => {
                let linked = services.volumes.volume_of(&record.disk).await?;
                Some(SeenRecord::of(&record, linked.is_some_and(|linked| linked.id == *volume)))
            }
        };
        Ok(Seen { record, volume: found.map(Into::into) })
    }

    /// Waits for the end of an operation, as long as is patient.
    async fn ended(&self, id: &crate::OperationId) -> Result<StepOutcome> {
        let Operation { status, error, .. } = self.service.wait(id, self.service.answer_limit()).await?;
        Ok(match status {
            OperationStatus::Completed => StepOutcome::Done,
            OperationStatus::Pending | OperationStatus::Executing => StepOutcome::UnderWay,
            OperationStatus::Failed | OperationStatus::Cancelled => {
                StepOutcome::Failed(error.unwrap_or_else(|| format!("operation {id} was {status}")))
            }
        })
    }
}

fn refused_or_failed(error: &Error) -> StepOutcome {
    match error.kind() {
        ErrorKind::Conflict | ErrorKind::Busy | ErrorKind::PermissionDenied | ErrorKind::Invalid => {
            StepOutcome::Refused(error.chain())
        }
        _ => StepOutcome::Failed(error.chain()),
    }
}
