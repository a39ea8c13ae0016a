#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "mysql", feature = "postgres")),
    allow(dead_code, reason = "without an engine nothing can be opened")
)]

mod batch;
mod check;
mod config;
mod db;
mod dialect;
mod dump;
mod error;
mod lease;
mod migrate;
mod months;
mod page;
mod record;
#[cfg(feature = "servers")]
pub mod servers;
mod sql;
mod store;

mod accounts;
mod audit_log;
mod change_id_repo;
mod claims;
mod cleanups;
mod export_registry;
mod extent_journal;
mod inventory;
mod job_list;
mod job_log;
mod job_store;
mod log_store;
mod overview;
mod recovery_points;
mod report_store;
mod volume_registry;

pub use check::{Finding, RULES};
pub use config::{Durability, StoreConfig};
pub use dump::Contents;
pub use migrate::Schema;
pub use store::SqlStore;
