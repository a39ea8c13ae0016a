//! The client against servers that lie: what broke other clients, each by its name.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod answers;
mod handshake;
mod liar;
