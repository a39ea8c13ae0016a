//! Messages of generic netlink, as far as the family `nbd` needs them. Numbers are in the machine's own order.
//!
//! ```text
//!  length u32 · type u16 · flags u16 · sequence u32 · port u32     header
//!  command u8 · version u8 · nothing u16                           generic header
//!  length u16 · type u16 · payload · up to 3 zeroes                attributes, which may hold others
//! ```

use bytes::BufMut;

/// Bytes of both headers.
const HEADERS: usize = 20;
/// Bytes of an attribute's header.
const ATTRIBUTE: usize = 4;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request that is being put together.
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

/// A message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The end of an answer; 0 when all went well, else an errno.
    End(i32),
    /// A part of the answer: its attributes.
    Part(&'a [u8]),
}

/// What came is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's answer cannot be read")]
pub(super) struct Garbled;

impl Request {
    pub(super) fn new(family: u16, command: u8) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.put_u32_ne(0);
        bytes.put_u16_ne(family);
        bytes.put_u16_ne(NLM_F_REQUEST | NLM_F_ACK);
        bytes.put_u64_ne(0);
        bytes.put_u8(command);
        bytes.put_u8(1);
        bytes.put_u16_ne(0);
        Self(bytes)
    }

    pub(super) fn u32(self, kind: u16, number: u32) -> Self {
        self.bytes(kind, &number.to_ne_bytes())
    }

    pub(super) fn u64(self, kind: u16, number: u64) -> Self {
        self.bytes(kind, &number.to_ne_bytes())
    }

    /// A text with the zero at its end.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), b"\0"].concat())
    }

    /// Attributes within an attribute.
    pub(super) fn nested(mut self, kind: u16, within: impl FnOnce(Self) -> Self) -> Self {
        let at = self.0.len();
        self.0.put_u32_ne(0);
        let mut whole = within(self);
        let length = whole.0.len() - at;
        whole.set(at, &narrow(length).to_ne_bytes());
        whole.set(at + 2, &(kind | NLA_F_NESTED).to_ne_bytes());
        whole
    }

    /// The finished message.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a message is short");
        self.set(0, &length.to_ne_bytes());
        self.0
    }

    fn bytes(mut self, kind: u16, payload: &[u8]) -> Self {
        self.0.put_u16_ne(narrow(ATTRIBUTE + payload.len()));
        self.0.put_u16_ne(kind);
        self.0.put_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn narrow(length: usize) -> u16 {
    u16::try_from(length).expect("an attribute is short")
}

/// Takes the messages of one datagram apart.
pub(super) fn messages(mut datagram: &[u8]) -> Result<Vec<Message<'_>>, Garbled> {
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let length = usize::try_from(u32_at(datagram, 0)?).map_err(|_| Garbled)?;
        if length < HEADERS {
            return Err(Garbled);
        }
        let message = datagram.get(..length).ok_or(Garbled)?;
        if u16_at(message, 4)? == NLMSG_ERROR {
            let error = i32::from_ne_bytes(array(message, 16)?);
            found.push(Message::End(error.checked_neg().ok_or(Garbled)?));
        } else {
            found.push(Message::Part(&message[HEADERS..]));
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// The payload of the first attribute of a kind.
pub(super) fn attribute(mut attributes: &[u8], kind: u16) -> Result<Option<&[u8]>, Garbled> {
    while !attributes.is_empty() {
        let length = usize::from(u16_at(attributes, 0)?);
        if length < ATTRIBUTE {
            return Err(Garbled);
        }
        let payload = attributes.get(ATTRIBUTE..length).ok_or(Garbled)?;
        if u16_at(attributes, 2)? & NLA_TYPE_MASK == kind {
            return Ok(Some(payload));
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Garbled> {
    Ok(u16::from_ne_bytes(array(bytes, at)?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Garbled> {
    Ok(u32::from_ne_bytes(array(bytes, at)?))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Garbled> {
    let part = bytes.get(at..).and_then(|rest| rest.get(..N)).ok_or(Garbled)?;
    part.try_into().map_err(|_| Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_request_has_the_bytes_that_the_kernel_reads() {
        let request = Request::new(0x10, 3).text(2, "nbd").nested(7, |item| item.u32(1, 9)).finish();
        let expected = [
            &[40, 0, 0, 0, 0x10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0][..],
            &[8, 0, 2, 0, b'n', b'b', b'd', 0],
            &[12, 0, 7, 0x80, 8, 0, 1, 0, 9, 0, 0, 0],
        ];
        assert_eq!(request, expected.concat());
    }

    #[test]
    fn attributes_are_found_by_their_kind() {
        let message = Request::new(1, 1).text(1, "ab").u32(2, 7).nested(3, |item| item.u64(1, 5)).finish();
        let found = messages(&message).unwrap();
        let [Message::Part(attributes)] = found[..] else { panic!("no part: {found:?}") };
        assert_eq!(attribute(attributes, 2).unwrap(), Some(&7_u32.to_ne_bytes()[..]));
        let nested = attribute(attributes, 3).unwrap().unwrap();
        assert_eq!(attribute(nested, 1).unwrap(), Some(&5_u64.to_ne_bytes()[..]));
        assert_eq!(attribute(attributes, 9).unwrap(), None);
    }

    #[test]
    fn an_error_ends_an_answer() {
        let mut message = Request::new(NLMSG_ERROR, 0).finish();
        message[16..20].copy_from_slice(&(-16_i32).to_ne_bytes());
        assert_eq!(messages(&message).unwrap(), [Message::End(16)]);
        message[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert_eq!(messages(&message), Err(Garbled));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), kind: u16) {
            let _ = messages(&bytes);
            let _ = attribute(&bytes, kind);
        }
    }
}
