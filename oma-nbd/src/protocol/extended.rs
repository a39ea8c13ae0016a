//! Headers with 64 bits of length, as agreed by `NBD_OPT_EXTENDED_HEADERS`, and what only they can carry.

use std::num::TryFromIntError;

use bytes::BufMut;

use super::cursor::Cursor;
use super::{
    Malformed, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_EXTENDED_REPLY_MAGIC, NBD_EXTENDED_REQUEST_MAGIC, Request,
};

/// What requests and replies look like, as agreed in the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers {
    /// Each reply is simple.
    #[default]
    Simple,
    /// Replies may come in chunks, those to reads and block status always do.
    Structured,
    /// All headers have 64 bits of length, and all replies come in chunks.
    Extended,
}

/// Header of a request. With `NBD_CMD_FLAG_PAYLOAD_LEN` as many bytes as its length follow, else none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedRequest {
    /// `NBD_CMD_FLAG_…`.
    pub flags: u16,
    /// `NBD_CMD_…`.
    pub command: u16,
    /// Chosen by the client, repeated in the reply.
    pub cookie: u64,
    /// First byte; repeated in the reply.
    pub offset: u64,
    /// Bytes of the payload, or of the export where there is none.
    pub length: u64,
}

impl ExtendedRequest {
    /// Bytes on the wire.
    pub const SIZE: usize = 32;

    /// Whether its length is that of a payload behind it.
    #[must_use]
    pub const fn has_payload(&self) -> bool {
        self.flags & NBD_CMD_FLAG_PAYLOAD_LEN != 0
    }

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u32(NBD_EXTENDED_REQUEST_MAGIC);
        out.put_u16(self.flags);
        out.put_u16(self.command);
        out.put_u64(self.cookie);
        out.put_u64(self.offset);
        out.put_u64(self.length);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not the header of an extended request.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("an extended request", bytes);
        cursor.magic32(NBD_EXTENDED_REQUEST_MAGIC)?;
        Ok(Self {
            flags: cursor.u16()?,
            command: cursor.u16()?,
            cookie: cursor.u64()?,
            offset: cursor.u64()?,
            length: cursor.u64()?,
        })
    }
}

impl From<Request> for ExtendedRequest {
    /// The same in the wider header; the flag of a payload is not added.
    fn from(Request { flags, command, cookie, offset, length }: Request) -> Self {
        Self { flags, command, cookie, offset, length: length.into() }
    }
}

impl TryFrom<ExtendedRequest> for Request {
    type Error = TryFromIntError;

    /// The same in the compact header, if 32 bits tell the length.
    fn try_from(wide: ExtendedRequest) -> Result<Self, TryFromIntError> {
        let ExtendedRequest { flags, command, cookie, offset, length } = wide;
        Ok(Self { flags, command, cookie, offset, length: length.try_into()? })
    }
}

/// Payload of `NBD_CMD_BLOCK_STATUS`: an answer about some of the agreed metadata contexts only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPayload {
    /// Bytes of the export.
    pub length: u64,
    /// Ids of metadata contexts, at least one.
    pub contexts: Vec<u32>,
}

impl StatusPayload {
    /// Appends it.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u64(self.length);
        self.contexts.iter().for_each(|context| out.put_u32(*context));
    }

    /// Takes a payload apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("the payload of block status", payload);
        let length = cursor.u64()?;
        let count = cursor.remaining().div_ceil(4).max(1);
        let contexts = (0..count).map(|_| cursor.u32()).collect::<Result<_, _>>()?;
        Ok(Self { length, contexts })
    }
}

/// Header of one chunk of a reply; its payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedChunkHeader {
    /// `NBD_REPLY_FLAG_DONE` on the last one.
    pub flags: u16,
    /// `NBD_REPLY_TYPE_…`.
    pub kind: u16,
    /// The request's cookie.
    pub cookie: u64,
    /// The request's offset.
    pub offset: u64,
    /// Bytes of payload.
    pub length: u64,
}

impl ExtendedChunkHeader {
    /// Bytes on the wire.
    pub const SIZE: usize = 32;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u32(NBD_EXTENDED_REPLY_MAGIC);
        out.put_u16(self.flags);
        out.put_u16(self.kind);
        out.put_u64(self.cookie);
        out.put_u64(self.offset);
        out.put_u64(self.length);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not the header of an extended chunk.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("an extended reply chunk", bytes);
        cursor.magic32(NBD_EXTENDED_REPLY_MAGIC)?;
        Ok(Self {
            flags: cursor.u16()?,
            kind: cursor.u16()?,
            cookie: cursor.u64()?,
            offset: cursor.u64()?,
            length: cursor.u64()?,
        })
    }
}
