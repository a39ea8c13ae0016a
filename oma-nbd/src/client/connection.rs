//! One connection in transmission: many requests under way, one task that sends and receives.
//!
//! ```text
//!  request() ──bounded channel──► Driver ──writev──► server
//!      ▲                            │  ▲
//!      └────────── oneshot ─────────┘  └───readv──── server   (data of reads lands in the caller's buffer)
//! ```
//! The task owns everything, so there is no lock; sending never waits while replies could be taken, so a server that stops
//! receiving until its replies are taken does not block it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::changes::Changes;
use super::decoder::{Answer, Decoder, Expected, Finished, ServerError};
use super::error::Failure;
use super::export::Export;
use super::socket::{Socket, is_passing};
use crate::protocol::{
    self, ExtendedRequest, Headers, NBD_CMD_DISC, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_FLUSH,
};

/// Bytes received besides data that goes straight to its buffer: a batch of headers and small replies.
const INPUT: usize = 16 << 10;
/// Pieces of one vectored write.
const BATCH: usize = 64;
/// Receives in a row before requests are looked after again.
const TURNS: usize = 32;

/// What goes to the server, but for the cookie.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: u16,
    pub(super) flags: u16,
    pub(super) offset: u64,
    /// Bytes of the export.
    pub(super) length: u64,
    pub(super) payload: Bytes,
    pub(super) expected: Expected,
}

impl Request {
    /// A request without flags and payload that expects success.
    pub(super) const fn new(command: u16, offset: u64, length: u64) -> Self {
        Self { command, flags: 0, offset, length, payload: Bytes::new(), expected: Expected::Done }
    }

    pub(super) fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }
}

#[derive(Debug)]
struct Outgoing {
    request: Request,
    token: Token,
}

/// Who waits and since when, and the right to have a request under way, given back with the answer.
#[derive(Debug)]
struct Token {
    reply: oneshot::Sender<Result<Answer, Failure>>,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

/// The handle of a connection; dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) export: Export,
    pub(super) changes: Changes,
    requests: mpsc::Sender<Outgoing>,
    free: Arc<Semaphore>,
    in_flight: usize,
    timeout: Duration,
    ended: Arc<OnceLock<Failure>>,
    task: AbortOnDropHandle<()>,
}

impl Connection {
    pub(super) fn start(socket: Socket, export: Export, in_flight: usize, timeout: Duration) -> Self {
        let in_flight = in_flight.max(1);
        let (requests, incoming) = mpsc::channel(in_flight);
        let ended = Arc::new(OnceLock::new());
        let driver = Driver {
            socket,
            decoder: Decoder::new(export.headers),
            extended: export.headers == Headers::Extended,
            requests: incoming,
            timeout,
            outbox: VecDeque::new(),
            sent: 0,
            input: Input::new(),
            cookie: 0,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(driver.drive(Arc::clone(&ended))));
        let (free, changes) = (Arc::new(Semaphore::new(in_flight)), Changes::default());
        Self { export, changes, requests, free, in_flight, timeout, ended, task }
    }

    pub(super) fn is_alive(&self) -> bool {
        // One whose request was not answered in time ends a little later.
        self.ended.get().is_none() && !self.requests.is_closed()
    }

    /// How many more requests could be under way.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.free() == self.in_flight
    }

    /// Sends a request and waits for its answer. Dropping the future forgets the answer; the buffer stays with the
    /// connection until it came.
    pub(super) async fn request(&self, request: Request) -> Result<Answer, Failure> {
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        let (reply, answer) = oneshot::channel();
        let outgoing = Outgoing { request, token: Token { reply, since: Instant::now(), _permit: permit } };
        if self.requests.send(outgoing).await.is_err() {
            return Err(self.reason());
        }
        answer.await.unwrap_or_else(|_| Err(self.reason()))
    }

    /// Sends a change that only a flush makes durable, and waits for its answer.
    pub(super) async fn change(&self, request: Request) -> Result<Answer, Failure> {
        let _change = self.changes.begin();
        self.request(request).await
    }

    /// Makes the changes durable that were answered over this connection.
    pub(super) async fn flush(&self) -> Result<(), Failure> {
        let ended = self.changes.ended();
        self.request(Request::new(NBD_CMD_FLUSH, 0, 0)).await?;
        self.changes.flushed(ended);
        Ok(())
    }

    fn reason(&self) -> Failure {
        self.ended.get().cloned().unwrap_or(Failure::Closed)
    }

    /// Tells the server goodbye and waits until the connection is closed.
    pub(super) async fn close(self) {
        let Self { requests, timeout: limit, task, .. } = self;
        drop(requests);
        if timeout(limit, task).await.is_err() {
            tracing::debug!("the server did not take the goodbye; the connection was cut");
        }
    }
}

/// What goes to the server.
#[derive(Debug)]
enum Piece {
    Compact([u8; protocol::Request::SIZE]),
    Extended([u8; ExtendedRequest::SIZE]),
    Payload(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Compact(header) => header,
            Self::Extended(header) => header,
            Self::Payload(data) => data,
        }
    }
}

struct Driver {
    socket: Socket,
    /// Whether requests have extended headers.
    extended: bool,
    decoder: Decoder<Token>,
    requests: mpsc::Receiver<Outgoing>,
    /// Time for an answer.
    timeout: Duration,
    /// What is still to be sent, in order.
    outbox: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    sent: usize,
    input: Input,
    cookie: u64,
}

impl Driver {
    async fn drive(mut self, ended: Arc<OnceLock<Failure>>) {
        let failure = match self.run().await {
            Ok(()) => Failure::Closed,
            Err(failure) => {
                tracing::debug!(%failure, "an NBD connection ended");
                failure
            }
        };
        let failure = ended.get_or_init(|| failure).clone();
        self.requests.close();
        while let Ok(outgoing) = self.requests.try_recv() {
            answer(outgoing.token, Err(failure.clone()));
        }
        for token in self.decoder.abandon() {
            answer(token, Err(failure.clone()));
        }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        // One timer for all: to set one for each request costs more than the rest of it.
        let mut overdue = pin!(sleep(self.timeout));
        loop {
            self.send()?;
            tokio::select! {
                ready = self.socket.readable() => {
                    ready?;
                    self.receive()?;
                }
                ready = self.socket.writable(), if !self.outbox.is_empty() || self.socket.owes() => ready?,
                request = self.requests.recv() => {
                    let Some(first) = request else { return self.goodbye().await };
                    self.accept(first);
                    while let Ok(next) = self.requests.try_recv() {
                        self.accept(next);
                    }
                }
                () = &mut overdue, if !self.decoder.is_idle() => {
                    let oldest = self.decoder.tokens().map(|token| token.since).min();
                    let deadline = oldest.unwrap_or_else(Instant::now) + self.timeout;
                    if deadline <= Instant::now() {
                        // What the server owes is unknown from here on, so nothing else may go over this connection.
                        return Err(Failure::RequestTimeout(self.timeout));
                    }
                    overdue.as_mut().reset(deadline);
                }
            }
        }
    }

    fn accept(&mut self, Outgoing { request, token }: Outgoing) {
        // Counted up, so that none is used twice; a server that answers an old one is found out.
        self.cookie += 1;
        let Request { command, flags, offset, length, payload, expected } = request;
        let header = ExtendedRequest { flags, command, cookie: self.cookie, offset, length };
        self.push(header, payload);
        self.decoder.begin(self.cookie, offset, expected, token);
    }

    /// Adds a request to what is to be sent.
    fn push(&mut self, mut header: ExtendedRequest, payload: Bytes) {
        if self.extended {
            if !payload.is_empty() {
                header.flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
                header.length = u64::try_from(payload.len()).expect("a length fits 64 bits");
            }
            self.outbox.push_back(Piece::Extended(header.encode()));
        } else {
            let compact = protocol::Request::try_from(header);
            let compact = compact.expect("requests are cut to what their headers tell");
            self.outbox.push_back(Piece::Compact(compact.encode()));
        }
        if !payload.is_empty() {
            self.outbox.push_back(Piece::Payload(payload));
        }
    }

    /// Sends what the socket takes now.
    fn send(&mut self) -> Result<(), Failure> {
        while !self.outbox.is_empty() || self.socket.owes() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let mut skipped = self.sent;
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(&piece.bytes()[std::mem::take(&mut skipped)..]);
                count += 1;
            }
            let sent = match count {
                0 => self.socket.try_flush().map(|()| 0),
                _ => self.socket.try_send(&slices[..count]),
            };
            let sent = match sent {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            self.sent += sent;
            while let Some(first) = self.outbox.pop_front_if(|first| first.bytes().len() <= self.sent) {
                self.sent -= first.bytes().len();
            }
        }
        Ok(())
    }

    /// Takes what has arrived, for some turns.
    fn receive(&mut self) -> Result<(), Failure> {
        for _ in 0..TURNS {
            match self.receive_once() {
                Ok(Received { total: 0, .. }) => return Err(Failure::Closed),
                Ok(Received { data, .. }) => self.decode(data)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives once: data of a read into its buffer, what follows it into the input.
    fn receive_once(&mut self) -> io::Result<Received> {
        let spare = self.input.spare(self.decoder.needed());
        let space = self.decoder.space().unwrap_or_default();
        let room = space.len();
        let buffers = &mut [IoSliceMut::new(space), IoSliceMut::new(spare)];
        let total = self.socket.try_receive(buffers)?;
        let data = total.min(room);
        self.input.filled(total - data);
        Ok(Received { total, data })
    }

    fn decode(&mut self, data: usize) -> Result<(), Failure> {
        let result = self.decoder.advance(data).and_then(|()| self.decoder.feed(self.input.rest()));
        // Requests that ended before a violation ended well.
        while let Some(Finished { token, outcome }) = self.decoder.next_finished() {
            answer(token, outcome.map_err(Failure::from));
        }
        self.input.used(result?);
        Ok(())
    }

    async fn goodbye(&mut self) -> Result<(), Failure> {
        let header = ExtendedRequest { flags: 0, command: NBD_CMD_DISC, cookie: 0, offset: 0, length: 0 };
        self.push(header, Bytes::new());
        self.send()?;
        while !self.outbox.is_empty() || self.socket.owes() {
            self.socket.writable().await?;
            self.send()?;
        }
        self.socket.close();
        Ok(())
    }
}

/// Answers a request; nobody may be waiting any more.
fn answer(token: Token, outcome: Result<Answer, Failure>) {
    let Token { reply, since: _, _permit } = token;
    drop(reply.send(outcome));
}

impl From<ServerError> for Failure {
    fn from(ServerError { errno, message }: ServerError) -> Self {
        Self::Server { errno, message }
    }
}

/// Bytes of one receive, and how many of them went to the buffer of a read.
struct Received {
    total: usize,
    data: usize,
}

/// Bytes received and not used yet.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn new() -> Self {
        Self { bytes: vec![0; INPUT], start: 0, end: 0 }
    }

    /// Room behind the bytes that are there, such that with it they are at least `needed`.
    fn spare(&mut self, needed: usize) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if needed <= INPUT && self.bytes.len() > INPUT {
                self.bytes = vec![0; INPUT];
            }
        }
        if self.bytes.len() - self.start < needed.max(1) || self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        &mut self.bytes[self.end..]
    }

    const fn filled(&mut self, count: usize) {
        self.end += count;
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    const fn used(&mut self, count: usize) {
        self.start += count;
    }
}
