//! Gives replies to the byte stream: many in one vectored write, small ones in one buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::AsyncWrite;

use super::command::Refusal;
use super::perform::Answer;
use crate::protocol::NBD_CMD_READ;
use crate::protocol::{
    Chunk, ChunkHeader, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA, Request, SimpleReply,
};
use crate::server::buffers::Buffers;

/// Data up to this size is copied behind its header; a buffer of its own costs more.
const COPIED: usize = 8 << 10;
/// A buffer for headers and small data takes no more than this.
const SHARED: usize = 64 << 10;
/// Buffers given to one write.
const SLICES: usize = 32;

/// Replies that wait to be sent.
#[derive(Debug)]
pub(super) struct Replies {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    sent: usize,
    /// Bytes that wait.
    waiting: usize,
    /// An empty buffer for headers.
    spare: BytesMut,
    unflushed: bool,
    buffers: Buffers,
    structured: bool,
}

#[derive(Debug)]
enum Piece {
    /// Headers and small data; grows while it is the last one.
    Shared(BytesMut),
    /// Data of one read.
    Data(BytesMut),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) | Self::Data(bytes) => bytes,
        }
    }
}

impl Replies {
    pub(super) fn new(structured: bool, buffers: Buffers) -> Self {
        Self {
            pieces: VecDeque::new(),
            sent: 0,
            waiting: 0,
            spare: BytesMut::new(),
            unflushed: false,
            buffers,
            structured,
        }
    }

    /// Bytes that wait to be sent.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0 && !self.unflushed
    }

    /// Adds the reply to a request.
    pub(super) fn push(&mut self, request: &Request, result: Result<Answer, Refusal>) {
        let cookie = request.cookie;
        match result {
            // Simple where the protocol allows it: it is shorter.
            Ok(Answer::Done) if !self.structured || request.command != NBD_CMD_READ => {
                self.header(&SimpleReply { error: 0, cookie }.encode());
            }
            Ok(Answer::Done) => self.chunk(&Chunk::None, NBD_REPLY_FLAG_DONE, cookie),
            Ok(Answer::Data { offset, data }) => self.data(cookie, offset, data),
            Ok(Answer::Status(chunks)) => {
                let last = chunks.len() - 1;
                for (index, chunk) in chunks.iter().enumerate() {
                    self.chunk(chunk, if index == last { NBD_REPLY_FLAG_DONE } else { 0 }, cookie);
                }
            }
            Err(Refusal { error, message }) if self.structured => {
                self.chunk(&Chunk::Error { error, message }, NBD_REPLY_FLAG_DONE, cookie);
            }
            Err(Refusal { error, .. }) => self.header(&SimpleReply { error, cookie }.encode()),
        }
    }

    fn data(&mut self, cookie: u64, offset: u64, data: BytesMut) {
        if self.structured {
            let length = u32::try_from(Chunk::OFFSET_SIZE + data.len()).expect("a payload fits 32 bits");
            let kind = NBD_REPLY_TYPE_OFFSET_DATA;
            self.header(&ChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind, cookie, length }.encode());
            self.header(&offset.to_be_bytes());
        } else {
            self.header(&SimpleReply { error: 0, cookie }.encode());
        }
        if data.len() <= COPIED {
            self.header(&data);
            self.buffers.give(data);
        } else {
            self.waiting += data.len();
            self.pieces.push_back(Piece::Data(data));
        }
    }

    fn header(&mut self, bytes: &[u8]) {
        self.waiting += bytes.len();
        self.shared(bytes.len()).put_slice(bytes);
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, flags: u16, cookie: u64) {
        let size = ChunkHeader::SIZE + usize::try_from(chunk.length()).expect("a chunk fits memory");
        self.waiting += size;
        chunk.encode(flags, cookie, self.shared(size));
    }

    /// The buffer that takes `size` more bytes.
    fn shared(&mut self, size: usize) -> &mut BytesMut {
        let fits = matches!(self.pieces.back(), Some(Piece::Shared(last)) if last.len() + size <= SHARED);
        if !fits {
            self.pieces.push_back(Piece::Shared(std::mem::take(&mut self.spare)));
        }
        match self.pieces.back_mut() {
            Some(Piece::Shared(last)) => last,
            _ => unreachable!("the last piece was just found or made to be shared"),
        }
    }

    /// Sends once.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waiting == 0 {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(()));
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut skipped = self.sent;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(&piece.bytes()[std::mem::take(&mut skipped)..]);
            count += 1;
        }
        let sent = ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..count]))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(sent);
        Poll::Ready(Ok(()))
    }

    /// Lets go of what was sent.
    fn advance(&mut self, sent: usize) {
        self.waiting -= sent;
        self.unflushed = true;
        self.sent += sent;
        while let Some(first) =
            self.pieces.front().map(|piece| piece.bytes().len()).filter(|len| *len <= self.sent)
        {
            self.sent -= first;
            match self.pieces.pop_front() {
                Some(Piece::Data(data)) => self.buffers.give(data),
                Some(Piece::Shared(mut bytes)) => {
                    bytes.clear();
                    self.spare = bytes;
                }
                None => {}
            }
        }
    }
}
