//! A stream socket, with vectored input and output, through TLS or plain.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpStream, UnixStream};

use super::error::Failure;
use crate::sockets::{prepare_tcp, prepare_unix};
use crate::tls::{Need, Session, TlsFailure};
use crate::uri::Address;

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connected socket. Sending and receiving may wait at once.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    /// The lock is held by one task only, and never while it waits.
    session: Option<Box<Mutex<Session>>>,
}

impl Socket {
    pub(super) async fn connect(address: &Address) -> Result<Self, Failure> {
        let refused = |error| Failure::Connect(Arc::new(error));
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
                prepare_tcp(&stream);
                Ok(Self { stream: Stream::Tcp(stream), session: None })
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(refused)?;
                prepare_unix(&stream);
                Ok(Self::from(stream))
            }
        }
    }

    /// Makes the handshake of TLS; from then on every byte goes through the session.
    pub(super) async fn secure(self, mut session: Session) -> Result<Self, TlsFailure> {
        let outcome = self.shake(&mut session).await;
        if outcome.is_err() {
            // The server is told why, as far as it listens.
            let _ = self.send(session.outgoing()).await;
        }
        outcome?;
        Ok(Self { session: Some(Box::new(Mutex::new(session))), ..self })
    }

    async fn shake(&self, session: &mut Session) -> Result<(), TlsFailure> {
        loop {
            match session.shake()? {
                Need::Nothing => return Ok(()),
                Need::Send => {
                    self.send(session.outgoing()).await?;
                    session.sent(session.outgoing().len());
                }
                Need::Receive(count) => {
                    self.fill(session.room(count)).await?;
                    session.received(count);
                }
            }
        }
    }

    /// Waits until something may be received.
    pub(super) async fn readable(&self) -> io::Result<()> {
        if self.session().is_some_and(|session| session.holds()) {
            return Ok(());
        }
        match &self.stream {
            Stream::Tcp(stream) => stream.readable().await,
            Stream::Unix(stream) => stream.readable().await,
        }
    }

    /// Waits until something may be sent.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.writable().await,
            Stream::Unix(stream) => stream.writable().await,
        }
    }

    /// What has arrived, `WouldBlock` when nothing has.
    pub(super) fn try_receive(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self.session() {
            Some(mut session) => session.receive(&mut &self.stream, buffers),
            None => (&self.stream).read_vectored(buffers),
        }
    }

    /// What is taken to be sent now, `WouldBlock` when that is nothing.
    pub(super) fn try_send(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.session() {
            Some(mut session) => session.send(&mut &self.stream, buffers),
            None => (&self.stream).write_vectored(buffers),
        }
    }

    /// Whether something that was taken is still to be sent.
    pub(super) fn owes(&self) -> bool {
        self.session().is_some_and(|session| session.owes())
    }

    /// Sends what was taken; `WouldBlock` when not all of it can be sent now.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        self.session().map_or(Ok(()), |mut session| session.flush(&mut &self.stream))
    }

    /// Fills the buffer.
    pub(super) async fn fill(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.readable().await?;
            match self.try_receive(&mut [IoSliceMut::new(buffer)]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends all of it.
    pub(super) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || self.owes() {
            self.writable().await?;
            let sent = match bytes {
                [] => self.try_flush().map(|()| 0),
                _ => self.try_send(&[IoSlice::new(bytes)]),
            };
            match sent {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(self.reason().unwrap_or(error)),
            }
        }
        Ok(())
    }

    /// Why the server ended the connection, if it said so before it closed it.
    fn reason(&self) -> Option<io::Error> {
        self.session.as_ref()?;
        let said = self.try_receive(&mut [IoSliceMut::new(&mut [0])]).err()?;
        (said.kind() == io::ErrorKind::InvalidData).then_some(said)
    }

    /// Says that nothing more is sent. Whether the server hears it does not matter.
    pub(super) fn close(&self) {
        if let Some(mut session) = self.session() {
            session.close();
            let _ = session.flush(&mut &self.stream);
        }
    }

    fn session(&self) -> Option<MutexGuard<'_, Session>> {
        let lock = self.session.as_ref()?;
        Some(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), session: None }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read(buffer),
            Stream::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read_vectored(buffers),
            Stream::Unix(stream) => stream.try_read_vectored(buffers),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write_vectored(buffers),
            Stream::Unix(stream) => stream.try_write_vectored(buffers),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the socket is only not ready.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
