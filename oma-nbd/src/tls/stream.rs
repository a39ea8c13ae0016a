//! A byte stream through a TLS session, for the server.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use oma_core::page_aligned;
use rustix::io::pread;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy, sink};
use tokio::time::timeout;

use super::{Need, Session, TlsFailure};

/// So much of a file is read and sealed at once: what comes of it fits the cache of one core.
const PART: usize = 64 << 10;

/// How much a client may say, and how long, before it hears why there is no TLS.
const UNREAD: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(1);

/// A stream whose bytes are sealed on their way.
#[derive(Debug)]
pub(crate) struct TlsStream<S> {
    inner: S,
    session: Box<Session>,
    /// Data that shares a record with what is sent next.
    held: Vec<u8>,
    /// A part of a file on its way into records.
    part: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Makes the handshake. It takes no byte beyond it.
    pub(crate) async fn shake(mut inner: S, session: Session) -> Result<Self, TlsFailure> {
        let mut session = Box::new(session);
        let outcome = shake(&mut inner, &mut session).await;
        if let Err(failure) = outcome {
            // The other side is told why, as far as it listens.
            let _ = send(&mut inner, &mut session).await;
            let _ = inner.shutdown().await;
            // What is closed with something unread takes back what it sent.
            let mut unread = inner.take(UNREAD);
            let _ = timeout(PATIENCE, copy(&mut unread, &mut sink())).await;
            return Err(failure);
        }
        Ok(Self::of(inner, session))
    }

    /// Keeps data that others follow at once, so that they share a record.
    pub(crate) fn hold(&mut self, bytes: &[u8]) -> usize {
        self.held.extend_from_slice(bytes);
        bytes.len()
    }

    /// Sends a part of a file from `offset`; 0 bytes mean that the file ends before. No more is read than is sealed at once,
    /// so that it is still in the processor's cache then.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        let Self { inner, session, held, part } = self;
        ready!(poll(session.flush(&mut Now(inner, cx))))?;
        if part.is_empty() {
            *part = page_aligned(PART);
        }
        let count = length.min(PART);
        let read = pread(file, &mut part[..count], offset)?;
        if read == 0 {
            return Poll::Ready(Ok(0));
        }
        let slices = [IoSlice::new(held), IoSlice::new(&part[..read])];
        let sent = ready!(poll(session.send(&mut Now(inner, cx), &slices)))?;
        let sent = sent.saturating_sub(held.len());
        held.clear();
        Poll::Ready(Ok(sent))
    }

    /// Sends what was held back.
    fn poll_send_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, session, held, .. } = self;
        while !held.is_empty() {
            let sent = ready!(poll(session.send(&mut Now(inner, cx), &[IoSlice::new(held)])))?;
            held.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> TlsStream<S> {
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The stream and the session.
    pub(crate) fn apart(self) -> (S, Box<Session>) {
        (self.inner, self.session)
    }

    /// A stream through a session that is made.
    pub(crate) fn of(inner: S, session: Box<Session>) -> Self {
        Self { inner, session, held: Vec::new(), part: BytesMut::new() }
    }

    pub(crate) const fn inner(&self) -> &S {
        &self.inner
    }

    /// The same session over the stream that `change` makes of this one's.
    pub(crate) fn map<T, E>(self, change: impl FnOnce(S) -> Result<T, E>) -> Result<TlsStream<T>, E> {
        let Self { inner, session, held, part } = self;
        Ok(TlsStream { inner: change(inner)?, session, held, part })
    }
}

async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
) -> Result<(), TlsFailure> {
    loop {
        match session.shake()? {
            Need::Nothing => return Ok(()),
            Need::Send => send(stream, session).await?,
            Need::Receive(count) => {
                stream.read_exact(session.room(count)).await?;
                session.received(count);
            }
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, session: &mut Session) -> io::Result<()> {
    stream.write_all(session.outgoing()).await?;
    session.sent(session.outgoing().len());
    stream.flush().await
}

/// A stream as sockets without waiting are.
struct Now<'a, 'b, S>(&'a mut S, &'a mut Context<'b>);

impl<S: AsyncRead + Unpin> Read for Now<'_, '_, S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.0).poll_read(self.1, &mut buffer) {
            Poll::Ready(Ok(())) => Ok(buffer.filled().len()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Now<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.0).poll_write(self.1, bytes) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn poll<T>(outcome: io::Result<T>) -> Poll<io::Result<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, session, .. } = self.get_mut();
        let mut into = [IoSliceMut::new(buffer.initialize_unfilled())];
        let outcome = session.receive(&mut Now(inner, cx), &mut into);
        if session.owes() {
            // An answer to a message of TLS itself, or why the session ends; what cannot be sent now goes later.
            match session.flush(&mut Now(inner, cx)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock && outcome.is_ok() => {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
        let count = ready!(poll(outcome))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send_held(cx))?;
        let Self { inner, session, .. } = this;
        poll(session.send(&mut Now(inner, cx), slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send_held(cx))?;
        let Self { inner, session, .. } = this;
        ready!(poll(session.flush(&mut Now(inner, cx))))?;
        Pin::new(inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, session, .. } = self.get_mut();
        session.close();
        ready!(poll(session.flush(&mut Now(inner, cx))))?;
        Pin::new(inner).poll_shutdown(cx)
    }
}
