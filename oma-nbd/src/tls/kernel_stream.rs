//! A byte stream through a TLS session that the kernel keeps, for the server.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::{KernelSession, TlsFailure};

/// A socket whose bytes the kernel seals and opens.
#[derive(Debug)]
pub(crate) struct KernelStream {
    socket: TcpStream,
    session: KernelSession,
}

impl KernelStream {
    pub(crate) const fn new(socket: TcpStream, session: KernelSession) -> Self {
        Self { socket, session }
    }

    pub(crate) fn peer(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// The same stream, known to the runtime that this is called in.
    pub(crate) fn moved(self) -> io::Result<Self> {
        Ok(Self { socket: TcpStream::from_std(self.socket.into_std()?)?, ..self })
    }

    /// Data that has arrived, without waiting; ends and messages of TLS itself are left to who waits.
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> Option<usize> {
        let received = recv(self.socket.as_fd(), buffer, RecvFlags::DONTWAIT);
        received.ok().map(|(count, _)| count).filter(|count| *count > 0)
    }

    /// Sends bytes that others follow at once, so that they share a record.
    pub(crate) fn poll_send_head(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let more = SendFlags::MORE | SendFlags::NOSIGNAL;
        self.poll_send(cx, |socket| Ok(send(socket, bytes, more)?))
    }

    /// Sends a part of a file from `offset`; 0 bytes mean that the file ends before.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |socket| Ok(sendfile(socket, file, Some(&mut { offset }), length)?))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Self { socket, session } = self;
        loop {
            ready!(socket.poll_write_ready(cx))?;
            let sent = socket.try_io(Interest::WRITABLE, || {
                session.prepare(socket.as_fd())?;
                send(socket.as_fd())
            });
            match sent {
                Err(error) if is_passing(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(sent) => {
                    session.sent(sent);
                    return Poll::Ready(Ok(sent));
                }
            }
        }
    }

    /// Takes a message of TLS itself.
    fn take_control(&mut self) -> io::Result<()> {
        match self.session.take_control(self.socket.as_fd()) {
            Err(TlsFailure::Io(error)) if is_passing(&error) => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsyncRead for KernelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.session.is_ended() {
                return Poll::Ready(Ok(()));
            }
            ready!(this.socket.poll_read_ready(cx))?;
            match this.socket.try_read(buffer.initialize_unfilled()) {
                Ok(0) => {
                    let text = "the connection ended without the word that it may";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if is_passing(&error) => {}
                // What is next is no data.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    this.take_control()?;
                }
                Err(error) if error.raw_os_error() == Some(Errno::BADMSG.raw_os_error()) => {
                    // Nothing is sent either until the error was taken.
                    let _ = this.socket.take_error();
                    return Poll::Ready(Err(this.session.refuse_record(this.socket.as_fd()).into()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for KernelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_send(cx, |socket| Ok(rustix::io::writev(socket, slices)?))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel sends what it has.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session } = self.get_mut();
        session.close(socket.as_fd());
        Pin::new(socket).poll_shutdown(cx)
    }
}
