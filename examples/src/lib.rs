#![doc = include_str!("../README.md")]

pub mod age;
pub mod authority;
pub mod daemon;
pub mod data_dir;
pub mod database;
pub mod disk_args;
pub mod exit;
pub mod failure;
pub mod folder;
pub mod limits_file;
mod nbd_address;
mod nbd_opener;
pub mod output;
pub mod placement;
pub mod private_file;
pub mod progress;
mod sample_disk;
pub mod signals;
pub mod signing_key;
pub mod source;
pub mod trail;
pub mod trust;

pub use nbd_address::{NbdAddress, NbdAddresses};
pub use nbd_opener::NbdOpener;
pub use sample_disk::{SampleDisk, noise};

/// The front page of the workspace: its code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct FrontPage;
