#![doc = include_str!("../README.md")]

pub mod protocol;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "kernel")]
pub mod kernel;
#[cfg(any(feature = "client", feature = "server"))]
mod leaves;
#[cfg(feature = "nbd-server")]
pub mod nbd_server;
#[cfg(feature = "qemu")]
pub mod qemu;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "client", feature = "server"))]
mod sockets;
#[cfg(feature = "client")]
mod source;
#[cfg(any(feature = "client", feature = "server"))]
mod tls;
#[cfg(feature = "client")]
mod uri;

#[cfg(feature = "client")]
pub use client::{Client, ClientConfig};
#[cfg(feature = "qemu")]
pub use qemu::{QemuConfig, QemuSource};
#[cfg(feature = "server")]
pub use server::{
    ConnectionStatistics, ContextStatus, DirtyBitmap, ExportLimits, ExportOptions, ExportReport, Latencies,
    Latency, Listing, MarkedExtents, MetaContext, Server, ServerConfig,
};
#[cfg(feature = "client")]
pub use source::NbdSource;
#[cfg(all(feature = "tls", any(feature = "client", feature = "server")))]
pub use tls::validity;
#[cfg(feature = "server")]
pub use tls::{ClientCertificates, TlsFiles, TlsPolicy, TlsServer};
#[cfg(any(feature = "client", feature = "server"))]
pub use tls::{ClientName, Clients, Principal};
#[cfg(feature = "client")]
pub use tls::{TlsClientConfig, TlsIdentity, Trust};
#[cfg(feature = "client")]
pub use uri::{Address, DEFAULT_PORT, Uri, UriTls};
