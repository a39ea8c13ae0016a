#![doc = include_str!("../README.md")]

pub mod age;
pub mod data_dir;
pub mod database;
pub mod exit;
pub mod failure;
mod nbd_address;
mod nbd_opener;
pub mod output;
mod sample_disk;
pub mod signals;

pub use nbd_address::{NbdAddress, NbdAddresses};
pub use nbd_opener::NbdOpener;
pub use sample_disk::{SampleDisk, noise};

/// The front page of the workspace: its code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct FrontPage;
