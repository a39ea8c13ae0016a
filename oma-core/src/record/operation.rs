use crate::state::{OperationKind, OperationStatus};
use crate::{ByteSize, DiskRef, JobId, OperationId, Timestamp, VolumeId};

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
}

/// A recorded intent (`volume_operations`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked for.
    pub spec: OperationSpec,
    /// How it stands.
    pub status: OperationStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}
