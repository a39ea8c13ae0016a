use super::Order;
use crate::state::{OperationKind, OperationStatus};
use crate::traits::Provisioning;
use crate::{ByteSize, ContextId, DiskRef, JobId, OperationId, SnapshotId, Timestamp, VolumeId, WorkerId};

/// An intent to change a volume, to be recorded before the backend is called (L15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationSpec {
    /// Minted by the caller; the backend's idempotency key.
    pub id: OperationId,
    /// What is to be done.
    pub kind: OperationKind,
    /// The disk whose volume it is.
    pub disk: DiskRef,
    /// The volume; `None` while it is to be created.
    pub volume: Option<VolumeId>,
    /// The job that wants it.
    pub job: JobId,
    /// The size wanted, of a create or resize.
    pub capacity: Option<ByteSize>,
    /// The name wanted, of a create.
    pub name: Option<String>,
    /// When the space of a volume to be created is allocated; as it is written, when it is not said.
    pub provisioning: Option<Provisioning>,
    /// The snapshot to be made, gone back to or destroyed.
    pub snapshot: Option<SnapshotId>,
}

impl OperationSpec {
    /// An intent of this kind, of which nothing else is said.
    #[must_use]
    pub const fn new(id: OperationId, kind: OperationKind, disk: DiskRef, job: JobId) -> Self {
        let (volume, capacity, name, provisioning, snapshot) = (None, None, None, None, None);
        Self { id, kind, disk, volume, job, capacity, name, provisioning, snapshot }
    }

    /// Whether both want the same, for whichever job.
    #[must_use]
    pub fn wants_as(&self, other: &Self) -> bool {
        Self { job: other.job.clone(), ..self.clone() } == *other
    }
}

/// A recorded intent (`volume_operations`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked for.
    pub spec: OperationSpec,
    /// Who recorded it, and so whose machine an attach is about; not known of those of earlier versions.
    pub worker: Option<WorkerId>,
    /// How it stands.
    pub status: OperationStatus,
    /// Why it failed or was cancelled. While it is executing: why nobody knows yet what the backend did.
    pub error: Option<String>,
    /// The volume that it ended with, once it is completed.
    pub made: Option<VolumeId>,
    /// Not before then it is executed, while it is pending.
    pub due_at: Option<Timestamp>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

impl Operation {
    /// Where it stands in lists.
    #[must_use]
    pub fn place(&self) -> OperationPlace {
        OperationPlace { created_at: self.created_at, id: self.spec.id.clone() }
    }
}

/// Where an operation stands among all of them: the newest is the largest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationPlace {
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Of those of one moment.
    pub id: OperationId,
}

/// Which operations to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// Only those on disks of this VM.
    pub context: Option<ContextId>,
    /// Only those that were asked for or made this volume.
    pub volume: Option<VolumeId>,
    /// Only those of this kind.
    pub kind: Option<OperationKind>,
    /// Only those that stand so.
    pub status: Option<OperationStatus>,
    /// Only pending ones that are due by then.
    pub due_by: Option<Timestamp>,
    /// Only those that have not ended while no job of their VM is live: nobody carries them out.
    pub left_only: bool,
    /// Which way the list goes.
    pub order: Order,
    /// Only those behind this place, which need not be taken by an operation.
    pub after: Option<OperationPlace>,
}

impl OperationFilter {
    /// Whether an operation is one of these; whether a job of its VM is live is not looked at.
    #[must_use]
    pub fn lets_through(&self, operation: &Operation) -> bool {
        let Operation { spec, made, status, due_at, .. } = operation;
        let is_of = |id: &VolumeId| spec.volume.as_ref() == Some(id) || made.as_ref() == Some(id);
        self.context.as_ref().is_none_or(|context| *context == spec.disk.context)
            && self.volume.as_ref().is_none_or(is_of)
            && self.kind.is_none_or(|kind| kind == spec.kind)
            && self.status.is_none_or(|wanted| wanted == *status)
            && self.due_by.is_none_or(|by| due_at.is_some_and(|due_at| due_at <= by))
            && !(self.left_only && status.is_terminal())
            && self.after.as_ref().is_none_or(|after| self.order.is_behind(&operation.place(), after))
    }
}
