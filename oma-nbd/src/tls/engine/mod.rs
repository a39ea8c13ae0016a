//! TLS by rustls.

mod explain;
mod incoming;
mod names;
mod outgoing;
mod pem;
mod session;
mod settings;

pub(crate) use session::{Need, Session};
#[cfg(feature = "server")]
pub(crate) use settings::Acceptor;
#[cfg(feature = "client")]
pub(crate) use settings::connector;
