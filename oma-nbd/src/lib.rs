#![doc = include_str!("../README.md")]

pub mod protocol;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "client")]
mod source;
#[cfg(feature = "client")]
mod uri;

#[cfg(feature = "client")]
pub use client::{Client, ClientConfig};
#[cfg(feature = "server")]
pub use server::{ContextStatus, DirtyBitmap, MetaContext, Server, ServerConfig};
#[cfg(feature = "client")]
pub use source::NbdSource;
#[cfg(feature = "client")]
pub use uri::{Address, DEFAULT_PORT, Uri};
