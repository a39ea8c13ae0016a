#![doc = include_str!("../README.md")]

mod buffer;
mod change_id;
mod error;
mod extent;
mod extent_set;
mod id;
mod size;
mod time;

pub mod audit;
pub mod direct;
pub mod memory;
pub mod record;
pub mod seal;
pub mod state;
pub mod traits;
pub mod tree;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "engine")]
pub mod engine;

pub use buffer::page_aligned;
pub use change_id::ChangeId;
pub use error::{Error, ErrorKind, Result, Retry};
pub use extent::{Extent, ExtentError};
pub use extent_set::{CompactError, ExtentSet};
pub use id::{
    AuditId, AutomationJobId, CleanupId, ContextId, DiskKey, DiskRef, Endpoint, Epoch, ExportName,
    FailoverJobId, Fence, Generation, IdError, InstanceId, InstanceUuid, JobId, LogId, OperationId, PointId,
    RecoveryPointId, SnapshotId, TargetName, TokenId, UserId, VmPath, VolumeId, WorkerId,
};
pub use size::{ByteSize, ByteSizeError};
pub use time::{Clock, SystemClock, Timestamp};
