//! Gives replies to the byte stream: many in one vectored write, small ones in one buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::AsyncWrite;

use super::command::Refusal;
use super::file::FileSender;
use super::perform::{Answer, Told};
use crate::protocol::{
    Chunk, ChunkHeader, Descriptor, ExtendedChunkHeader, ExtendedDescriptor, ExtendedRequest, Headers,
    NBD_CMD_READ, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA, SimpleReply,
};
use crate::server::buffers::Buffers;
use crate::server::error::Closed;
use crate::server::transport::Transport;

/// Data up to this size is copied behind its header; a buffer of its own, or sending it from its file, costs more.
pub(super) const COPIED: usize = 16 << 10;
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
    /// Pieces that are sent.
    sent_pieces: u64,
    /// Bytes of the file that wait; those of the first part may be sent in part.
    in_file: usize,
    /// Bytes that wait.
    waiting: usize,
    /// An empty buffer for headers.
    spare: BytesMut,
    /// The file that parts are sent from.
    file: Option<FileSender>,
    /// Whether the client has no other connection.
    alone: bool,
    unflushed: bool,
    buffers: Buffers,
    headers: Headers,
}

#[derive(Debug)]
enum Piece {
    /// Headers and small data; grows while it is the last one.
    Shared(BytesMut),
    /// Data of one read.
    Data(BytesMut),
    /// A part of the file.
    File { offset: u64, length: usize },
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Shared(bytes) | Self::Data(bytes) => bytes.len(),
            Self::File { length, .. } => *length,
        }
    }

    /// The bytes, if they are in our memory.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Shared(bytes) | Self::Data(bytes) => Some(bytes),
            Self::File { .. } => None,
        }
    }
}

impl Replies {
    pub(super) fn new(headers: Headers, buffers: Buffers) -> Self {
        Self {
            pieces: VecDeque::new(),
            sent: 0,
            sent_pieces: 0,
            in_file: 0,
            waiting: 0,
            spare: BytesMut::new(),
            file: None,
            alone: false,
            unflushed: false,
            buffers,
            headers,
        }
    }

    /// Bytes that wait to be sent.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes that wait in buffers of ours.
    pub(super) const fn held(&self) -> usize {
        self.waiting.saturating_sub(self.in_file)
    }

    /// How many pieces were sent, each as a whole.
    pub(super) const fn sent_pieces(&self) -> u64 {
        self.sent_pieces
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0 && !self.unflushed
    }

    /// Adds the reply to a request.
    pub(super) fn push(&mut self, request: &ExtendedRequest, result: Result<Answer, Refusal>) {
        let cookie = request.cookie;
        match (result, self.headers) {
            // Simple where the protocol allows it: it is shorter.
            (Ok(Answer::Done), Headers::Structured) if request.command != NBD_CMD_READ => {
                self.header(&SimpleReply { error: 0, cookie }.encode());
            }
            (Ok(Answer::Done), Headers::Simple) => self.header(&SimpleReply { error: 0, cookie }.encode()),
            (Ok(Answer::Done), _) => self.chunk(request, &Chunk::None, NBD_REPLY_FLAG_DONE),
            (Ok(Answer::Data(data)), _) => self.data(request, data),
            (Ok(Answer::Status(told)), headers) => {
                let last = told.len() - 1;
                for (index, Told { context, extents }) in told.into_iter().enumerate() {
                    let chunk = status(headers, context, extents);
                    self.chunk(request, &chunk, if index == last { NBD_REPLY_FLAG_DONE } else { 0 });
                }
            }
            (Err(Refusal { error, .. }), Headers::Simple) => {
                self.header(&SimpleReply { error, cookie }.encode());
            }
            (Err(Refusal { error, message }), _) => {
                self.chunk(request, &Chunk::Error { error, message }, NBD_REPLY_FLAG_DONE);
            }
        }
    }

    /// Adds the reply to a read of a few bytes, which `read` puts behind their header; whether it could. Nothing is added
    /// when it could not.
    pub(super) fn push_small<E>(
        &mut self,
        request: &ExtendedRequest,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let waited = self.waiting;
        let start = self.shared(ExtendedChunkHeader::SIZE + Chunk::OFFSET_SIZE + length).len();
        self.data_header(request, length);
        let shared = self.shared(0);
        let from = shared.len();
        shared.resize(from + length, 0);
        let read = read(&mut shared[from..]);
        if matches!(read, Ok(true)) {
            self.waiting += length;
        } else {
            shared.truncate(start);
            self.waiting = waited;
        }
        read
    }

    /// Adds the reply to a read that is sent from a file, always the same one, to a client that has no other connection
    /// when it is `alone`.
    pub(super) fn push_file(
        &mut self,
        request: &ExtendedRequest,
        length: usize,
        file: BorrowedFd<'_>,
        alone: bool,
    ) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(FileSender::new(file)?);
        }
        self.alone = alone;
        self.data_header(request, length);
        self.waiting += length;
        self.in_file += length;
        self.pieces.push_back(Piece::File { offset: request.offset, length });
        Ok(())
    }

    fn data(&mut self, request: &ExtendedRequest, data: BytesMut) {
        if data.len() <= COPIED {
            self.data_header(request, data.len());
            self.header(&data);
            self.buffers.give(data);
        } else if self.headers != Headers::Simple && is_zero(&data) {
            let length = u32::try_from(data.len()).expect("a payload fits 32 bits");
            let hole = Chunk::OffsetHole { offset: request.offset, length };
            self.chunk(request, &hole, NBD_REPLY_FLAG_DONE);
            self.buffers.give(data);
        } else {
            self.data_header(request, data.len());
            self.waiting += data.len();
            self.pieces.push_back(Piece::Data(data));
        }
    }

    fn data_header(&mut self, request: &ExtendedRequest, length: usize) {
        let (cookie, offset) = (request.cookie, request.offset);
        let length = u32::try_from(Chunk::OFFSET_SIZE + length).expect("a payload fits 32 bits");
        let (flags, kind) = (NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA);
        match self.headers {
            Headers::Simple => return self.header(&SimpleReply { error: 0, cookie }.encode()),
            Headers::Structured => self.header(&ChunkHeader { flags, kind, cookie, length }.encode()),
            Headers::Extended => {
                let length = length.into();
                self.header(&ExtendedChunkHeader { flags, kind, cookie, offset, length }.encode());
            }
        }
        self.header(&offset.to_be_bytes());
    }

    fn header(&mut self, bytes: &[u8]) {
        self.waiting += bytes.len();
        self.shared(bytes.len()).put_slice(bytes);
    }

    fn chunk(&mut self, request: &ExtendedRequest, chunk: &Chunk<'_>, flags: u16) {
        let payload = usize::try_from(chunk.length()).expect("a chunk fits memory");
        if self.headers == Headers::Extended {
            self.waiting += ExtendedChunkHeader::SIZE + payload;
            let out = self.shared(ExtendedChunkHeader::SIZE + payload);
            chunk.encode_extended(flags, request.cookie, request.offset, out);
        } else {
            self.waiting += ChunkHeader::SIZE + payload;
            chunk.encode(flags, request.cookie, self.shared(ChunkHeader::SIZE + payload));
        }
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
    pub(super) fn poll_send(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Closed>> {
        if self.waiting == 0 {
            ready!(Pin::new(transport).poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(()));
        }
        let sent = match (self.pieces.front(), &mut self.file) {
            (Some(Piece::File { offset, length }), Some(file)) => {
                let offset = offset + u64::try_from(self.sent).expect("a length fits 64 bits");
                let rest = (offset, length - self.sent);
                ready!(file.poll_send(transport, cx, &self.buffers, rest, self.alone))?
            }
            _ => ready!(self.poll_send_bytes(transport, cx))?,
        };
        self.advance(sent);
        Poll::Ready(Ok(()))
    }

    /// Sends of what is in our memory, up to the next part of the file.
    fn poll_send_bytes(
        &self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Closed>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut skipped = self.sent;
        for (slice, bytes) in slices.iter_mut().zip(self.pieces.iter().map_while(Piece::bytes)) {
            *slice = IoSlice::new(&bytes[std::mem::take(&mut skipped)..]);
            count += 1;
        }
        let sent = match (&slices[..count], self.pieces.get(count)) {
            ([head], Some(Piece::File { .. })) => transport.poll_send_head(cx, head),
            ([only], _) => Pin::new(transport).poll_write(cx, only),
            (slices, _) => Pin::new(transport).poll_write_vectored(cx, slices),
        };
        match ready!(sent)? {
            0 => Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// Lets go of what was sent.
    fn advance(&mut self, sent: usize) {
        self.waiting -= sent;
        self.unflushed = true;
        self.sent += sent;
        while let Some(first) = self.pieces.front().map(Piece::len).filter(|len| *len <= self.sent) {
            self.sent -= first;
            self.sent_pieces += 1;
            match self.pieces.pop_front() {
                Some(Piece::Data(data)) => self.buffers.give(data),
                Some(Piece::Shared(mut bytes)) => {
                    bytes.clear();
                    self.spare = bytes;
                }
                Some(Piece::File { length, .. }) => self.in_file -= length,
                None => {}
            }
        }
    }
}

/// The chunk that tells the extents of a context.
fn status(headers: Headers, context: u32, descriptors: Vec<ExtendedDescriptor>) -> Chunk<'static> {
    if headers == Headers::Extended {
        return Chunk::BlockStatusExt { context, descriptors };
    }
    let narrow =
        |number: u64| u32::try_from(number).expect("a compact request asks for no more than 32 bits tell");
    let compact =
        |wide: ExtendedDescriptor| Descriptor { length: narrow(wide.length), flags: narrow(wide.flags) };
    Chunk::BlockStatus { context, descriptors: descriptors.into_iter().map(compact).collect() }
}

/// Whether all of it is zero. Comparing memory costs a tenth of sending it, and for most data ends with the first byte.
fn is_zero(data: &[u8]) -> bool {
    static ZEROES: [u8; 16 << 10] = [0; 16 << 10];
    data.chunks(ZEROES.len()).all(|run| *run == ZEROES[..run.len()])
}
