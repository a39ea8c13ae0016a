//! The replication engine: brings every disk of a VM to one source point in time.
//!
//! ```text
//! discover → job → freeze → provision → publish → plan → copy → verify → withdraw → snapshot → commit
//!                    └─────────────────── under one lease, every step may run twice ────────────────┘
//! ```
//!
//! [`Replicator`] drives one job in pull mode: it reads from a [`DiskSource`](crate::traits::DiskSource) and writes to
//! volumes of a [`VolumeBackend`](crate::traits::VolumeBackend). Everything it needs to continue after a crash is in the
//! stores before it acts: run it again with the same request and it goes on from the journal of finished extents.
//!
//! ```
//! use std::sync::Arc;
//! use oma_core::engine::{ReplicateConfig, ReplicateRequest, Replicator, Services, Silent};
//! use oma_core::memory::{MemoryBackend, MemoryExportServer, MemorySource, MemoryStore};
//! use oma_core::{ByteSize, DiskKey, Endpoint, Epoch, VmPath, WorkerId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let vm = VmPath::parse("/DC/vm/web")?;
//! let source = MemorySource::new(Endpoint::parse("vcenter.example")?);
//! source.add_disk(&vm, &DiskKey::parse("disk-2000")?, ByteSize::mib(8));
//!
//! let store = Arc::new(MemoryStore::default());
//! let services = Services::new(
//!     store, Arc::new(source), Arc::new(MemoryBackend::new()), Arc::new(MemoryExportServer::new()));
//! let replicator = Replicator::new(services, WorkerId::parse("docs")?, ReplicateConfig::default());
//!
//! let report = replicator.run(&ReplicateRequest::new(vm), &Silent, &Default::default()).await?;
//! assert_eq!(report.epoch, Epoch(1));
//! assert!(report.outcome.is_completed());
//! # Ok(())
//! # }
//! ```

mod cancel;
mod cleanup;
mod compare;
mod config;
mod copier;
mod copy;
mod explain;
mod forecast;
mod guard;
mod keeper;
mod known;
mod limits;
mod points;
mod progress;
mod push;
mod reconcile;
mod recorder;
mod replicate;
mod report;
mod retry;
mod services;
mod spans;
mod stoppable;
mod tally;
mod upkeep;
mod verify;
mod volumes;
mod work;
mod zeroes;

pub use cancel::cancel;
pub use cleanup::{CleanupRequest, CleanupService, CleanupServices};
pub use config::{
    CopyMode, PathPolicy, ReplicateConfig, ReplicateRequest, RetryConfig, TrustPolicy, VerifyLevel,
};
pub use copy::{CopyReport, CopyRequest, Original, Resume, copy};
pub use explain::{Stage, StageTimes};
pub use forecast::{Forecast, Spread, forecast};
pub use limits::{HourlyRate, Limit, LimitConfig, Limits, LimitsConfig};
pub use points::{KeepPoints, PointService, delete_point, destination, revert, went_back};
pub use progress::{DiskProgress, Event, Progress, Silent};
pub use push::{PushDisk, PushDiskState, PushFailure, PushReport, PushSource, PushState, PushVm, Pushes};
pub use reconcile::{
    Finding, FindingClass, LocalDevice, ReconcilePlan, ReconcileServices, Reconciled, Reconciler,
    Reconciliation, Repair, Seen, SeenRecord, SeenVolume, Step, StepOutcome,
};
pub use replicate::{Replicator, Submission};
pub use report::{DiskReport, Outcome, Report};
pub use services::Services;
pub use tokio_util::sync::CancellationToken;
pub use upkeep::{Upkeep, UpkeepConfig};
pub use verify::{VerifyRequest, tree_root, verify};
pub use volumes::{Recovered, VolumeChange, VolumeRequest, VolumeService, VolumeServices, VolumesConfig};
pub use work::{Work, WorkOpener, Worker, WorkerConfig};
