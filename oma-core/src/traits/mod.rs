//! Traits: what a store, a backend, a source and an export server promise.
//!
//! Every sentence of a method's documentation has a case in the conformance suites
//! (`oma_core::conformance`, feature `conformance`). Two rules hold everywhere:
//!
//! * "Absent" is an answer (`Ok(None)` or [`ErrorKind::NotFound`](crate::ErrorKind::NotFound)), "could not ask" is
//!   [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) (L21).
//! * A dropped future leaves the call either done or not done, never half done; ask again to learn which.

mod accounts;
mod admission;
mod audit_log;
mod block_device;
mod change_id_repo;
mod cleanups;
mod copy_journal;
mod disk_source;
mod export_registry;
mod export_server;
mod extent_journal;
mod inventory;
mod job_log;
mod job_store;
mod leaf_hasher;
mod log_store;
mod overview;
mod recovery_points;
mod report_store;
mod volume_backend;
mod volume_registry;

pub use accounts::Accounts;
pub use admission::Admission;
pub use audit_log::AuditLog;
pub use block_device::{
    Access, BlockDevice, BlockSizes, BlockStatus, BlockStatusKind, DeviceIdentity, DeviceInfo, Durability,
    InPlace, Zeroing,
};
pub use change_id_repo::ChangeIdRepo;
pub use cleanups::Cleanups;
pub use copy_journal::CopyJournal;
pub use disk_source::{Changes, DiskSource, PointDisk, PointInTime};
pub use export_registry::ExportRegistry;
pub use export_server::{Drained, Export, ExportServer, ExportSpec, ExportStatistics};
pub use extent_journal::ExtentJournal;
pub use inventory::Inventory;
pub use job_log::JobLog;
pub use job_store::JobStore;
pub use leaf_hasher::{HashedLeaves, LeafHasher, ReadFrom, ReadManner};
pub use log_store::LogStore;
pub use overview::Overview;
pub use recovery_points::RecoveryPoints;
pub use report_store::ReportStore;
pub use volume_backend::{
    BackendCapabilities, Provisioning, Snapshot, SnapshotSpec, Snapshots, Volume, VolumeBackend, VolumeSpec,
};
pub use volume_registry::VolumeRegistry;

#[cfg(test)]
mod dyn_safe {
    use super::*;

    // Compiles only while every trait is dyn-safe.
    const _: fn(&dyn BlockDevice, &dyn DiskSource, &dyn VolumeBackend, &dyn ExportServer) = |_, _, _, _| ();
    const _: fn(&dyn InPlace, &dyn LeafHasher) = |_, _| ();
    const _: fn(&dyn JobStore, &dyn Inventory, &dyn ChangeIdRepo, &dyn ExtentJournal) = |_, _, _, _| ();
    const _: fn(&dyn VolumeRegistry, &dyn ExportRegistry, &dyn LogStore, &dyn Overview) = |_, _, _, _| ();
    const _: fn(&dyn ReportStore, &dyn CopyJournal, &dyn RecoveryPoints) = |_, _, _| ();
    const _: fn(&dyn Accounts, &dyn AuditLog, &dyn JobLog, &dyn Cleanups) = |_, _, _, _| ();
}
