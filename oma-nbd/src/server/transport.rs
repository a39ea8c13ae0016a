//! The bytes of one connection, however they come.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{KernelStream, TlsFailure, TlsStream};

/// Bytes from somewhere and to there.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection's stream.
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// One of the others, through TLS.
    Tls(Box<TlsStream<Transport>>),
    /// TCP, through TLS that the kernel does.
    Kernel(Box<KernelStream>),
    /// Something that an embedder made.
    Other(Box<dyn Duplex>),
}

impl Transport {
    /// Whether a part of a file can be sent that nobody read before.
    pub(super) const fn sends_files(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) | Self::Kernel(_))
    }

    /// Whether bytes go to the socket as they are.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    /// Whether it can be served by another runtime than the one that it was made in.
    pub(super) fn moves(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) | Self::Kernel(_) => true,
            Self::Tls(stream) => stream.inner().moves(),
            Self::Other(_) => false,
        }
    }

    /// The same stream, with its TLS done by the kernel if that is possible for an export of this size.
    pub(super) fn in_kernel(self, capacity: u64) -> Result<Self, TlsFailure> {
        let Self::Tls(stream) = self else { return Ok(self) };
        let (inner, mut session) = stream.apart();
        match inner {
            Self::Tcp(socket) => match session.into_kernel(socket.as_fd(), capacity)? {
                Ok(session) => Ok(Self::Kernel(Box::new(KernelStream::new(socket, session)))),
                Err(mut session) => {
                    session.hurry();
                    Ok(Self::Tls(Box::new(TlsStream::of(Self::Tcp(socket), session))))
                }
            },
            inner => {
                session.hurry();
                Ok(Self::Tls(Box::new(TlsStream::of(inner, session))))
            }
        }
    }

    /// The same stream, known to the runtime that this is called in.
    pub(super) fn moved(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
            Self::Tls(stream) => Self::Tls(Box::new(stream.map(Self::moved)?)),
            Self::Kernel(stream) => Self::Kernel(Box::new(stream.moved()?)),
            Self::Other(stream) => Self::Other(stream),
        })
    }

    /// Whether [`Transport::try_receive`] is of use.
    pub(super) const fn looks(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_) | Self::Kernel(_))
    }

    /// What has arrived, without waiting; `None` when nothing has.
    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let received = match self {
            Self::Tcp(stream) => recv(stream.as_fd(), buffer, RecvFlags::DONTWAIT),
            Self::Unix(stream) => recv(stream.as_fd(), buffer, RecvFlags::DONTWAIT),
            Self::Kernel(stream) => return stream.try_receive(buffer).map(Ok),
            Self::Tls(_) | Self::Other(_) => return None,
        };
        let received = received.map(|(count, _)| count).map_err(io::Error::from);
        (!is_passing(&received)).then_some(received)
    }

    /// Sends bytes that others follow at once, so that the kernel may put them into one packet.
    pub(super) fn poll_send_head(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => return Poll::Ready(Ok(stream.hold(bytes))),
            Self::Kernel(stream) => return stream.poll_send_head(cx, bytes),
            Self::Unix(_) | Self::Other(_) => return Pin::new(self).poll_write(cx, bytes),
        };
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let more = SendFlags::MORE | SendFlags::NOSIGNAL;
            let sent = stream.try_io(Interest::WRITABLE, || Ok(send(stream.as_fd(), bytes, more)?));
            if !is_passing(&sent) {
                return Poll::Ready(sent);
            }
        }
    }

    /// Sends a part of a file from `offset`; 0 bytes mean that the file ends before.
    pub(super) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let send = |socket: BorrowedFd<'_>| Ok(sendfile(socket, file, Some(&mut { offset }), length)?);
            let sent = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || send(stream.as_fd()))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || send(stream.as_fd()))
                }
                Self::Tls(stream) => return stream.poll_send_file(cx, file, offset, length),
                Self::Kernel(stream) => return stream.poll_send_file(cx, file, offset, length),
                Self::Other(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            if !is_passing(&sent) {
                return Poll::Ready(sent);
            }
        }
    }
}

/// Whether the socket was only not ready.
fn is_passing(sent: &io::Result<usize>) -> bool {
    let kind = sent.as_ref().map_err(io::Error::kind);
    matches!(kind, Err(io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted))
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Kernel(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Kernel(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            Self::Kernel(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The kernel sends what it has.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Kernel(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Kernel(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Transport {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

/// From where and how, for readers.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => match stream.peer_addr() {
                Ok(address) => write!(f, "from {address}"),
                Err(_) => f.write_str("from somewhere"),
            },
            Self::Unix(_) => f.write_str("by a unix socket"),
            Self::Tls(stream) => write!(f, "{} through {}", stream.inner(), stream.session().agreed()),
            Self::Kernel(stream) => match stream.peer() {
                Ok(address) => write!(f, "from {address} through TLS of the kernel"),
                Err(_) => f.write_str("from somewhere through TLS of the kernel"),
            },
            Self::Other(_) => f.write_str("within the program"),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Unix(_) => "Unix",
            Self::Tls(_) => "Tls",
            Self::Kernel(_) => "Kernel",
            Self::Other(_) => "Other",
        })
    }
}
