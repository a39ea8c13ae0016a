//! The only callers of a volume backend's methods that change a volume: intent recorded, backend called, result recorded (L15).
//!
//! [`LeasedVolumes`] works for a job that replicates or reverts; [`VolumeService`] for an operator, a volume daemon, or whoever
//! else wants a single volume changed.

mod abandon;
mod act;
mod drive;
mod driven;
mod hold;
mod leased;
mod look;
mod recover;
mod repair;
mod request;
mod service;
#[cfg(test)]
pub(in crate::engine) mod tests;
mod upkeep;

pub(super) use leased::{LeasedVolumes, ReadyVolume, VolumeNeed, foreign, was_written};
pub use recover::Recovered;
pub(super) use repair::Mend;
pub use request::{VolumeChange, VolumeRequest, VolumesConfig};
pub use service::{VolumeService, VolumeServices};
