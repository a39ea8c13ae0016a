//! Payloads of options and of replies to them. Texts are borrowed from the payload.

use bytes::BufMut;

use super::cursor::{Cursor, wire_length};
use super::{Malformed, NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION, NBD_INFO_EXPORT, NBD_INFO_NAME};

/// Payload of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest<'a> {
    /// The export's name; empty for the default export.
    pub name: &'a str,
    /// What to tell: `NBD_INFO_…`.
    pub wanted: Vec<u16>,
}

impl<'a> InfoRequest<'a> {
    /// Appends it.
    ///
    /// # Panics
    /// When it asks for more than 65535 pieces of information.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.name);
        out.put_u16(u16::try_from(self.wanted.len()).expect("there are few kinds of information"));
        self.wanted.iter().for_each(|info| out.put_u16(*info));
    }

    /// Takes a payload apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("an information request", payload);
        let name = cursor.string()?;
        let count = usize::from(cursor.u16()?);
        if cursor.remaining() < count * 2 {
            return Err(Malformed::Truncated { what: "an information request" });
        }
        let wanted = (0..count).map(|_| cursor.u16()).collect::<Result<_, _>>()?;
        cursor.end()?;
        Ok(Self { name, wanted })
    }
}

/// Payload of `NBD_REP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoReply<'a> {
    /// `NBD_INFO_EXPORT`.
    Export {
        /// Bytes of the export.
        size: u64,
        /// Transmission flags.
        flags: u16,
    },
    /// `NBD_INFO_NAME`.
    Name(&'a str),
    /// `NBD_INFO_DESCRIPTION`.
    Description(&'a str),
    /// `NBD_INFO_BLOCK_SIZE`.
    BlockSize {
        /// Offsets and lengths are multiples of it.
        minimum: u32,
        /// The best unit.
        preferred: u32,
        /// Largest payload.
        maximum: u32,
    },
    /// Information of a kind that is not known here; to be skipped.
    Unknown(u16),
}

impl<'a> InfoReply<'a> {
    /// Appends it.
    pub fn encode(&self, out: &mut impl BufMut) {
        match *self {
            Self::Export { size, flags } => {
                out.put_u16(NBD_INFO_EXPORT);
                out.put_u64(size);
                out.put_u16(flags);
            }
            Self::Name(name) => {
                out.put_u16(NBD_INFO_NAME);
                out.put_slice(name.as_bytes());
            }
            Self::Description(text) => {
                out.put_u16(NBD_INFO_DESCRIPTION);
                out.put_slice(text.as_bytes());
            }
            Self::BlockSize { minimum, preferred, maximum } => {
                out.put_u16(NBD_INFO_BLOCK_SIZE);
                [minimum, preferred, maximum].into_iter().for_each(|size| out.put_u32(size));
            }
            Self::Unknown(kind) => out.put_u16(kind),
        }
    }

    /// Takes a payload apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("information about an export", payload);
        let info = match cursor.u16()? {
            NBD_INFO_EXPORT => Self::Export { size: cursor.u64()?, flags: cursor.u16()? },
            NBD_INFO_NAME => Self::Name(cursor.last_text()?),
            NBD_INFO_DESCRIPTION => Self::Description(cursor.last_text()?),
            NBD_INFO_BLOCK_SIZE => {
                Self::BlockSize { minimum: cursor.u32()?, preferred: cursor.u32()?, maximum: cursor.u32()? }
            }
            unknown => {
                cursor.rest();
                Self::Unknown(unknown)
            }
        };
        cursor.end()?;
        Ok(info)
    }
}

/// Payload of `NBD_REP_SERVER`: one export of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListReply<'a> {
    /// Its name.
    pub name: &'a str,
    /// A text for readers, may be empty.
    pub description: &'a str,
}

impl<'a> ListReply<'a> {
    /// Appends it.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.name);
        out.put_slice(self.description.as_bytes());
    }

    /// Takes a payload apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("an export of a list", payload);
        Ok(Self { name: cursor.string()?, description: cursor.last_text()? })
    }
}

/// Payload of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContextRequest<'a> {
    /// The export's name.
    pub name: &'a str,
    /// Names of contexts, or patterns of a namespace.
    pub queries: Vec<&'a str>,
}

impl<'a> MetaContextRequest<'a> {
    /// Appends it.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.name);
        out.put_u32(wire_length(self.queries.len()));
        self.queries.iter().for_each(|query| put_string(out, query));
    }

    /// Takes a payload apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("a metadata context request", payload);
        let name = cursor.string()?;
        let count = cursor.u32()?;
        // Each query has four bytes of length, so the list grows no longer than the payload, whatever the count says.
        let queries = (0..count).map(|_| cursor.string()).collect::<Result<_, _>>()?;
        cursor.end()?;
        Ok(Self { name, queries })
    }
}

/// Payload of `NBD_REP_META_CONTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaContextReply<'a> {
    /// Its id in block status replies of this connection.
    pub id: u32,
    /// Its name.
    pub name: &'a str,
}

impl<'a> MetaContextReply<'a> {
    /// Appends it.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u32(self.id);
        out.put_slice(self.name.as_bytes());
    }

    /// Takes a payload apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("a metadata context", payload);
        Ok(Self { id: cursor.u32()?, name: cursor.last_text()? })
    }
}

fn put_string(out: &mut impl BufMut, text: &str) {
    out.put_u32(wire_length(text.len()));
    out.put_slice(text.as_bytes());
}
