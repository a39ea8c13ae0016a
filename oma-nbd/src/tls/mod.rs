//! TLS: nobody in between reads or changes a byte, and each side can know who the other one is.
//!
//! ```text
//!  client ──STARTTLS──► server        plain: greeting, one option, its answer
//!    └──── Session ◄──records──► Session     everything after that
//! ```
//! The types here are the same whether the feature `tls` is on or not; without it, using one is `Unsupported`.

mod access;
#[cfg_attr(
    not(all(feature = "client", feature = "server", feature = "tls")),
    allow(dead_code, reason = "a program with one side only, or without TLS, does not fail in every way")
)]
mod failure;
mod files;
#[cfg(feature = "server")]
mod kernel_stream;
mod principal;
#[cfg(feature = "server")]
mod stream;

#[cfg(not(feature = "tls"))]
#[path = "absent.rs"]
#[allow(dead_code, reason = "it has the shape of what it stands in for")]
mod engine;
#[cfg(feature = "tls")]
#[cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(dead_code, reason = "each side uses a part of it")
)]
mod engine;

pub use access::Clients;
#[cfg(feature = "tls")]
pub use engine::validity;
#[cfg(feature = "server")]
pub use files::{ClientCertificates, TlsFiles};
#[cfg(feature = "client")]
pub use files::{TlsClientConfig, TlsIdentity, Trust};
pub use principal::{ClientName, Principal};
#[cfg(feature = "server")]
pub use server::{TlsPolicy, TlsServer};

#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub(crate) use engine::KernelSession;
#[cfg(feature = "client")]
pub(crate) use engine::connector;
pub(crate) use engine::{Need, Session};
pub(crate) use failure::TlsFailure;
#[cfg(feature = "server")]
pub(crate) use kernel_stream::KernelStream;
#[cfg(feature = "server")]
pub(crate) use stream::TlsStream;
