//! Sends parts of a file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustix::io::{pread, retry_on_intr};
use tokio::io::AsyncWrite;

use super::route::{Route, Way};
use crate::server::buffers::Buffers;
use crate::server::error::Closed;
use crate::server::transport::Transport;

/// Bytes that are read before they are sent: few enough for the cache of one core.
const READ: usize = 256 << 10;

/// The file that a connection's replies are sent from.
#[derive(Debug)]
pub(super) struct FileSender {
    file: OwnedFd,
    route: Route,
    /// What was read, and how much of it is sent.
    read: BytesMut,
    sent: usize,
}

impl FileSender {
    pub(super) fn new(file: BorrowedFd<'_>) -> io::Result<Self> {
        let file = file.try_clone_to_owned()?;
        Ok(Self { file, route: Route::new(), read: BytesMut::new(), sent: 0 })
    }

    /// Sends from `offset`, at most `length` bytes, to a client that has no other connection when it is `alone`. Where it
    /// ends, the next call goes on.
    pub(super) fn poll_send(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        (offset, length): (u64, usize),
        alone: bool,
    ) -> Poll<Result<usize, Closed>> {
        let is_copied = !self.read.is_empty() || (self.route.way() == Way::Copied && transport.is_plain());
        let sent = if is_copied {
            self.poll_copy(transport, cx, buffers, offset, length)
        } else {
            transport.poll_send_file(cx, self.file.as_fd(), offset, length)
        };
        if sent.is_pending() {
            self.route.wait();
        }
        match ready!(sent).map_err(Closed::of_sending)? {
            0 => Poll::Ready(Err(Closed::Shrunk)),
            sent => {
                self.route.sent(sent, alone);
                Poll::Ready(Ok(sent))
            }
        }
    }

    fn poll_copy(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        if self.read.is_empty() {
            let mut buffer = buffers.take(length.min(READ));
            let count = retry_on_intr(|| pread(&self.file, &mut buffer[..], offset))?;
            buffer.truncate(count);
            (self.read, self.sent) = (buffer, 0);
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let sent = ready!(Pin::new(transport).poll_write(cx, &self.read[self.sent..]))?;
        self.sent += sent;
        if self.sent == self.read.len() {
            buffers.give(std::mem::take(&mut self.read));
        }
        Poll::Ready(Ok(sent))
    }
}
