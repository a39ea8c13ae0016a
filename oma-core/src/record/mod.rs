//! Records: what is stored of VMs, jobs, volumes, operations, exports and change ids.

mod account;
mod change;
mod claim;
mod cleanup;
mod copy;
mod export;
mod job;
mod journal;
mod log;
mod operation;
mod order;
mod orphans;
mod point;
mod progress;
mod retry;
mod step;
mod summary;
mod verification;
mod vm;
mod volume;

pub use account::{
    AccessToken, Attempt, AttemptLimits, AttemptSubject, Bearer, Credentials, Email, EmailError, Login,
    PasswordHash, TokenHash, TokenSpec, User, UserChange, UserSpec,
};
pub use change::{CbtRecord, CommittedChange, DiskAttempt, DiskCommit, EpochCommit};
pub use claim::{ClaimLimits, ClaimRequest};
pub use cleanup::{
    Cleanup, CleanupAction, CleanupEnd, CleanupFilter, CleanupItem, CleanupItemKind, CleanupNews,
    CleanupPlan, CleanupSpec, CleanupStep, CleanupVolume, FailoverRecord, KeepVolumes, Presence,
};
pub use copy::{CopyBasis, CopyEntry};
pub use export::ExportRecord;
pub use job::{JobEnd, JobFilter, JobSpec, Lease, ReplicationJob};
pub use journal::{JournalBasis, JournalEntry};
pub use log::{JobLine, LogEvent, LogFilter, Page, PageStart, Pruned, Retention};
pub use operation::{Operation, OperationFilter, OperationPlace, OperationSpec};
pub use order::Order;
pub use orphans::Orphans;
pub use point::{Needless, PointVolume, RecoveryPoint, RecoveryPointSpec};
pub use progress::{DiskAdvance, JobProgress};
pub use retry::RetryPolicy;
pub use step::{JobEntry, JobStep, StepEnd, Told};
pub use summary::{Ended, Summary};
pub use verification::{DiskVerification, SampleSize, VerificationReport, VerificationScope};
pub use vm::{DiskRecord, SourceDisk, SourceIdentity, SourceVm, VmContext};
pub use volume::{ContentStamp, VolumeContent, VolumeFilter, VolumeRecord, VolumeTag};
