//! An operation whose backend never tells what became of it is ended by an operator.

use std::time::Duration;

use super::act::operation;
use super::driven::Driving;
use super::look::Look;
use super::service::VolumeService;
use crate::engine::config::RetryConfig;
use crate::engine::retry::retry;
use crate::record::{JobEnd, Lease, Operation};
use crate::state::{JobKind, OperationKind, OperationStatus};
use crate::{Error, ErrorKind, OperationId, Result};

/// How long the backend may take to tell, when it is asked for the last time.
const LAST_LOOK: Duration = Duration::from_secs(30);
/// How often it is asked then.
const LOOKS: u32 = 2;

impl VolumeService {
    /// Ends an operation that is in doubt ([`Operation::error`]) and whose backend is silent, for good: it is recorded as failed, with
    /// the operator's reason and with what is unknown from now on. The VM can be changed and replicated again. Idempotent: the first
    /// reason stays. The backend is asked once more before, for half a minute and twice at most.
    ///
    /// What was abandoned may have been done, and may be done yet. So nothing is believed of the volume that it could have made
    /// wrong: after a resize, a revert or a delete its content is inconsistent and its generation the next (L09), which also has the
    /// backend refuse whatever still comes under the old mark, once the volume bears the new one; attachments and snapshots are asked of
    /// the backend before they are used anyway; a volume that a create made bears our mark and is in no record: a comparison finds it.
    ///
    /// # Errors
    /// `Conflict` when it is pending, completed, cancelled or not in doubt, when the backend answers (then it is found out what
    /// became of it), and when another job of the VM is live; `Busy` while another worker carries it out; `Invalid` without a
    /// reason; `NotFound` for an unknown operation. The operation goes on then.
    pub async fn abandon(&self, id: &OperationId, reason: &str) -> Result<Operation> {
        let (this, id, reason) = (self.clone(), id.clone(), reason.trim().to_owned());
        self.begins(&id)?;
        if reason.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "abandon operation", &id).because("say why"));
        }
        let task = self.tasks().spawn(async move { this.give_up(&id, &reason).await });
        task.await.unwrap_or_else(|lost| Err(Error::new(ErrorKind::Internal, "abandon operation", lost)))
    }

    async fn give_up(&self, id: &OperationId, reason: &str) -> Result<Operation> {
        let found = operation(self.services(), id).await?;
        if found.status == OperationStatus::Failed {
            return Ok(found);
        }
        doubt(&found)?;
        self.check_silent(&found).await?;
        let (lease, _driving) = self.hold(&found).await?;
        let given_up = self.give_up_held(&lease, id, reason).await;
        let left = operation(self.services(), id).await;
        match left.is_ok_and(|left| left.status.is_terminal()) {
            true => {
                let error = given_up.as_ref().ok().and_then(|given_up| given_up.error.clone());
                self.end(&lease, error.map_or(JobEnd::Done, JobEnd::Failed)).await?;
            }
            // To be recovered.
            false => self.services().jobs.release(&lease).await?,
        }
        given_up
    }

    /// Refuses what the backend tells of. Asked before anything is held: it may take its time.
    async fn check_silent(&self, left: &Operation) -> Result<()> {
        let limit = LAST_LOOK.min(self.config().answer_limit);
        let look = Look { services: self.services(), spec: &left.spec };
        let patience = RetryConfig { attempts: LOOKS, ..self.config().retry };
        let told = retry(&patience, self.stop(), || {
            self.answered_within(limit, &left.spec.id, self.stop(), look.look())
        });
        match told.await {
            Ok(_) => Err(refused(left, "the backend answers: wait until it has told, or have it recovered")),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(silent) => {
                tracing::info!(operation = %left.spec.id, error = %silent.chain(), "the backend is silent");
                Ok(())
            }
        }
    }

    /// Takes the operation from whoever carries it out here, or from nobody. Nobody here takes it up meanwhile.
    async fn hold(&self, left: &Operation) -> Result<(Lease, Driving)> {
        let disk = &left.spec.disk;
        let _taking = self.taking().await;
        self.driven().let_go(&left.spec.id).await;
        let live = self.services().jobs.live(&disk.context).await?;
        let (lease, _) = match live {
            None => self.take(disk).await,
            Some(job)
                if job.kind == JobKind::Operate
                    && job.disks.contains(&disk.key)
                    && !self.driven().has_job(&job.id) =>
            {
                self.claim(&job.id).await
            }
            Some(job) => {
                Err(refused(left, format!("job {} of its VM is live; end that first, or wait", job.id)))
            }
        }?;
        let driving = Driving::begin(self, &lease.job, &disk.context, None);
        Ok((lease, driving))
    }

    /// Killed in between, it is in doubt still.
    async fn give_up_held(&self, lease: &Lease, id: &OperationId, reason: &str) -> Result<Operation> {
        let volumes = &self.services().volumes;
        let found = operation(self.services(), id).await?;
        if found.status == OperationStatus::Failed {
            return Ok(found);
        }
        let doubt = doubt(&found)?;
        let unknown = unknown_of(found.spec.kind);
        if let (true, Some(volume)) = (unknown.ends_content, &found.spec.volume) {
            match self.patiently(|| volumes.advance_generation(lease, volume)).await {
                // The disk has another volume by now, or none.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                advanced => drop(advanced?),
            }
        }
        let why = format!("abandoned: {reason}; {}; it was in doubt: {doubt}", unknown.text);
        self.patiently(|| volumes.fail(lease, id, &why)).await?;
        tracing::warn!(operation = %id, kind = %found.spec.kind, reason, "abandoned by an operator");
        operation(self.services(), id).await
    }
}

/// Why nobody knows what became of it.
fn doubt(found: &Operation) -> Result<&str> {
    match (found.status, &found.error) {
        (OperationStatus::Executing, Some(doubt)) => Ok(doubt),
        (OperationStatus::Executing, None) => {
            Err(refused(found, "it is not in doubt: wait, or have it recovered"))
        }
        (OperationStatus::Pending, _) => Err(refused(found, "it has not begun: call it off")),
        (ended, _) => Err(refused(found, format!("it is {ended}"))),
    }
}

fn refused(left: &Operation, reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Conflict, "abandon operation", &left.spec.id).because(reason.into())
}

/// What nobody knows of a volume once an operation on it is abandoned.
struct Unknown {
    text: &'static str,
    /// Whether its content may be another than before.
    ends_content: bool,
}

const fn unknown_of(kind: OperationKind) -> Unknown {
    let (text, ends_content) = match kind {
        OperationKind::Create => {
            ("it may have made a volume, or make it yet, which bears our mark and is in no record", false)
        }
        OperationKind::Attach => ("its volume may be attached, or become so yet", false),
        OperationKind::Detach => ("its volume may be detached, or become so yet", false),
        OperationKind::Resize => ("its volume may be larger, or become so yet", true),
        OperationKind::Delete => ("its volume may be gone, or go yet", true),
        OperationKind::Snapshot => ("its snapshot may be there, or be made yet", false),
        OperationKind::Revert => ("its volume may hold what the snapshot does, or a part of it", true),
        OperationKind::DeleteSnapshot => ("its snapshot may be gone, or go yet", false),
    };
    Unknown { text, ends_content }
}
