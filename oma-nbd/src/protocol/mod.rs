//! The bytes of the NBD protocol, without I/O: both ends and the fuzz targets use the same code.
//!
//! ```text
//! server: Greeting                     client: client flags (u32)
//! client: OptionHeader + payload       server: OptionReplyHeader + payload     … until GO or EXPORT_NAME
//! client: Request (+ data of a write)  server: SimpleReply (+ data of a read) or ChunkHeader + Chunk …
//!   or, after EXTENDED_HEADERS:
//! client: ExtendedRequest (+ payload)  server: ExtendedChunkHeader + Chunk …
//! ```
//!
//! Headers have a fixed size: `encode` gives an array, `decode` takes one, so a short header cannot be decoded at all.
//! Payloads are decoded from a slice that must be used up exactly; whoever receives one checks its length against
//! a limit of its own before it keeps room for it.

mod constants;
mod cursor;
mod error;
mod extended;
mod handshake;
mod option;
mod reply;
mod request;

#[cfg(test)]
mod tests;

pub use constants::*;
pub use error::Malformed;
pub use extended::{ExtendedChunkHeader, ExtendedRequest, Headers, StatusPayload};
pub use handshake::{ExportNameReply, Greeting, OptionHeader, OptionReplyHeader};
pub use option::{InfoReply, InfoRequest, ListReply, MetaContextReply, MetaContextRequest};
pub use reply::{Chunk, ChunkHeader, Descriptor, ExtendedDescriptor, ReplyHeader, SimpleReply};
pub use request::Request;
