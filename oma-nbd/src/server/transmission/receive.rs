//! Takes requests out of the byte stream.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::poller::Poller;
use crate::protocol::{ExtendedRequest, Headers, Malformed, NBD_CMD_WRITE, Request};
use crate::server::buffers::Buffers;
use crate::server::error::Closed;

/// The first receive takes so much; it doubles while receives come back full.
const FIRST_WINDOW: usize = 4 << 10;
/// No receive of headers and small payloads takes more.
const LARGEST_WINDOW: usize = 64 << 10;

/// What comes next in the byte stream.
#[derive(Debug)]
pub(super) enum Next {
    /// A request; [`Receiver::data`] has its payload.
    Request(ExtendedRequest),
    /// More bytes are needed.
    Incomplete,
    /// A request that must wait for room.
    Full,
}

/// The data of the request that was told last.
#[derive(Debug)]
enum Payload {
    /// The first bytes received.
    Received(usize),
    /// A buffer of its own.
    Own(BytesMut),
}

/// Receives many requests at once; the data of a large write goes straight into a buffer of its own.
#[derive(Debug)]
pub(super) struct Receiver {
    headers: Headers,
    received: BytesMut,
    window: usize,
    /// A write whose data is on its way: the buffer, and how much of it is filled.
    writing: Option<(ExtendedRequest, BytesMut, usize)>,
    payload: Payload,
    max_payload: u32,
    buffers: Buffers,
}

impl Receiver {
    pub(super) fn new(headers: Headers, max_payload: u32, buffers: Buffers) -> Self {
        Self {
            headers,
            received: BytesMut::new(),
            window: FIRST_WINDOW,
            writing: None,
            payload: Payload::Received(0),
            max_payload,
            buffers,
        }
    }

    /// The next request, if it is there and `admits` it. The data of the one before is gone then.
    pub(super) fn next(&mut self, admits: impl FnOnce(&ExtendedRequest) -> bool) -> Result<Next, Closed> {
        self.drop_data();
        if let Some((request, buffer, filled)) = self.writing.take() {
            if filled == buffer.len() {
                self.payload = Payload::Own(buffer);
                return Ok(Next::Request(request));
            }
            self.writing = Some((request, buffer, filled));
            return Ok(Next::Incomplete);
        }
        let Some((request, size)) = self.header()? else { return Ok(Next::Incomplete) };
        let length = self.payload_of(&request);
        if length > self.max_payload.into() {
            return Err(Closed::PayloadTooLong(length));
        }
        if !admits(&request) {
            return Ok(Next::Full);
        }
        self.received.advance(size);
        if length == 0 {
            return Ok(Next::Request(request));
        }
        let length = usize::try_from(length).expect("a payload fits memory");
        if length <= self.received.len() {
            self.payload = Payload::Received(length);
            return Ok(Next::Request(request));
        }
        let mut buffer = self.buffers.take(length);
        let filled = self.received.len();
        buffer[..filled].copy_from_slice(&self.received);
        self.received.clear();
        if length > self.window {
            // The next one will be as large: no more than its header and a little of its data should need a copy.
            self.window = FIRST_WINDOW;
        }
        self.writing = Some((request, buffer, filled));
        Ok(Next::Incomplete)
    }

    /// The header that begins what was received, and its size.
    fn header(&self) -> Result<Option<(ExtendedRequest, usize)>, Malformed> {
        Ok(match self.headers {
            Headers::Extended => {
                let request = self.received.first_chunk().map(ExtendedRequest::decode).transpose()?;
                request.map(|request| (request, ExtendedRequest::SIZE))
            }
            Headers::Simple | Headers::Structured => {
                let request = self.received.first_chunk().map(Request::decode).transpose()?;
                request.map(|request| (request.into(), Request::SIZE))
            }
        })
    }

    /// Bytes that follow the header of a request, whether or not its command has a use for them.
    ///
    /// A write always has data: QEMU leaves its flag out.
    fn payload_of(&self, request: &ExtendedRequest) -> u64 {
        let flagged = self.headers == Headers::Extended && request.has_payload();
        if flagged || request.command == NBD_CMD_WRITE { request.length } else { 0 }
    }

    /// The data that came with the request.
    pub(super) fn data(&self) -> &[u8] {
        match &self.payload {
            Payload::Received(length) => &self.received[..*length],
            Payload::Own(buffer) => buffer,
        }
    }

    /// The data that came with the request, to be kept.
    pub(super) fn take_data(&mut self) -> Bytes {
        match std::mem::replace(&mut self.payload, Payload::Received(0)) {
            Payload::Received(length) => self.received.split_to(length).freeze(),
            Payload::Own(buffer) => self.buffers.lend(buffer),
        }
    }

    fn drop_data(&mut self) {
        match std::mem::replace(&mut self.payload, Payload::Received(0)) {
            Payload::Received(length) => self.received.advance(length),
            Payload::Own(buffer) => self.buffers.give(buffer),
        }
    }

    /// Receives once; 0 bytes mean that the client sends no more.
    pub(super) fn poll_receive<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some((_, buffer, filled)) = &mut self.writing {
            let mut rest = ReadBuf::new(&mut buffer[*filled..]);
            ready!(Pin::new(stream).poll_read(cx, &mut rest))?;
            let count = rest.filled().len();
            *filled += count;
            return Poll::Ready(Ok(count));
        }
        self.received.reserve(self.window);
        let count = ready!(pin!(stream.read_buf(&mut self.received)).poll(cx))?;
        if count >= self.window {
            self.window = (self.window * 2).min(LARGEST_WINDOW);
        }
        Poll::Ready(Ok(count))
    }

    /// As [`Receiver::poll_receive`], without waiting: `try_receive` is asked instead, as often as the poller likes.
    pub(super) fn look(
        &mut self,
        poller: &mut Poller,
        mut try_receive: impl FnMut(&mut [u8]) -> Option<io::Result<usize>>,
    ) -> io::Result<Option<usize>> {
        let had = self.received.len();
        self.received.resize(had + FIRST_WINDOW, 0);
        let count = poller.look(|| try_receive(&mut self.received[had..])).transpose();
        self.received.truncate(had + count.as_ref().ok().copied().flatten().unwrap_or(0));
        count
    }

    /// Bytes of the buffers of its own that it holds.
    pub(super) fn held(&self) -> usize {
        let payload = match &self.payload {
            Payload::Own(buffer) => buffer.len(),
            Payload::Received(_) => 0,
        };
        payload + self.writing.as_ref().map_or(0, |(_, buffer, _)| buffer.len())
    }

    /// Whether something was received behind the request that was told last.
    pub(super) fn holds_more(&self) -> bool {
        let own = match &self.payload {
            Payload::Received(length) => *length,
            Payload::Own(_) => 0,
        };
        self.received.len() > own
    }

    /// Whether a request has begun and not ended.
    pub(super) fn is_mid_request(&self) -> bool {
        self.writing.is_some() || !self.received.is_empty()
    }
}
