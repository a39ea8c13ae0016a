#![doc = include_str!("../README.md")]

mod sample_disk;

pub use sample_disk::{SampleDisk, noise};

/// The front page of the workspace: its code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct FrontPage;
