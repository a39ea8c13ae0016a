#![doc = include_str!("../README.md")]

#[cfg(feature = "cloudstack")]
pub mod cloudstack;
#[cfg(feature = "file")]
pub mod device;
#[cfg(feature = "discovery")]
pub mod discovery;
#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "file")]
pub mod journal;
#[cfg(feature = "loopdev")]
pub mod loopdev;
#[cfg(feature = "file")]
pub mod source;
#[cfg(any(feature = "discovery", feature = "loopdev"))]
mod uevents;
