#![doc = include_str!("../README.md")]

mod account;
#[cfg(any(feature = "client", feature = "server"))]
pub mod backend;
mod change_id;
mod cleanup;
#[cfg(feature = "client")]
pub mod client;
mod copy;
mod database;
mod disk;
mod explanation;
mod export;
mod failure;
mod forecast;
mod job;
mod job_log;
mod level;
mod metrics;
mod named_disk;
mod page;
mod point;
mod problem;
mod push;
#[cfg(any(feature = "client", feature = "server"))]
mod reconciliation;
mod replication;
mod replication_request;
mod replication_row;
mod running;
#[cfg(feature = "server")]
pub mod server;
mod session;
mod verify;
mod vm;
mod volume;
mod volume_request;

#[cfg(any(feature = "client", feature = "server"))]
pub use account::token_id;
pub use account::{
    AuditRow, AuditVerification, ChangePassword, ChangeUser, CreateToken, CreateUser, LogIn, MeRow,
    NewTokenRow, Secret, TokenRow, UserRow,
};
pub use change_id::ChangeIdRow;
pub use cleanup::{CleanupItemRow, CleanupRow, CleanupStepRow, PlanCleanup};
pub use copy::CopyReport;
pub use database::{DatabaseRow, FindingRow, MoveReport};
pub use disk::DiskRow;
pub use explanation::Explanation;
pub use export::{CreateExport, ExportRow};
pub use failure::Failure;
pub use forecast::{ForecastReport, Spread};
pub use job::JobRow;
pub use job_log::{JobLineRow, JobStepRow};
pub use level::{TrustWanted, VerifyWanted};
pub use named_disk::{NamedDisk, NamedDiskError};
pub use page::Page;
pub use point::{PointDisk, PointRow};
pub use problem::{Problem, ProblemRetry};
pub use push::{ChangedSince, FinishedExtents, PushDiskRow, PushFailed, PushRequest, PushRow, PushedDisk};
#[cfg(any(feature = "client", feature = "server"))]
pub use reconciliation::Compared;
pub use replication::{DiskReport, Outcome, ReplicationReport};
pub use replication_request::{DiscoverVm, ReplicationRequest, SourceRequest};
pub use replication_row::{
    CbtHistoryRow, ChangeIdAnswer, DiskProgressRow, ProgressRow, RecordChangeId, ReplicationRow,
};
pub use running::{RunningDisk, RunningReport};
pub use session::SessionRow;
pub use verify::{DiskComparison, KeyRow, ReportCheck, VerifyReport, VerifyStatus};
pub use vm::VmRow;
pub use volume::{DeviceRow, OperationRow, SnapshotRow, VolumeRow};
pub use volume_request::{
    AttachVolume, CallOff, CreateVolume, RecordDisk, RecordVm, ResizeVolume, RevertVolume, WhenAttached,
};

#[cfg(test)]
mod tests;
