//! Headers of the handshake.

use bytes::BufMut;

use super::cursor::Cursor;
use super::{Malformed, NBD_MAGIC, NBD_OPTS_MAGIC, NBD_REP_MAGIC};

/// What a newstyle server says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// `NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`.
    pub flags: u16,
}

impl Greeting {
    /// Bytes on the wire.
    pub const SIZE: usize = 18;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u64(NBD_MAGIC);
        out.put_u64(NBD_OPTS_MAGIC);
        out.put_u16(self.flags);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not the greeting of a newstyle server.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("the greeting", bytes);
        cursor.magic(NBD_MAGIC)?;
        cursor.magic(NBD_OPTS_MAGIC)?;
        Ok(Self { flags: cursor.u16()? })
    }
}

/// Header of an option; its payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// `NBD_OPT_…`.
    pub option: u32,
    /// Bytes of payload.
    pub length: u32,
}

impl OptionHeader {
    /// Bytes on the wire.
    pub const SIZE: usize = 16;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u64(NBD_OPTS_MAGIC);
        out.put_u32(self.option);
        out.put_u32(self.length);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not the header of an option.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("an option", bytes);
        cursor.magic(NBD_OPTS_MAGIC)?;
        Ok(Self { option: cursor.u32()?, length: cursor.u32()? })
    }
}

/// Header of a reply to an option; its payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: u32,
    /// `NBD_REP_…`.
    pub reply: u32,
    /// Bytes of payload.
    pub length: u32,
}

impl OptionReplyHeader {
    /// Bytes on the wire.
    pub const SIZE: usize = 20;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u64(NBD_REP_MAGIC);
        out.put_u32(self.option);
        out.put_u32(self.reply);
        out.put_u32(self.length);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not the header of a reply.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("an option reply", bytes);
        cursor.magic(NBD_REP_MAGIC)?;
        Ok(Self { option: cursor.u32()?, reply: cursor.u32()?, length: cursor.u32()? })
    }
}

/// The answer to `NBD_OPT_EXPORT_NAME`; 124 zeroes follow unless both sides left them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportNameReply {
    /// Bytes of the export.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
}

impl ExportNameReply {
    /// Bytes on the wire.
    pub const SIZE: usize = 10;
    /// Zeroes behind it.
    pub const ZEROES: usize = 124;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u64(self.size);
        out.put_u16(self.flags);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// Never; every value has a meaning.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("an export name reply", bytes);
        Ok(Self { size: cursor.u64()?, flags: cursor.u16()? })
    }
}
