//! The transmission phase: requests in, replies out, as many at once as allowed.
//!
//! ```text
//! socket ─▶ Receiver ─▶ Command ─▶ perform ─┬─ done at once ──────────────▶ Replies ─▶ socket
//!           (many per                       └─ waits ─▶ in flight ─ later ──▶ (many per
//!            receive)                                                          vectored write)
//! ```
//!
//! All of it is one task per connection: handing a request to another task costs more than a cached read.

mod command;
mod connection;
mod file;
mod in_flight;
mod perform;
mod poller;
mod receive;
mod replies;
mod route;

pub(super) use connection::Connection;
