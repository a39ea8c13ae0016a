#![doc = include_str!("../README.md")]

pub mod protocol;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use server::{ContextStatus, DirtyBitmap, MetaContext, Server, ServerConfig};
