//! Conformance suites: what every implementation of a trait promises, as named cases.
//!
//! A suite is a table of [`Case`]s over a subject; an implementation brings a factory that makes a fresh subject per case.
//! The runner is libtest-mimic, so cases are listed, filtered and run in parallel like ordinary tests:
//!
//! ```no_run
//! use oma_core::conformance::{self, Requirement};
//!
//! # fn my_trials() -> Vec<conformance::Trial> { Vec::new() }
//! fn main() -> std::process::ExitCode {
//!     let mut trials = my_trials();
//!     // Shown as ignored with the reason where the program is missing; a failure where OMA_TEST_REQUIRE names it.
//!     trials.push(conformance::trial("peers::nbdinfo_lists_us", &[Requirement::Program("nbdinfo")], || async {}));
//!     conformance::run(trials)
//! }
//! ```

#![allow(clippy::unwrap_used, reason = "a case panics when its promise is broken")]

mod block_device;
mod copy_journal;
mod disk_source;
mod export_server;
mod requirement;
mod runner;
mod sample;
mod store;
mod volume_backend;

pub use block_device::{
    DEVICE_CAPACITY, DeviceSubject, block_device_cases, read_only_device_cases, short_device_cases,
};
pub use copy_journal::{CopyJournalSubject, ReopenJournal, copy_journal_cases};
pub use disk_source::{
    SourceSubject, SourceWorld, disk_source_cases, snapshot_source_cases, tracking_source_cases,
};
pub use export_server::{Connect, ExportSubject, export_server_cases};
pub use requirement::Requirement;
pub use runner::{Case, Guard, Trial, cases, cases_needing, run, trial, trial_within, without};
pub use sample::sample;
pub use store::{AddAutomationJob, AddFailover, StoreSubject, store_cases};
pub use volume_backend::{
    BackendSubject, TOO_LARGE, full_backend_cases, unreachable_backend_cases, volume_backend_cases,
};
