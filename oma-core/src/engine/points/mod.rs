//! Recovery points: a snapshot of every volume of a VM at one epoch, kept for a while.
//!
//! ```text
//!  copy → verify → withdraw ─▶ creating ─▶ snapshots ─▶ taken ─▶ commit: ready ─▶ retention: deleting ─▶ (removed)
//!                              intent                            one transaction             intent
//! ```
//!
//! The snapshots are made before the commit, while the job's lease keeps everybody else from the volumes, which are closed,
//! flushed and verified: they hold exactly the epoch. After the commit the lease is gone, and the next job may write. What a
//! crash leaves unfinished is never ready; the next run deletes it.

mod content;
mod delete;
mod errands;
mod keep;
mod revert;
mod service;
mod sweep;
mod take;
mod tell;

pub use delete::delete_point;
pub use keep::KeepPoints;
pub use revert::{destination, revert, went_back};
pub use service::PointService;
pub(super) use sweep::{delete, delete_forgotten, sweep};
pub(super) use take::take;
