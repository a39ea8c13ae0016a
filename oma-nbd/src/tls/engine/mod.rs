//! TLS by rustls.

mod explain;
mod incoming;
#[cfg(feature = "server")]
mod kernel;
mod names;
mod outgoing;
mod pem;
mod session;
mod settings;

#[cfg(feature = "server")]
pub(crate) use kernel::KernelSession;
pub use names::validity;
pub(crate) use session::{Need, Session};
#[cfg(feature = "server")]
pub(crate) use settings::Acceptor;
#[cfg(feature = "client")]
pub(crate) use settings::connector;
