//! A stream socket in two halves, with vectored input and output.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::error::Failure;
use crate::uri::Address;

/// The half that receives.
#[derive(Debug)]
pub(super) enum Reader {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// The half that sends; dropping it ends sending.
#[derive(Debug)]
pub(super) enum Writer {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

/// Both halves.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

impl Socket {
    pub(super) async fn connect(address: &Address) -> Result<Self, Failure> {
        let refused = |error| Failure::Connect(Arc::new(error));
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
                // Requests are small and wait for nothing: Nagle's algorithm would hold them back.
                stream.set_nodelay(true).map_err(refused)?;
                let (reader, writer) = stream.into_split();
                Ok(Self { reader: Reader::Tcp(reader), writer: Writer::Tcp(writer) })
            }
            Address::Unix(path) => Ok(Self::from(UnixStream::connect(path).await.map_err(refused)?)),
        }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: Reader::Unix(reader), writer: Writer::Unix(writer) }
    }
}

impl Reader {
    pub(super) async fn ready(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.readable().await,
            Self::Unix(half) => half.readable().await,
        }
    }

    /// What has arrived, `WouldBlock` when nothing has.
    pub(super) fn try_receive(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_read_vectored(buffers),
            Self::Unix(half) => half.try_read_vectored(buffers),
        }
    }

    /// Fills the buffer.
    pub(super) async fn fill(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.ready().await?;
            match self.try_receive(&mut [IoSliceMut::new(buffer)]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Writer {
    pub(super) async fn ready(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.writable().await,
            Self::Unix(half) => half.writable().await,
        }
    }

    /// What the socket takes now, `WouldBlock` when that is nothing.
    pub(super) fn try_send(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write_vectored(buffers),
            Self::Unix(half) => half.try_write_vectored(buffers),
        }
    }

    /// Sends all of it.
    pub(super) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.ready().await?;
            match self.try_send(&[IoSlice::new(bytes)]) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether the socket is only not ready.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
