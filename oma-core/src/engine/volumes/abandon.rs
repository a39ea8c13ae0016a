//! An operation whose backend never tells what became of it is ended by an operator.

use std::time::Duration;

use super::act::operation;
use super::driven::Driving;
use super::look::{Look, Looked};
use super::service::VolumeService;
use crate::engine::config::RetryConfig;
use crate::engine::retry::retry;
use crate::record::{JobEnd, Lease, Operation};
use crate::state::{JobKind, OperationKind, OperationStatus};
use crate::{Error, ErrorKind, OperationId, Result};

/// How long the backend may take to tell, when it is asked for the last time.
pub(super) const LAST_LOOK: Duration = Duration::from_secs(30);
/// How often it is asked then.
const LOOKS: u32 = 2;

impl VolumeService {
    /// Ends an operation that is in doubt ([`Operation::error`]) and of which the backend does not tell, for good: it is recorded as
    /// failed, with the operator's reason and with what is unknown from now on. The VM can be changed and replicated again. Idempotent:
    /// the first reason stays. The backend is asked once more before, for half a minute and twice at most: it must not answer, or have
    /// told of nothing done since the operation began, which must be longer ago than [`VolumesConfig::answer_limit`]. An attach or a
    /// detach that another worker left at its machine is in doubt everywhere else, once the lease of that worker has ended.
    ///
    /// What was abandoned may have been done, and may be done yet. So nothing is believed of the volume that it could have made
    /// wrong: after a resize, a revert or a delete its content is inconsistent and its generation the next (L09). Once the volume
    /// bears the new mark, the backend refuses what is asked for under the old one; what it had taken on before, as a cloud that has
    /// a `deleteVolume` in its queue, it may do all the same, also to a volume that is used again by then. Attachments and snapshots
    /// are asked of the backend before they are used anyway; a volume that a create made bears our mark and is in no record: a
    /// comparison finds it.
    ///
    /// # Errors
    /// `Conflict` when it is pending, completed, cancelled or not in doubt, when the backend has done it or may tell yet, when another
    /// job of the VM is live; `Unavailable` when the records cannot be read; `Busy` while another worker carries it out; `Invalid` without a
    /// reason; `NotFound` for an unknown operation. The operation goes on then.
    ///
    /// [`VolumesConfig::answer_limit`]: super::VolumesConfig::answer_limit
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
        let doubt = self.doubt(&found).await?;
        self.check_untold(&found).await?;
        let (lease, _driving) = self.hold(&found).await?;
        let given_up = self.give_up_held(&lease, id, reason, &doubt).await;
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

    /// Refuses what the backend tells of, and what it may tell of yet. Asked before anything is held: it may take its time.
    async fn check_untold(&self, left: &Operation) -> Result<()> {
        let Some(looked) = self.last_look(left).await? else { return Ok(()) };
        let limit = self.config().answer_limit;
        // A deletion was recorded long before it began, its job was not.
        let live = self.services().jobs.live(&left.spec.disk.context).await?;
        let begun = live.map_or(left.updated_at, |job| job.created_at);
        match looked {
            Looked::Done(_) => Err(refused(left, "the backend has done it: wait, or have it recovered")),
            _ if self.now() < begun.after(limit) => {
                let limit = limit.as_secs();
                let reason = format!(
                    "the backend answers: wait until it has told, for {limit} s at least, or have it recovered"
                );
                Err(refused(left, reason))
            }
            looked => {
                tracing::info!(operation = %left.spec.id, ?looked, "the backend answers and never tells");
                Ok(())
            }
        }
    }

    /// What the backend tells now; `None` when it is silent, or answers an error, also to the mere question how the volume is. That a
    /// store does not answer is no proof of that (L21).
    async fn last_look(&self, left: &Operation) -> Result<Option<Looked>> {
        let look = Look { services: self.services(), spec: &left.spec };
        let known = match self.patiently(|| look.known()).await {
            // Its volume was forgotten: nothing is left to look at.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Some(Looked::Unclear(error.chain())));
            }
            known => known?,
        };
        let limit = LAST_LOOK.min(self.config().answer_limit);
        let patience = RetryConfig { attempts: LOOKS, ..self.config().retry };
        let told = retry(&patience, self.stop(), || {
            self.answered_within(limit, &left.spec.id, self.stop(), look.ask(&known))
        });
        match told.await {
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                tracing::info!(operation = %left.spec.id, error = %error.chain(), "the backend does not tell");
                Ok(None)
            }
            Ok(told) => Ok(Some(told)),
        }
    }

    /// Why nobody knows what became of it.
    async fn doubt(&self, found: &Operation) -> Result<String> {
        check_begun(found)?;
        match (&found.error, self.finisher(found).await?) {
            (Some(doubt), _) => Ok(doubt.clone()),
            // While that one is there its lease keeps it from being abandoned.
            (None, Some(worker)) => Ok(format!("worker {worker} began it, and has not ended it")),
            (None, None) => Err(refused(found, "it is not in doubt: wait, or have it recovered")),
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
    async fn give_up_held(
        &self,
        lease: &Lease,
        id: &OperationId,
        reason: &str,
        doubt: &str,
    ) -> Result<Operation> {
        let volumes = &self.services().volumes;
        let found = operation(self.services(), id).await?;
        if found.status == OperationStatus::Failed {
            return Ok(found);
        }
        check_begun(&found)?;
        let doubt = found.error.as_deref().unwrap_or(doubt);
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

fn check_begun(found: &Operation) -> Result<()> {
    match found.status {
        OperationStatus::Executing => Ok(()),
        OperationStatus::Pending => Err(refused(found, "it has not begun: call it off")),
        ended => Err(refused(found, format!("it is {ended}"))),
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
