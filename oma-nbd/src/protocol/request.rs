//! Requests.

use bytes::BufMut;

use super::cursor::Cursor;
use super::{Malformed, NBD_REQUEST_MAGIC};

/// Header of a request; the data of a write follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `NBD_CMD_FLAG_…`.
    pub flags: u16,
    /// `NBD_CMD_…`.
    pub command: u16,
    /// Chosen by the client, repeated in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u32,
}

impl Request {
    /// Bytes on the wire.
    pub const SIZE: usize = 28;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u32(NBD_REQUEST_MAGIC);
        out.put_u16(self.flags);
        out.put_u16(self.command);
        out.put_u64(self.cookie);
        out.put_u64(self.offset);
        out.put_u32(self.length);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not the header of a request.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("a request", bytes);
        cursor.magic32(NBD_REQUEST_MAGIC)?;
        Ok(Self {
            flags: cursor.u16()?,
            command: cursor.u16()?,
            cookie: cursor.u64()?,
            offset: cursor.u64()?,
            length: cursor.u32()?,
        })
    }
}
