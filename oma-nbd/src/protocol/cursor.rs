//! Takes a payload apart, front to back; never reads behind its end.

use super::{MAX_STRING, Malformed};

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(what: &'static str, payload: &'a [u8]) -> Self {
        Self { what, rest: payload }
    }

    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn magic(&mut self, expected: u64) -> Result<(), Malformed> {
        same(self.what, self.u64()?, expected)
    }

    pub(super) fn magic32(&mut self, expected: u32) -> Result<(), Malformed> {
        same(self.what, u64::from(self.u32()?), u64::from(expected))
    }

    /// So many bytes; the length came from the wire.
    pub(super) fn bytes(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let truncated = Malformed::Truncated { what: self.what };
        let length = usize::try_from(length).map_err(|_| truncated.clone())?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn text(&mut self, length: u64) -> Result<&'a str, Malformed> {
        let bytes = self.bytes(length)?;
        if bytes.len() > MAX_STRING {
            return Err(Malformed::TooLong { what: self.what, length: bytes.len(), limit: MAX_STRING });
        }
        std::str::from_utf8(bytes).map_err(|_| Malformed::Text { what: self.what })
    }

    /// A text behind its length.
    pub(super) fn string(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u32()?;
        self.text(length.into())
    }

    /// A text up to the end.
    pub(super) fn last_text(&mut self) -> Result<&'a str, Malformed> {
        let length = u64::try_from(self.rest.len()).expect("a length fits 64 bits");
        self.text(length)
    }

    pub(super) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    pub(super) const fn end(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(Malformed::Trailing { what: self.what, extra }),
        }
    }
}

const fn same(what: &'static str, found: u64, expected: u64) -> Result<(), Malformed> {
    if found == expected { Ok(()) } else { Err(Malformed::Magic { what, expected, found }) }
}

/// A length that the caller keeps within 32 bits, as the wire has it.
pub(super) fn wire_length(length: usize) -> u32 {
    u32::try_from(length).expect("no payload is longer than 32 bits tell")
}
