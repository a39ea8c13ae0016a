use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
#[cfg(feature = "server")]
use std::os::fd::BorrowedFd;

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use super::explain::{explain, explain_end};
use super::incoming::Incoming;
#[cfg(feature = "server")]
use super::kernel::{self, KernelSession};
use super::names;
use super::outgoing::Outgoing;
use crate::tls::{ClientName, TlsFailure};

/// Bytes of a record's header.
const HEADER: usize = 5;
/// More than any handshake has messages: whoever needs more steps is not making one.
const STEPS: usize = 256;

/// What a handshake needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// That what is sealed is sent.
    Send,
    /// So many bytes, and not one more.
    Receive(usize),
    /// Nothing: it is done.
    Nothing,
}

/// One TLS session, between a socket and whoever speaks through it. It waits for nothing itself.
///
/// Many records are received at once, and sealed into one buffer and sent at once: system calls cost more than copies that
/// stay in the cache.
pub(crate) struct Session {
    side: Side,
    incoming: Incoming,
    /// How much of the incoming bytes is whole records; used while nothing beyond one is received.
    framed: usize,
    /// Whether nothing beyond a record is received: the kernel may take over behind it.
    careful: bool,
    /// Data that was opened and that nobody took yet.
    opened: Vec<u8>,
    taken: usize,
    /// Whether what is there is less than a record.
    needs_more: bool,
    outgoing: Outgoing,
    /// The other side said that no more comes.
    ended: bool,
    /// This side said so.
    closed: bool,
    failed: Option<TlsFailure>,
}

pub(super) enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What became of one step.
enum Step {
    /// More can be done at once.
    Again,
    /// More bytes are needed to go on with the handshake.
    Blocked,
    /// The handshake is over; so much data was sealed.
    Ready(usize),
    /// The other side sends no more.
    Ended,
}

/// What to do when data may be sent.
#[derive(Clone, Copy)]
enum Wish<'a> {
    Nothing,
    Seal(&'a [IoSlice<'a>]),
    Close,
}

impl Session {
    pub(super) fn new(side: Side, careful: bool) -> Self {
        Self {
            side,
            careful,
            incoming: Incoming::default(),
            framed: 0,
            opened: Vec::new(),
            taken: 0,
            needs_more: true,
            outgoing: Outgoing::default(),
            ended: false,
            closed: false,
            failed: None,
        }
    }

    /// Goes on with the handshake as far as possible.
    pub(crate) fn shake(&mut self) -> Result<Need, TlsFailure> {
        for _ in 0..STEPS {
            match self.step(Wish::Nothing, &mut Sink::new(&mut []))? {
                Step::Again => {}
                Step::Blocked | Step::Ready(_) if !self.outgoing.rest().is_empty() => return Ok(Need::Send),
                Step::Ready(_) => return Ok(Need::Nothing),
                Step::Blocked => return Ok(Need::Receive(self.missing())),
                Step::Ended => return Err(explain_end()),
            }
        }
        Err(TlsFailure::Protocol("its handshake does not end".to_owned()))
    }

    /// Where bytes that the handshake needs are to be put, before [`Session::received`].
    pub(crate) fn room(&mut self, count: usize) -> &mut [u8] {
        self.incoming.room(count)
    }

    /// So many bytes were put into the room.
    pub(crate) fn received(&mut self, count: usize) {
        self.incoming.filled(count);
        if self.missing() == 0 {
            self.framed = self.incoming.len();
        }
    }

    /// Bytes that are missing until a record's header, then until the record, is whole.
    fn missing(&self) -> usize {
        let record = self.incoming.rest().get(self.framed..).unwrap_or_default();
        match record {
            [_, _, _, high, low, ..] => {
                (HEADER + usize::from(u16::from_be_bytes([*high, *low]))).saturating_sub(record.len())
            }
            _ => HEADER - record.len(),
        }
    }

    /// What is to be sent.
    pub(crate) fn outgoing(&self) -> &[u8] {
        self.outgoing.rest()
    }

    /// So much of it was sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.outgoing.sent(count);
    }

    /// Whether something is to be sent.
    pub(crate) fn owes(&self) -> bool {
        !self.outgoing.rest().is_empty()
    }

    /// Whether data may be had without receiving.
    pub(crate) fn holds(&self) -> bool {
        self.taken < self.opened.len() || !self.needs_more || self.failed.is_some()
    }

    /// Data from the other side, `WouldBlock` when there is none now, 0 bytes when it said that there is no more. An end
    /// without that word is an error: somebody may have cut the rest off.
    pub(crate) fn receive(
        &mut self,
        socket: &mut impl Read,
        into: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        let mut sink = Sink::new(into);
        self.taken += sink.take(&self.opened[self.taken..]);
        if self.taken == self.opened.len() {
            self.opened.clear();
            self.taken = 0;
        }
        loop {
            while !self.needs_more && !self.ended && !sink.is_full() {
                self.open(&mut sink)?;
            }
            if sink.count > 0 {
                return Ok(sink.count);
            }
            if let Some(failure) = self.failed.clone() {
                return Err(failure.into());
            }
            if self.ended {
                return Ok(0);
            }
            let missing = self.missing();
            let spare = if self.careful { self.incoming.room(missing) } else { self.incoming.spare() };
            if spare.is_empty() {
                return Err(TlsFailure::Broken("a message without end".to_owned()).into());
            }
            match socket.read(spare) {
                Ok(0) => {
                    let text = "the connection ended without the word that it may";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Ok(count) => {
                    self.received(count);
                    self.needs_more = self.careful && self.framed < self.incoming.len();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens one record; a failure waits until what came before it was taken.
    fn open(&mut self, sink: &mut Sink<'_, '_>) -> io::Result<()> {
        match self.step(Wish::Nothing, sink) {
            Ok(Step::Again) => {}
            Ok(Step::Ready(_) | Step::Blocked) => self.needs_more = true,
            Ok(Step::Ended) => self.ended = true,
            Err(failure) => {
                self.needs_more = true;
                if sink.count == 0 {
                    return Err(failure.into());
                }
            }
        }
        Ok(())
    }

    /// Seals data and sends what the socket takes; how much of the data that was. What the socket does not take is sent by
    /// the next call, or by [`Session::flush`]. `WouldBlock` when nothing was taken.
    pub(crate) fn send(&mut self, socket: &mut impl Write, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(socket)?;
        let sealed = self.seal(Wish::Seal(data))?;
        if sealed == 0 && data.iter().any(|piece| !piece.is_empty()) {
            // Both sides have said that nothing more comes.
            return Err(io::ErrorKind::WriteZero.into());
        }
        match self.flush(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(sealed),
        }
    }

    /// Sends what is sealed; `WouldBlock` when the socket does not take all of it now.
    pub(crate) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.owes() {
            match socket.write(self.outgoing.rest()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.outgoing.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that no more data comes; [`Session::flush`] sends it.
    pub(crate) fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            // A session that failed has said why; nobody waits for a goodbye.
            let _ = self.seal(Wish::Close);
        }
    }

    fn seal(&mut self, wish: Wish<'_>) -> Result<usize, TlsFailure> {
        loop {
            // Data that comes up meanwhile is kept until somebody asks for it.
            match self.step(wish, &mut Sink::new(&mut []))? {
                Step::Again => {}
                Step::Ended => self.ended = true,
                Step::Ready(sealed) => return Ok(sealed),
                Step::Blocked => return Err(explain_end()),
            }
        }
    }

    fn step(&mut self, wish: Wish<'_>, sink: &mut Sink<'_, '_>) -> Result<Step, TlsFailure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let outcome = self.advance(wish, sink);
        if !sink.more.is_empty() {
            self.opened.append(&mut sink.more);
        }
        if let Err(failure) = &outcome {
            self.failed = Some(failure.clone());
            self.tell_why();
        }
        outcome
    }

    /// Has the other side told why the session ends, as far as it listens. Nothing that it said is looked at again.
    fn tell_why(&mut self) {
        while self.common().wants_write() {
            if !matches!(self.advance(Wish::Nothing, &mut Sink::new(&mut [])), Ok(Step::Again)) {
                break;
            }
        }
    }

    fn advance(&mut self, wish: Wish<'_>, sink: &mut Sink<'_, '_>) -> Result<Step, TlsFailure> {
        let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
        let (discard, step) = match &mut self.side {
            Side::Client(side) => handle(side.process_tls_records(incoming.rest_mut()), outgoing, wish, sink),
            Side::Server(side) => handle(side.process_tls_records(incoming.rest_mut()), outgoing, wish, sink),
        };
        incoming.discard(discard);
        self.framed = self.framed.saturating_sub(discard);
        step
    }

    /// Receives as much at once as there is, from now on: the kernel does not take over.
    pub(crate) fn hurry(&mut self) {
        self.careful = false;
    }

    /// Hands the session to the kernel, from the next byte of the socket on, if that is possible: else it stays as it is.
    #[cfg(feature = "server")]
    pub(crate) fn into_kernel(
        self: Box<Self>,
        socket: BorrowedFd<'_>,
        capacity: u64,
    ) -> Result<Result<KernelSession, Box<Self>>, TlsFailure> {
        let is_empty = self.incoming.len() == 0 && self.taken == self.opened.len() && !self.owes();
        let is_open = !self.ended && !self.closed && self.failed.is_none();
        let fits = self.careful && is_empty && is_open && kernel::serves(capacity);
        let suite = self.common().negotiated_cipher_suite().map(|suite| suite.suite());
        if !fits || !suite.is_some_and(kernel::knows) || !kernel::prepare(socket) {
            return Ok(Err(self));
        }
        match self.side {
            Side::Server(side) => KernelSession::begin(side, socket).map(Ok),
            Side::Client(_) => Err(TlsFailure::Broken("a client's session in a server".to_owned())),
        }
    }

    /// The names in the other side's certificate, which was verified; none when it showed none.
    pub(crate) fn names(&self) -> Vec<ClientName> {
        let certificate = self.common().peer_certificates().and_then(<[_]>::first);
        certificate.map(|certificate| names::of(certificate)).unwrap_or_default()
    }

    /// Version and cipher, for readers.
    pub(crate) fn agreed(&self) -> String {
        let common = self.common();
        let version = common.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
        let suite = common.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        format!("{version} {}", suite.unwrap_or_default())
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(side) => side,
            Side::Server(side) => side,
        }
    }
}

/// Does what rustls asks for; how many received bytes are done with, and what became of it.
fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    outgoing: &mut Outgoing,
    wish: Wish<'_>,
    sink: &mut Sink<'_, '_>,
) -> (usize, Result<Step, TlsFailure>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(explain(&error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    sink.put(record.payload);
                }
                Some(Err(error)) => break Err(explain(&error)),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut message)) => match outgoing.encode(&mut message) {
            Ok(()) => Ok(Step::Again),
            Err(error) => Err(TlsFailure::Broken(error.to_string())),
        },
        Ok(ConnectionState::TransmitTlsData(message)) => {
            // It is in order with all that is sent later.
            message.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match wish {
            Wish::Nothing => Ok(Step::Ready(0)),
            Wish::Seal(data) => outgoing
                .seal(&mut traffic, data)
                .map(Step::Ready)
                .map_err(|error| TlsFailure::Broken(error.to_string())),
            Wish::Close => outgoing
                .close(&mut traffic)
                .map(|()| Step::Ready(0))
                .map_err(|error| TlsFailure::Broken(error.to_string())),
        },
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::Closed) => Ok(Step::Ready(0)),
        Ok(other) => Err(TlsFailure::Broken(format!("a state that was not asked for: {other:?}"))),
    };
    (discard, step)
}

/// Where opened data goes: to who asked for it, and what does not fit there to a buffer.
struct Sink<'a, 'b> {
    into: &'a mut [IoSliceMut<'b>],
    count: usize,
    more: Vec<u8>,
}

impl<'a, 'b> Sink<'a, 'b> {
    const fn new(into: &'a mut [IoSliceMut<'b>]) -> Self {
        Self { into, count: 0, more: Vec::new() }
    }

    fn put(&mut self, data: &[u8]) {
        let taken = if self.more.is_empty() { self.take(data) } else { 0 };
        self.more.extend_from_slice(&data[taken..]);
    }

    /// Takes what fits; how much that is.
    fn take(&mut self, data: &[u8]) -> usize {
        let (mut skipped, mut taken) = (self.count, 0);
        for buffer in self.into.iter_mut() {
            let filled = skipped.min(buffer.len());
            skipped -= filled;
            let room = &mut buffer[filled..];
            let part = room.len().min(data.len() - taken);
            room[..part].copy_from_slice(&data[taken..taken + part]);
            taken += part;
        }
        self.count += taken;
        taken
    }

    fn is_full(&self) -> bool {
        self.count == self.into.iter().map(|buffer| buffer.len()).sum::<usize>()
    }
}

impl fmt::Debug for Session {
    /// Without any of its bytes: they are keys or what the keys protect.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("agreed", &self.agreed()).finish_non_exhaustive()
    }
}
