#![doc = include_str!("../README.md")]

mod change_id;
mod copy;
mod database;
mod disk;
mod explanation;
mod failure;
mod forecast;
mod job;
mod metrics;
mod point;
mod problem;
mod replication;
mod running;
#[cfg(feature = "server")]
pub mod server;
mod verify;
mod volume;

pub use change_id::ChangeIdRow;
pub use copy::CopyReport;
pub use database::{DatabaseRow, FindingRow, MoveReport};
pub use disk::DiskRow;
pub use explanation::Explanation;
pub use failure::Failure;
pub use forecast::{ForecastReport, Spread};
pub use job::JobRow;
pub use point::{PointDisk, PointRow};
pub use problem::{Problem, ProblemRetry};
pub use replication::{DiskReport, Outcome, ReplicationReport};
pub use running::{RunningDisk, RunningReport};
pub use verify::{DiskComparison, KeyRow, ReportCheck, VerifyReport, VerifyStatus};
pub use volume::{OperationRow, VolumeRow};

#[cfg(test)]
mod tests;
