//! Volumes of a volume daemon as a [`VolumeBackend`](oma_core::traits::VolumeBackend), and an [`Appliance`] as agents ask it.
//!
//! ```text
//!  RemoteBackend ── Http ── one request for each call ──► /api/v1/backend of the daemon
//!    └─ RemoteDevice ── ExportOpener ── reads and writes ──► the URI that the daemon named
//!         └─ Session ── an answer that lasts ──► while it is read, the volume is open there
//! ```

mod appliance;
mod audit;
mod cleanups;
mod config;
mod device;
mod error;
mod http;
mod lines;
mod operate;
mod points;
mod remote;
mod reports;
mod session;
mod tls;
mod trust;
mod users;
mod vms;
mod volumes;

pub use appliance::Appliance;
pub use config::{RemoteConfig, Token};
pub use operate::{Jobs, Lines, Steer};
pub use remote::{ExportOpener, RemoteBackend};
pub use trust::Stranger;
pub use volumes::VolumeWanted;
