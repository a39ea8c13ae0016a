//! The state machine of replies, without I/O: bytes in, finished requests out.
//!
//! ```text
//!  begin(cookie) ──► pending ──header──► chunk of known length ──► answered
//!                       ▲                   │ data of a read: straight into its buffer (`space`, `advance`)
//!                       └─── next chunk ────┘
//! ```
//! Nothing the server says is believed: a reply must belong to a pending request, fit its kind, lie within its bounds and
//! cover each byte exactly once. A request with an error anywhere in its reply has failed as a whole.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;
use oma_core::Extent;

use super::covered::Covered;
use super::error::Violation;
use crate::protocol::{
    Chunk, ChunkHeader, ExtendedChunkHeader, ExtendedDescriptor, Headers, MAX_DESCRIPTORS, MAX_STRING,
    NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
    NBD_REPLY_TYPE_ERROR_BIT, NBD_REPLY_TYPE_NONE, NBD_REPLY_TYPE_OFFSET_DATA, NBD_REPLY_TYPE_OFFSET_HOLE,
    ReplyHeader, SimpleReply,
};

/// No read comes in so many pieces with gaps between them: who sends them in order leaves none, and each gap must be kept.
const MOST_GAPS: usize = 64 << 10;

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Expected {
    /// Success or an error.
    Done,
    /// Bytes from an offset, as many as the buffer is long.
    Data { offset: u64, buffer: BytesMut },
    /// Status of each of these metadata contexts.
    Status { contexts: Vec<u32> },
}

/// How a request ended well.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Data(BytesMut),
    Status(Vec<ContextStatus>),
}

/// Extents of one metadata context, from the request's offset.
#[derive(Debug)]
pub(super) struct ContextStatus {
    pub(super) context: u32,
    pub(super) descriptors: Vec<ExtendedDescriptor>,
}

/// An error that the server told.
#[derive(Debug)]
pub(super) struct ServerError {
    pub(super) errno: u32,
    pub(super) message: String,
}

/// A request that ended; `T` is whatever its sender wants back.
#[derive(Debug)]
pub(super) struct Finished<T> {
    pub(super) token: T,
    pub(super) outcome: Result<Answer, ServerError>,
}

#[derive(Debug)]
struct Pending<T> {
    token: T,
    /// The request's.
    offset: u64,
    expected: Expected,
    /// What of a read has come.
    covered: Covered,
    statuses: Vec<ContextStatus>,
    /// The first error; later ones tell nothing new.
    error: Option<ServerError>,
}

#[derive(Debug)]
enum State<T> {
    Header,
    /// The header of a chunk was read; its payload, or the offset before its data, is next.
    Chunk(ExtendedChunkHeader),
    /// Data goes to `buffer[at..end]` of a read.
    Data {
        cookie: u64,
        pending: Box<Pending<T>>,
        at: usize,
        end: usize,
        last: bool,
    },
}

/// Replies of one connection.
#[derive(Debug)]
pub(super) struct Decoder<T> {
    headers: Headers,
    pending: HashMap<u64, Box<Pending<T>>>,
    state: State<T>,
    finished: VecDeque<Finished<T>>,
}

impl<T> Decoder<T> {
    /// A connection without requests, with headers as agreed.
    pub(super) fn new(headers: Headers) -> Self {
        Self { headers, pending: HashMap::new(), state: State::Header, finished: VecDeque::new() }
    }

    /// Adds a request at an offset; the cookie must not be pending.
    pub(super) fn begin(&mut self, cookie: u64, offset: u64, expected: Expected, token: T) {
        let (covered, statuses) = (Covered::default(), Vec::new());
        let pending = Pending { token, offset, expected, covered, statuses, error: None };
        let earlier = self.pending.insert(cookie, Box::new(pending));
        debug_assert!(earlier.is_none(), "cookies are counted up");
    }

    /// The next request that ended.
    pub(super) fn next_finished(&mut self) -> Option<Finished<T>> {
        self.finished.pop_front()
    }

    /// Whether every request has ended.
    pub(super) fn is_idle(&self) -> bool {
        self.tokens().next().is_none()
    }

    /// The tokens of requests that have not ended.
    pub(super) fn tokens(&self) -> impl Iterator<Item = &T> {
        let current = match &self.state {
            State::Data { pending, .. } => Some(pending),
            State::Header | State::Chunk(_) => None,
        };
        self.pending.values().chain(current).map(|pending| &pending.token)
    }

    /// The tokens of all requests that have not ended.
    pub(super) fn abandon(self) -> impl Iterator<Item = T> {
        let current = match self.state {
            State::Data { pending, .. } => Some(pending),
            State::Header | State::Chunk(_) => None,
        };
        self.pending.into_values().chain(current).map(|pending| pending.token)
    }

    /// Where the next bytes from the wire belong, while they are data of a read; [`Decoder::advance`] tells how many came.
    pub(super) fn space(&mut self) -> Option<&mut [u8]> {
        match &mut self.state {
            State::Data { pending, at, end, .. } => match &mut pending.expected {
                Expected::Data { buffer, .. } => Some(&mut buffer[*at..*end]),
                Expected::Done | Expected::Status { .. } => None,
            },
            State::Header | State::Chunk(_) => None,
        }
    }

    /// Tells that so many bytes were put into [`Decoder::space`].
    pub(super) fn advance(&mut self, count: usize) -> Result<(), Violation> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Data { cookie, pending, at, end, last } if at + count < end => {
                self.state = State::Data { cookie, pending, at: at + count, end, last };
                Ok(())
            }
            State::Data { cookie, pending, last, .. } => self.put_back(cookie, pending, last),
            state @ (State::Header | State::Chunk(_)) => {
                self.state = state;
                Ok(())
            }
        }
    }

    /// How many bytes [`Decoder::feed`] needs at once for its next step.
    pub(super) fn needed(&self) -> usize {
        match &self.state {
            State::Header if self.headers == Headers::Extended => ExtendedChunkHeader::SIZE,
            State::Header => ChunkHeader::SIZE,
            State::Chunk(header) => payload_size(header),
            State::Data { .. } => 1,
        }
    }

    /// Takes bytes from the wire; answers how many were used. What is left over begins the next call.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut used = 0;
        while let Some(step) = self.step(&bytes[used..])? {
            used += step;
        }
        Ok(used)
    }

    /// One header, payload or run of data, and its bytes, of which an empty payload has none; `None` when more are needed.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        if let Some(space) = self.space() {
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            if count == 0 {
                return Ok(None);
            }
            self.advance(count)?;
            return Ok(Some(count));
        }
        match &self.state {
            State::Chunk(header) => {
                let header = *header;
                let Some(payload) = bytes.get(..payload_size(&header)) else { return Ok(None) };
                self.state = State::Header;
                self.chunk(&header, payload)?;
                Ok(Some(payload.len()))
            }
            State::Header | State::Data { .. } => {
                let Some((header, size)) = ReplyHeader::decode(bytes)? else { return Ok(None) };
                match header {
                    ReplyHeader::Simple(reply) => self.simple(&reply)?,
                    ReplyHeader::Chunk(header) => self.structured(&header)?,
                    ReplyHeader::Extended(header) if self.headers == Headers::Extended => {
                        self.header(&header)?;
                    }
                    ReplyHeader::Extended(_) => {
                        return Err(Violation::Unfit("an extended header that was not agreed"));
                    }
                }
                Ok(Some(size))
            }
        }
    }

    fn take(&mut self, cookie: u64) -> Result<Box<Pending<T>>, Violation> {
        self.pending.remove(&cookie).ok_or(Violation::UnknownCookie(cookie))
    }

    fn simple(&mut self, reply: &SimpleReply) -> Result<(), Violation> {
        let mut pending = self.take(reply.cookie)?;
        match (self.headers, &pending.expected) {
            (Headers::Simple, _) | (Headers::Structured, Expected::Done) => {}
            (Headers::Structured, Expected::Data { .. } | Expected::Status { .. }) => {
                return Err(Violation::Unfit(
                    "a simple reply to a read or block status after structured replies were agreed",
                ));
            }
            (Headers::Extended, _) => {
                return Err(Violation::Unfit("a simple reply after extended headers were agreed"));
            }
        }
        if !pending.covered.is_empty() || !pending.statuses.is_empty() || pending.error.is_some() {
            return Err(Violation::Unfit("a simple reply after chunks"));
        }
        if reply.error != 0 {
            pending.error = Some(ServerError { errno: reply.error, message: String::new() });
            return self.finish(*pending);
        }
        match &pending.expected {
            Expected::Data { buffer, .. } => {
                let end = buffer.len();
                pending.covered = Covered::All;
                self.receive(reply.cookie, pending, 0..end, true)
            }
            Expected::Done => self.finish(*pending),
            Expected::Status { .. } => Err(Violation::Unfit("block status without extents")),
        }
    }

    /// A chunk with a compact header, which leaves out the request's offset.
    fn structured(&mut self, header: &ChunkHeader) -> Result<(), Violation> {
        if self.headers != Headers::Structured {
            return Err(Violation::Unfit("a chunk whose header was not agreed"));
        }
        let ChunkHeader { flags, kind, cookie, length } = *header;
        let offset = self.pending.get(&cookie).map_or(0, |pending| pending.offset);
        self.header(&ExtendedChunkHeader { flags, kind, cookie, offset, length: length.into() })
    }

    /// Refuses a chunk by its header, before any room is made for its payload.
    fn header(&mut self, header: &ExtendedChunkHeader) -> Result<(), Violation> {
        let Some(pending) = self.pending.get(&header.cookie) else {
            return Err(Violation::UnknownCookie(header.cookie));
        };
        if header.offset != pending.offset {
            return Err(Violation::Unfit("a chunk with another offset than its request"));
        }
        let length = header.length;
        let at_most = |what, limit: usize| {
            let limit = wide(limit);
            if length > limit { Err(Violation::TooLong { what, length, limit }) } else { Ok(()) }
        };
        match (header.kind, &pending.expected) {
            (NBD_REPLY_TYPE_NONE, _) => {
                at_most("an empty chunk", 0)?;
                if header.flags & NBD_REPLY_FLAG_DONE == 0 {
                    return Err(Violation::Unfit("an empty chunk that is not the last"));
                }
            }
            (NBD_REPLY_TYPE_OFFSET_DATA, Expected::Data { buffer, .. }) => {
                at_most("data", buffer.len() + Chunk::OFFSET_SIZE)?;
                if length <= wide(Chunk::OFFSET_SIZE) {
                    return Err(Violation::Unfit("a data chunk without data"));
                }
            }
            (NBD_REPLY_TYPE_OFFSET_HOLE, Expected::Data { .. }) => at_most("a hole", 12)?,
            (NBD_REPLY_TYPE_BLOCK_STATUS, Expected::Status { .. }) if self.headers != Headers::Extended => {
                at_most("block status", 4 + 8 * MAX_DESCRIPTORS)?;
            }
            (NBD_REPLY_TYPE_BLOCK_STATUS_EXT, Expected::Status { .. })
                if self.headers == Headers::Extended =>
            {
                at_most("block status", 8 + 16 * MAX_DESCRIPTORS)?;
            }
            (kind, _) if kind & NBD_REPLY_TYPE_ERROR_BIT != 0 => at_most("an error", 64 + MAX_STRING)?,
            _ => return Err(Violation::Unfit("a chunk of a kind that this request does not have")),
        }
        self.state = State::Chunk(*header);
        Ok(())
    }

    fn chunk(&mut self, header: &ExtendedChunkHeader, payload: &[u8]) -> Result<(), Violation> {
        let last = header.flags & NBD_REPLY_FLAG_DONE != 0;
        let mut pending = self.take(header.cookie)?;
        match Chunk::decode(header.kind, payload)? {
            Chunk::None => {}
            Chunk::OffsetData { offset, .. } => {
                let length = header.length - wide(Chunk::OFFSET_SIZE);
                let place = pending.cover(offset, length)?;
                return self.receive(header.cookie, pending, place, last);
            }
            Chunk::OffsetHole { offset, length } => {
                let place = pending.cover(offset, length.into())?;
                if let Expected::Data { buffer, .. } = &mut pending.expected {
                    buffer[place].fill(0);
                }
            }
            Chunk::BlockStatus { context, descriptors } => {
                let descriptors = descriptors.into_iter().map(ExtendedDescriptor::from).collect();
                pending.add_status(ContextStatus { context, descriptors })?;
            }
            Chunk::BlockStatusExt { context, descriptors } => {
                pending.add_status(ContextStatus { context, descriptors })?;
            }
            Chunk::Error { error, message } => pending.fail(error, &message),
            Chunk::ErrorOffset { error, message, offset } => {
                if let Expected::Data { offset: start, buffer } = &pending.expected
                    && offset.checked_sub(*start).is_none_or(|at| at >= wide(buffer.len()))
                {
                    return Err(Violation::Misplaced { offset, length: 1 });
                }
                pending.fail(error, &message);
            }
        }
        self.put_back(header.cookie, pending, last)
    }

    fn receive(
        &mut self,
        cookie: u64,
        pending: Box<Pending<T>>,
        place: std::ops::Range<usize>,
        last: bool,
    ) -> Result<(), Violation> {
        if place.is_empty() {
            return self.put_back(cookie, pending, last);
        }
        self.state = State::Data { cookie, pending, at: place.start, end: place.end, last };
        Ok(())
    }

    fn put_back(&mut self, cookie: u64, pending: Box<Pending<T>>, last: bool) -> Result<(), Violation> {
        if last {
            return self.finish(*pending);
        }
        self.pending.insert(cookie, pending);
        Ok(())
    }

    fn finish(&mut self, pending: Pending<T>) -> Result<(), Violation> {
        let outcome = match (pending.error, pending.expected) {
            (Some(error), _) => Err(error),
            (None, Expected::Done) => Ok(Answer::Done),
            (None, Expected::Data { buffer, .. }) => {
                let missing = pending.covered.missing(wide(buffer.len()));
                if missing > 0 {
                    return Err(Violation::Short { missing });
                }
                Ok(Answer::Data(buffer))
            }
            (None, Expected::Status { contexts }) => {
                if pending.statuses.len() < contexts.len() {
                    return Err(Violation::Status("a context that was agreed is missing"));
                }
                Ok(Answer::Status(pending.statuses))
            }
        };
        self.finished.push_back(Finished { token: pending.token, outcome });
        Ok(())
    }
}

impl<T> Pending<T> {
    /// Marks bytes as come; answers their place in the buffer.
    fn cover(&mut self, offset: u64, length: u64) -> Result<std::ops::Range<usize>, Violation> {
        let misplaced = Violation::Misplaced { offset, length };
        let Expected::Data { offset: start, buffer } = &self.expected else { return Err(misplaced) };
        let Ok(extent) = Extent::new(offset, length) else { return Err(misplaced) };
        let place = || {
            let at = usize::try_from(offset.checked_sub(*start)?).ok()?;
            let end = at.checked_add(usize::try_from(length).ok()?)?;
            (end <= buffer.len()).then_some(at..end)
        };
        let Some(place) = place() else { return Err(misplaced) };
        if !self.covered.add(extent, wide(buffer.len())) {
            return Err(misplaced);
        }
        if self.covered.pieces() > MOST_GAPS {
            return Err(Violation::Unfit("a read in too many pieces out of order"));
        }
        Ok(place)
    }

    fn add_status(&mut self, status: ContextStatus) -> Result<(), Violation> {
        let Expected::Status { contexts } = &self.expected else {
            return Err(Violation::Unfit("block status that was not asked for"));
        };
        if !contexts.contains(&status.context) {
            return Err(Violation::Status("a context that was not agreed"));
        }
        if self.statuses.iter().any(|earlier| earlier.context == status.context) {
            return Err(Violation::Status("the same context twice"));
        }
        if status.descriptors.iter().any(|descriptor| descriptor.length == 0) {
            return Err(Violation::Status("an extent without bytes"));
        }
        self.statuses.push(status);
        Ok(())
    }

    fn fail(&mut self, errno: u32, message: &str) {
        self.error.get_or_insert_with(|| ServerError { errno, message: message.to_owned() });
    }
}

/// Bytes of a chunk's payload that are taken at once: all, or only the offset where data follows.
fn payload_size(header: &ExtendedChunkHeader) -> usize {
    match header.kind {
        NBD_REPLY_TYPE_OFFSET_DATA => Chunk::OFFSET_SIZE,
        _ => usize::try_from(header.length).expect("the length was checked with the header"),
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}

/// Feeds bytes as from a hostile server to a decoder with one request of each kind.
pub(super) fn fuzz(bytes: &[u8]) {
    const LENGTH: usize = 4096;
    let (headers, bytes) = match bytes.split_first() {
        Some((first, rest)) if first & 1 == 1 => (Headers::Simple, rest),
        Some((first, rest)) if first & 2 == 2 => (Headers::Extended, rest),
        Some((_, rest)) => (Headers::Structured, rest),
        None => (Headers::Structured, bytes),
    };
    let mut decoder = Decoder::new(headers);
    decoder.begin(1, 0, Expected::Done, ());
    decoder.begin(2, 512, Expected::Data { offset: 512, buffer: BytesMut::zeroed(LENGTH) }, ());
    if headers != Headers::Simple {
        decoder.begin(3, 1 << 40, Expected::Status { contexts: vec![1, 2] }, ());
    }
    let mut rest = bytes;
    while let Ok(used) = decoder.feed(rest) {
        rest = &rest[used..];
        while let Some(finished) = decoder.next_finished() {
            match finished.outcome {
                Ok(Answer::Data(buffer)) => assert_eq!(buffer.len(), LENGTH),
                Ok(Answer::Status(found)) => assert_eq!(found.len(), 2),
                Ok(Answer::Done) => {}
                Err(error) => assert_ne!(error.errno, 0),
            }
        }
        if used == 0 {
            break;
        }
    }
    assert!(decoder.abandon().count() <= 3);
}

#[cfg(test)]
mod tests;
