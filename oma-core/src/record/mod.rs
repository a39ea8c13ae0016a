//! Records: what is stored of VMs, jobs, volumes, operations, exports and change ids.

mod change;
mod export;
mod job;
mod journal;
mod operation;
mod vm;
mod volume;

pub use change::{CbtRecord, CommittedChange, DiskAttempt, DiskCommit, EpochCommit};
pub use export::ExportRecord;
pub use job::{JobEnd, JobFilter, JobSpec, Lease, ReplicationJob};
pub use journal::{JournalBasis, JournalEntry};
pub use operation::{Operation, OperationSpec};
pub use vm::{DiskRecord, SourceDisk, SourceIdentity, SourceVm, VmContext};
pub use volume::{ContentStamp, VolumeContent, VolumeRecord, VolumeTag};
