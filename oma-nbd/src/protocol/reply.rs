//! Replies: simple, or in chunks.

use std::borrow::Cow;

use bytes::BufMut;

use super::cursor::{Cursor, wire_length};
use super::{
    ExtendedChunkHeader, MAX_DESCRIPTORS, MAX_STRING, Malformed, NBD_EXTENDED_REPLY_MAGIC,
    NBD_REPLY_TYPE_BLOCK_STATUS, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, NBD_REPLY_TYPE_ERROR,
    NBD_REPLY_TYPE_ERROR_BIT, NBD_REPLY_TYPE_ERROR_OFFSET, NBD_REPLY_TYPE_NONE, NBD_REPLY_TYPE_OFFSET_DATA,
    NBD_REPLY_TYPE_OFFSET_HOLE, NBD_SIMPLE_REPLY_MAGIC, NBD_STRUCTURED_REPLY_MAGIC,
};

/// A simple reply; the data of a successful read follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// `NBD_E…`, 0 for success.
    pub error: u32,
    /// The request's cookie.
    pub cookie: u64,
}

impl SimpleReply {
    /// Bytes on the wire.
    pub const SIZE: usize = 16;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u32(NBD_SIMPLE_REPLY_MAGIC);
        out.put_u32(self.error);
        out.put_u64(self.cookie);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not a simple reply.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("a simple reply", bytes);
        cursor.magic32(NBD_SIMPLE_REPLY_MAGIC)?;
        Ok(Self { error: cursor.u32()?, cookie: cursor.u64()? })
    }
}

/// Header of one chunk of a structured reply; its payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// `NBD_REPLY_FLAG_DONE` on the last one.
    pub flags: u16,
    /// `NBD_REPLY_TYPE_…`.
    pub kind: u16,
    /// The request's cookie.
    pub cookie: u64,
    /// Bytes of payload.
    pub length: u32,
}

impl ChunkHeader {
    /// Bytes on the wire.
    pub const SIZE: usize = 20;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut out = bytes.as_mut_slice();
        out.put_u32(NBD_STRUCTURED_REPLY_MAGIC);
        out.put_u16(self.flags);
        out.put_u16(self.kind);
        out.put_u64(self.cookie);
        out.put_u32(self.length);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not the header of a chunk.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("a reply chunk", bytes);
        cursor.magic32(NBD_STRUCTURED_REPLY_MAGIC)?;
        Ok(Self { flags: cursor.u16()?, kind: cursor.u16()?, cookie: cursor.u64()?, length: cursor.u32()? })
    }
}

/// What a reply begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply.
    Simple(SimpleReply),
    /// A chunk.
    Chunk(ChunkHeader),
    /// A chunk after extended headers were agreed.
    Extended(ExtendedChunkHeader),
}

impl ReplyHeader {
    /// The header at the start of `received`, and its size; `None` while more bytes are needed to tell.
    ///
    /// # Errors
    /// When no reply begins there.
    pub fn decode(received: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(magic) = received.first_chunk() else { return Ok(None) };
        match u32::from_be_bytes(*magic) {
            NBD_SIMPLE_REPLY_MAGIC => {
                let simple = received.first_chunk().map(SimpleReply::decode).transpose()?;
                Ok(simple.map(|reply| (Self::Simple(reply), SimpleReply::SIZE)))
            }
            NBD_STRUCTURED_REPLY_MAGIC => {
                let chunk = received.first_chunk().map(ChunkHeader::decode).transpose()?;
                Ok(chunk.map(|header| (Self::Chunk(header), ChunkHeader::SIZE)))
            }
            NBD_EXTENDED_REPLY_MAGIC => {
                let chunk = received.first_chunk().map(ExtendedChunkHeader::decode).transpose()?;
                Ok(chunk.map(|header| (Self::Extended(header), ExtendedChunkHeader::SIZE)))
            }
            found => Err(Malformed::Magic {
                what: "a reply",
                expected: NBD_SIMPLE_REPLY_MAGIC.into(),
                found: found.into(),
            }),
        }
    }
}

/// Length and flags of one extent of block status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Number of bytes.
    pub length: u32,
    /// Flags of the metadata context.
    pub flags: u32,
}

/// The same with 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedDescriptor {
    /// Number of bytes.
    pub length: u64,
    /// Flags of the metadata context.
    pub flags: u64,
}

impl From<Descriptor> for ExtendedDescriptor {
    fn from(Descriptor { length, flags }: Descriptor) -> Self {
        Self { length: length.into(), flags: flags.into() }
    }
}

/// Payload of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// `NBD_REPLY_TYPE_NONE`.
    None,
    /// `NBD_REPLY_TYPE_OFFSET_DATA`. Whoever receives much of it takes the first [`Chunk::OFFSET_SIZE`] bytes for the
    /// offset and the rest straight into its buffer.
    OffsetData {
        /// Offset in the export.
        offset: u64,
        /// The bytes there.
        data: &'a [u8],
    },
    /// `NBD_REPLY_TYPE_OFFSET_HOLE`: zeroes.
    OffsetHole {
        /// Offset in the export.
        offset: u64,
        /// Number of zeroes.
        length: u32,
    },
    /// `NBD_REPLY_TYPE_BLOCK_STATUS`.
    BlockStatus {
        /// The metadata context.
        context: u32,
        /// Extents from the request's offset, at least one.
        descriptors: Vec<Descriptor>,
    },
    /// `NBD_REPLY_TYPE_BLOCK_STATUS_EXT`.
    BlockStatusExt {
        /// The metadata context.
        context: u32,
        /// Extents from the request's offset, at least one.
        descriptors: Vec<ExtendedDescriptor>,
    },
    /// `NBD_REPLY_TYPE_ERROR`, or an error of a kind that is not known here.
    Error {
        /// `NBD_E…`.
        error: u32,
        /// What happened, may be empty.
        message: Cow<'a, str>,
    },
    /// `NBD_REPLY_TYPE_ERROR_OFFSET`.
    ErrorOffset {
        /// `NBD_E…`.
        error: u32,
        /// What happened, may be empty.
        message: Cow<'a, str>,
        /// Offset in the export.
        offset: u64,
    },
}

impl<'a> Chunk<'a> {
    /// Bytes of the offset that begins `NBD_REPLY_TYPE_OFFSET_DATA`.
    pub const OFFSET_SIZE: usize = 8;

    /// `NBD_REPLY_TYPE_…`.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        match self {
            Self::None => NBD_REPLY_TYPE_NONE,
            Self::OffsetData { .. } => NBD_REPLY_TYPE_OFFSET_DATA,
            Self::OffsetHole { .. } => NBD_REPLY_TYPE_OFFSET_HOLE,
            Self::BlockStatus { .. } => NBD_REPLY_TYPE_BLOCK_STATUS,
            Self::BlockStatusExt { .. } => NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
            Self::Error { .. } => NBD_REPLY_TYPE_ERROR,
            Self::ErrorOffset { .. } => NBD_REPLY_TYPE_ERROR_OFFSET,
        }
    }

    /// Bytes of payload.
    ///
    /// # Panics
    /// When they are more than 32 bits tell.
    #[must_use]
    pub fn length(&self) -> u32 {
        wire_length(match self {
            Self::None => 0,
            Self::OffsetData { data, .. } => Self::OFFSET_SIZE + data.len(),
            Self::OffsetHole { .. } => 12,
            Self::BlockStatus { descriptors, .. } => 4 + descriptors.len() * 8,
            Self::BlockStatusExt { descriptors, .. } => 8 + descriptors.len() * 16,
            Self::Error { message, .. } => 6 + message.len(),
            Self::ErrorOffset { message, .. } => 14 + message.len(),
        })
    }

    /// Appends header and payload.
    ///
    /// # Panics
    /// When an error's message is longer than [`MAX_STRING`].
    pub fn encode(&self, flags: u16, cookie: u64, out: &mut impl BufMut) {
        out.put_slice(&ChunkHeader { flags, kind: self.kind(), cookie, length: self.length() }.encode());
        self.put_payload(out);
    }

    /// Appends extended header and payload, for a request at `offset`.
    ///
    /// # Panics
    /// When an error's message is longer than [`MAX_STRING`].
    pub fn encode_extended(&self, flags: u16, cookie: u64, offset: u64, out: &mut impl BufMut) {
        let (kind, length) = (self.kind(), self.length().into());
        out.put_slice(&ExtendedChunkHeader { flags, kind, cookie, offset, length }.encode());
        self.put_payload(out);
    }

    fn put_payload(&self, out: &mut impl BufMut) {
        match self {
            Self::None => {}
            Self::OffsetData { offset, data } => {
                out.put_u64(*offset);
                out.put_slice(data);
            }
            Self::OffsetHole { offset, length } => {
                out.put_u64(*offset);
                out.put_u32(*length);
            }
            Self::BlockStatus { context, descriptors } => {
                out.put_u32(*context);
                for descriptor in descriptors {
                    out.put_u32(descriptor.length);
                    out.put_u32(descriptor.flags);
                }
            }
            Self::BlockStatusExt { context, descriptors } => {
                out.put_u32(*context);
                out.put_u32(wire_length(descriptors.len()));
                for descriptor in descriptors {
                    out.put_u64(descriptor.length);
                    out.put_u64(descriptor.flags);
                }
            }
            Self::Error { error, message } => put_error(out, *error, message),
            Self::ErrorOffset { error, message, offset } => {
                put_error(out, *error, message);
                out.put_u64(*offset);
            }
        }
    }

    /// Takes the payload of a chunk of some kind apart.
    ///
    /// # Errors
    /// When it is not one, and for a kind that is neither known nor an error.
    pub fn decode(kind: u16, payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("a reply chunk", payload);
        let chunk = match kind {
            NBD_REPLY_TYPE_NONE => Self::None,
            NBD_REPLY_TYPE_OFFSET_DATA => Self::OffsetData { offset: cursor.u64()?, data: cursor.rest() },
            NBD_REPLY_TYPE_OFFSET_HOLE => Self::OffsetHole { offset: cursor.u64()?, length: cursor.u32()? },
            NBD_REPLY_TYPE_BLOCK_STATUS => {
                let context = cursor.u32()?;
                let count = descriptors(&cursor, 8)?;
                let next = |_| Ok(Descriptor { length: cursor.u32()?, flags: cursor.u32()? });
                Self::BlockStatus { context, descriptors: (0..count).map(next).collect::<Result<_, _>>()? }
            }
            NBD_REPLY_TYPE_BLOCK_STATUS_EXT => {
                let (context, told) = (cursor.u32()?, cursor.u32()?);
                if told == 0 {
                    let what = "the number of extents of block status";
                    return Err(Malformed::Value { what, value: 0 });
                }
                if told > wire_length(descriptors(&cursor, 16)?) {
                    return Err(Malformed::Truncated { what: "block status" });
                }
                let next = |_| Ok(ExtendedDescriptor { length: cursor.u64()?, flags: cursor.u64()? });
                Self::BlockStatusExt { context, descriptors: (0..told).map(next).collect::<Result<_, _>>()? }
            }
            NBD_REPLY_TYPE_ERROR_OFFSET => {
                let (error, message) = error(&mut cursor)?;
                Self::ErrorOffset { error, message, offset: cursor.u64()? }
            }
            kind if kind & NBD_REPLY_TYPE_ERROR_BIT != 0 => {
                let (error, message) = error(&mut cursor)?;
                if kind != NBD_REPLY_TYPE_ERROR {
                    cursor.rest();
                }
                Self::Error { error, message }
            }
            _ => return Err(Malformed::Value { what: "the type of a reply chunk", value: kind.into() }),
        };
        cursor.end()?;
        Ok(chunk)
    }
}

/// How many extents of `size` bytes are left, the last one perhaps cut short.
fn descriptors(cursor: &Cursor<'_>, size: usize) -> Result<usize, Malformed> {
    let count = cursor.remaining().div_ceil(size);
    if count > MAX_DESCRIPTORS {
        return Err(Malformed::TooLong { what: "block status", length: count, limit: MAX_DESCRIPTORS });
    }
    if count == 0 {
        return Err(Malformed::Truncated { what: "block status" });
    }
    Ok(count)
}

fn error<'a>(cursor: &mut Cursor<'a>) -> Result<(u32, Cow<'a, str>), Malformed> {
    let error = cursor.u32()?;
    if error == 0 {
        return Err(Malformed::Value { what: "the error of an error chunk", value: 0 });
    }
    let length = cursor.u16()?;
    let message = cursor.bytes(length.into())?;
    if message.len() > MAX_STRING {
        return Err(Malformed::TooLong {
            what: "an error message",
            length: message.len(),
            limit: MAX_STRING,
        });
    }
    Ok((error, String::from_utf8_lossy(message)))
}

fn put_error(out: &mut impl BufMut, error: u32, message: &str) {
    out.put_u32(error);
    out.put_u16(u16::try_from(message.len()).expect("an error message has at most 4096 bytes"));
    out.put_slice(message.as_bytes());
}
