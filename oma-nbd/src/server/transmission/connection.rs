//! One connection, from the end of the handshake to its own.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::command::{Command, Refusal};
use super::perform::{Answer, perform};
use super::receive::{Next, Receiver};
use super::replies::Replies;
use crate::protocol::{
    NBD_CMD_BLOCK_STATUS, NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE, NBD_ESHUTDOWN, Request,
};
use crate::server::error::Closed;
use crate::server::handshake::Agreed;
use crate::server::served::{Counters, Served};
use crate::server::stop::Stop;
use crate::server::{Inner, ServerConfig};

/// Room that a block status reply may need for each context.
const STATUS_ROOM: usize = 64 << 10;

/// A request that was answered.
#[derive(Debug)]
struct Answered {
    request: Request,
    result: Result<Answer, Refusal>,
}

/// What happened to a connection.
#[derive(Debug)]
enum Event {
    Answered(Answered),
    Sent(io::Result<()>),
    Received(io::Result<usize>),
}

/// A client that uses an export.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    server: Arc<Inner>,
    agreed: Arc<Agreed>,
    receiver: Receiver,
    replies: Replies,
    /// Requests whose device call did not return at once.
    in_flight: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Bytes that requests in flight hold or will hold.
    held: usize,
    /// Whether the client may still send requests.
    receiving: bool,
    /// Whether the next request waits for room.
    full: bool,
    /// Whether requests are refused because the export or the server goes away.
    draining: bool,
    /// When something last happened.
    last_event: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(server: Arc<Inner>, stream: S, agreed: Agreed) -> Self {
        let buffers = server.buffers.clone();
        Self {
            stream,
            receiver: Receiver::new(server.config.max_payload, buffers.clone()),
            replies: Replies::new(agreed.structured, buffers),
            server,
            agreed: Arc::new(agreed),
            in_flight: FuturesUnordered::new(),
            held: 0,
            receiving: true,
            full: false,
            draining: false,
            last_event: Instant::now(),
        }
    }

    /// Serves until the client leaves or is told to. Requests in flight always run to their end: their device calls are
    /// never dropped, so nothing lands after the connection is gone (L23).
    pub(crate) async fn run(mut self, listener: &Stop) -> Result<(), Closed> {
        let outcome = self.serve(listener).await;
        if outcome.is_ok() {
            // The client may be gone already; nothing depends on it.
            let _ = self.stream.shutdown().await;
        }
        let Self { stream, mut in_flight, .. } = self;
        drop(stream);
        while in_flight.next().await.is_some() {}
        outcome
    }

    async fn serve(&mut self, listener: &Stop) -> Result<(), Closed> {
        let export = self.agreed.export.served.stop.clone();
        let mut cut = pin!(either(&export.cut, &listener.cut));
        let mut drain = pin!(either(&export.drain, &listener.drain));
        let stall_timeout = self.server.config.stall_timeout;
        let mut stall = pin!(sleep_until(later(self.last_event, stall_timeout)));
        loop {
            self.start_requests()?;
            if self.is_finished() {
                return Ok(());
            }
            let (draining, waits_for_client) = (self.draining, self.waits_for_client());
            tokio::select! {
                biased;
                () = &mut cut => return Err(Closed::Cut),
                () = &mut drain, if !draining => self.draining = true,
                event = std::future::poll_fn(|cx| self.poll_event(cx)) => {
                    self.last_event = Instant::now();
                    self.note(event)?;
                }
                () = &mut stall, if waits_for_client => {
                    let deadline = later(self.last_event, stall_timeout);
                    if deadline <= Instant::now() {
                        return Err(Closed::Stalled);
                    }
                    stall.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Starts every request that was received and fits.
    fn start_requests(&mut self) -> Result<(), Closed> {
        self.full = false;
        while self.receiving && !self.full {
            let (held, in_flight, config) =
                (self.held + self.replies.waiting(), self.in_flight.len(), &self.server.config);
            match self.receiver.next(|request| admits(config, in_flight, held, request))? {
                Next::Request(Request { command: NBD_CMD_DISC, .. }, _) => self.receiving = false,
                Next::Request(request, data) => self.start(request, data),
                Next::Incomplete => break,
                Next::Full => self.full = true,
            }
        }
        Ok(())
    }

    fn start(&mut self, request: Request, data: Bytes) {
        if self.draining {
            let refusal = Refusal::new(NBD_ESHUTDOWN, "the export is going away");
            return self.finish(Answered { request, result: Err(refusal) });
        }
        let max_payload = self.server.config.max_payload;
        let command = match Command::check(&self.agreed.export.served, max_payload, &request, data) {
            Ok(command) => command,
            Err(refusal) => return self.finish(Answered { request, result: Err(refusal) }),
        };
        let (agreed, buffers) = (self.agreed.clone(), self.server.buffers.clone());
        let mut call: BoxFuture<'static, Answered> = Box::pin(async move {
            let result = perform(&agreed.export.served, &agreed.contexts, &buffers, command).await;
            Answered { request, result }
        });
        // Most calls return at once: cached reads and writes. The others are polled again with a real waker.
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => self.finish(answered),
            Poll::Pending => {
                self.held += room(&request);
                self.in_flight.push(call);
            }
        }
    }

    fn note(&mut self, event: Event) -> Result<(), Closed> {
        match event {
            Event::Answered(answered) => {
                self.held -= room(&answered.request);
                self.finish(answered);
            }
            Event::Sent(sent) => sent?,
            Event::Received(received) => {
                if received? == 0 {
                    self.receiving = false;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, Answered { request, result }: Answered) {
        count(&self.agreed.export.served, &request, &result);
        self.replies.push(&request, result);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(Some(answered)) = self.in_flight.poll_next_unpin(cx) {
            return Poll::Ready(Event::Answered(answered));
        }
        if !self.replies.is_empty()
            && let Poll::Ready(sent) = self.replies.poll_send(&mut self.stream, cx)
        {
            return Poll::Ready(Event::Sent(sent));
        }
        if self.receiving && !self.full {
            return self.receiver.poll_receive(&mut self.stream, cx).map(Event::Received);
        }
        Poll::Pending
    }

    fn waits_for_client(&self) -> bool {
        !self.replies.is_empty() || (self.receiving && !self.full && self.receiver.is_mid_request())
    }

    fn is_finished(&self) -> bool {
        (!self.receiving || self.draining) && self.in_flight.is_empty() && self.replies.is_empty()
    }
}

/// A while later; a while that is longer than time itself becomes a year.
fn later(from: Instant, wait: Duration) -> Instant {
    from.checked_add(wait).unwrap_or_else(|| from + Duration::from_secs(365 * 24 * 3600))
}

/// Waits until one of two tokens is cancelled.
async fn either(one: &CancellationToken, other: &CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

/// Whether a request may be started with so much in flight and held already. One alone always may.
fn admits(config: &ServerConfig, in_flight: usize, held: usize, request: &Request) -> bool {
    let limit = usize::try_from(config.max_buffered.bytes()).unwrap_or(usize::MAX);
    in_flight < config.max_requests.max(1) && (held == 0 || held.saturating_add(room(request)) <= limit)
}

/// Bytes that a request holds, for its data or its reply.
fn room(request: &Request) -> usize {
    match request.command {
        NBD_CMD_READ | NBD_CMD_WRITE => usize::try_from(request.length).unwrap_or(usize::MAX),
        NBD_CMD_BLOCK_STATUS => STATUS_ROOM,
        _ => 0,
    }
}

fn count(served: &Served, request: &Request, result: &Result<Answer, Refusal>) {
    let counters = &served.counters;
    Counters::add(&counters.requests, 1);
    match (result, request.command) {
        (Err(_), _) => Counters::add(&counters.errors, 1),
        (Ok(_), NBD_CMD_READ) => Counters::add(&counters.bytes_read, request.length.into()),
        (Ok(_), NBD_CMD_WRITE) => Counters::add(&counters.bytes_written, request.length.into()),
        (Ok(_), _) => {}
    }
}
