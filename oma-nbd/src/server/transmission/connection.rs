//! One connection, from the end of the handshake to its own.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use oma_core::Extent;
use oma_core::traits::{Durability, InPlace};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::command::{Command, Refusal, Terms};
use super::in_flight::InFlight;
use super::perform::{Answer, Scene, computed, perform};
use super::poller::Poller;
use super::receive::{Next, Receiver};
use super::replies::{COPIED, Replies};
use crate::protocol::{
    ExtendedRequest, NBD_CMD_BLOCK_STATUS, NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE, NBD_ESHUTDOWN,
};
use crate::server::error::Closed;
use crate::server::handshake::Agreed;
use crate::server::memory::Share;
use crate::server::served::Served;
use crate::server::stop::Stop;
use crate::server::transport::Transport;
use crate::server::{Inner, ServerConfig};

/// Rounds of receiving and sending before it is asked again whether to stop.
const ROUNDS: usize = 16;
/// With so many bytes of replies it is time to send.
const BATCH: usize = 256 << 10;
/// Room that a block status reply may need for each context.
const STATUS_ROOM: usize = 64 << 10;
/// A connection that does nothing has so much for its next request, whatever the others hold.
const ALWAYS: usize = 128 << 10;
/// After so many requests in a row that came alone the client is taken for one that waits for each reply.
const ALONE: u32 = 8;

/// A request that was answered.
#[derive(Debug)]
struct Answered {
    request: ExtendedRequest,
    begun: Instant,
    result: Result<Answer, Refusal>,
}

/// How a turn of a connection ended.
#[derive(Debug)]
enum Turn {
    /// There is more to do.
    More,
    /// The client has left, or must, and every request is answered.
    Finished,
}

/// A client that uses an export.
#[derive(Debug)]
pub(crate) struct Connection {
    transport: Transport,
    server: Arc<Inner>,
    agreed: Arc<Agreed>,
    /// Whether this thread may be kept waiting by the device.
    in_place: bool,
    receiver: Receiver,
    replies: Replies,
    /// Requests whose device call did not return at once.
    in_flight: InFlight<Answered>,
    /// Tells what only waits for its turn that nobody waits for it any more.
    gone: DropGuard,
    /// Bytes that requests in flight hold or will hold.
    held: usize,
    /// What this connection has of the memory of all.
    share: Share,
    /// Whether the client may still send requests, or has sent some that were not looked at.
    receiving: bool,
    /// Whether the client sends nothing more.
    ended: bool,
    /// Until when the export's rate lets nothing more through.
    pause: Option<Pin<Box<Sleep>>>,
    poller: Poller,
    /// Requests that were started since bytes were received, and whether all were small.
    started: usize,
    small: bool,
    /// Requests in a row that came when no other was there.
    alone: u32,
    /// Whether received requests wait until the replies before them are sent.
    backlog: bool,
    /// Whether the next request waits for room.
    full: bool,
    /// Whether replies wait for room in the socket.
    blocked: bool,
    /// Whether requests are refused because the export or the server goes away.
    draining: bool,
    /// Requests begun.
    begun: u64,
    /// Requests begun and parts of replies sent, each as a whole: a byte now and then is no progress.
    steps: u64,
    /// When `steps` last grew.
    last_step: Instant,
}

impl Connection {
    pub(crate) fn new(server: Arc<Inner>, transport: Transport, agreed: Agreed) -> Self {
        let buffers = server.buffers.clone();
        let share = Share::new(server.memory.clone());
        let poller = Poller::new(server.config.busy_poll);
        Self {
            transport,
            in_place: false,
            receiver: Receiver::new(agreed.headers, server.config.max_payload, buffers.clone()),
            replies: Replies::new(agreed.headers, buffers),
            server,
            agreed: Arc::new(agreed),
            in_flight: InFlight::new(),
            gone: CancellationToken::new().drop_guard(),
            held: 0,
            share,
            receiving: true,
            ended: false,
            pause: None,
            poller,
            started: 0,
            small: false,
            alone: 0,
            backlog: false,
            full: false,
            blocked: false,
            draining: false,
            begun: 0,
            steps: 0,
            last_step: Instant::now(),
        }
    }

    /// The same on a thread that serves nobody else: calls of the device may be done there.
    pub(crate) fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    /// Serves until the client leaves or is told to. Requests in flight always run to their end: their device calls are
    /// never dropped, so nothing lands after the connection is gone (L23).
    pub(crate) async fn run(mut self, listener: &Stop) -> Result<(), Closed> {
        let outcome = self.serve(listener).await;
        match &outcome {
            Ok(()) => self.part(listener).await,
            // The reply was half sent, so this connection is lost. The next one reads, and can answer with the error.
            Err(Closed::File(_) | Closed::Shrunk) => self.served().never_lend(),
            Err(_) => {}
        }
        let Self { transport, in_flight, gone, .. } = self;
        drop((transport, gone));
        in_flight.end().await;
        outcome
    }

    /// Says goodbye. The client may be gone already, or not read it: nothing depends on it, and no withdrawal waits for it
    /// beyond its deadline.
    async fn part(&mut self, listener: &Stop) {
        let export = self.served().stop.clone();
        let patience = self.server.config.stall_timeout;
        tokio::select! {
            biased;
            () = either(&export.cut, &listener.cut) => {}
            _ = timeout(patience, self.transport.shutdown()) => {}
        }
    }

    async fn serve(&mut self, listener: &Stop) -> Result<(), Closed> {
        let export = self.served().stop.clone();
        let mut cut = pin!(either(&export.cut, &listener.cut));
        let mut drain = pin!(either(&export.drain, &listener.drain));
        let stall_timeout = self.server.config.stall_timeout;
        let mut stall = pin!(sleep_until(later(self.last_step, stall_timeout)));
        let mut waits_for_client = false;
        loop {
            let (draining, waited) = (self.draining, waits_for_client);
            waits_for_client = self.waits_for_client();
            if waits_for_client && !waited {
                self.last_step = Instant::now();
            }
            tokio::select! {
                biased;
                () = &mut cut => return Err(Closed::Cut),
                () = &mut drain, if !draining => self.draining = true,
                turn = std::future::poll_fn(|cx| self.poll_turn(cx)) => match turn? {
                    Turn::More => self.note_steps(),
                    Turn::Finished => return Ok(()),
                },
                () = &mut stall, if waits_for_client => {
                    let deadline = later(self.last_step, stall_timeout);
                    if deadline <= Instant::now() {
                        return Err(Closed::Stalled);
                    }
                    stall.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Does what can be done now, for some rounds. Before it waits, everything that can be sent is sent.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, Closed>> {
        let mut moved = false;
        for _ in 0..ROUNDS {
            let mut more = false;
            while !self.in_flight.is_empty()
                && let Poll::Ready(Some(answered)) = self.in_flight.poll_next(cx)
            {
                self.held -= room(&answered.request);
                self.finish(answered);
                more = true;
            }
            let begun = self.in_flight.len();
            self.start_requests(cx)?;
            // Whoever wakes this task for them is not known to them yet: they are polled in the next round.
            more |= self.in_flight.len() > begun;
            self.blocked = false;
            while !self.replies.is_empty() {
                if self.replies.poll_send(&mut self.transport, cx)?.is_pending() {
                    self.blocked = true;
                    break;
                }
                more = true;
            }
            self.share.settle(self.receiver.held() + self.held + self.replies.held());
            if self.is_finished() {
                return Poll::Ready(Ok(Turn::Finished));
            }
            if self.receiving
                && !self.full
                && !self.ended
                && let Poll::Ready(received) = self.receiver.poll_receive(&mut self.transport, cx)?
            {
                self.received(received);
                more = true;
                (self.started, self.small) = (0, true);
            }
            // Who sends much before it reads anything is served as far as there is room.
            more |= self.blocked && self.backlog;
            if !more && self.is_asked_one_by_one() {
                let transport = &self.transport;
                if let Some(received) =
                    self.receiver.look(&mut self.poller, |buffer| transport.try_receive(buffer))?
                {
                    self.received(received);
                    more = true;
                    (self.started, self.small) = (0, true);
                }
            }
            if !more {
                return if moved { Poll::Ready(Ok(Turn::More)) } else { Poll::Pending };
            }
            moved = true;
        }
        Poll::Ready(Ok(Turn::More))
    }

    /// Notes that so many bytes were received. Whoever sends no more without a goodbye has left as a rule; one that only shut
    /// its half of the socket is answered, but for what was to be computed.
    fn received(&mut self, bytes: usize) {
        self.ended = bytes == 0;
        if self.ended {
            self.gone.token().cancel();
        }
    }

    /// Starts requests that were received and fit: all of them while replies wait for the client anyway, else as many as make
    /// enough replies for one send, so that client and server work at the same time.
    fn start_requests(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        (self.full, self.backlog) = (false, false);
        while self.receiving && !self.full {
            if self.pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_pending()) {
                self.full = true;
                break;
            }
            self.pause = None;
            if !self.blocked && self.replies.waiting() >= BATCH {
                self.backlog = true;
                break;
            }
            let (held, in_flight, config) =
                (self.held + self.replies.waiting(), self.in_flight.len(), &self.server.config);
            let (share, mut denied) = (&mut self.share, false);
            let is_idle = in_flight == 0 && held == 0;
            let next = self.receiver.next(|request| {
                admits(config, in_flight, held, request) && {
                    let charge = charge(config, request);
                    denied = !(share.claim(charge) || (is_idle && charge <= ALWAYS));
                    !denied
                }
            })?;
            match next {
                Next::Request(ExtendedRequest { command: NBD_CMD_DISC, .. }) => self.receiving = false,
                Next::Request(request) => {
                    self.pause =
                        self.served().pace(carried(&request)).map(|until| Box::pin(sleep_until(until)));
                    self.start(request);
                }
                Next::Incomplete => {
                    self.receiving = !self.ended;
                    break;
                }
                Next::Full if denied && self.share.poll_freed(cx).is_ready() => {}
                Next::Full => self.full = true,
            }
        }
        Ok(())
    }

    fn start(&mut self, request: ExtendedRequest) {
        self.begun += 1;
        self.started += 1;
        self.small &= room(&request) <= COPIED;
        let came_alone = self.started == 1 && self.in_flight.is_empty() && !self.receiver.holds_more();
        self.alone = if came_alone { self.alone.saturating_add(1) } else { 0 };
        let begun = Instant::now();
        if self.draining {
            let refusal = Refusal::new(NBD_ESHUTDOWN, "the export is going away");
            return self.finish(Answered { request, begun, result: Err(refusal) });
        }
        let (headers, max_payload) = (self.agreed.headers, self.server.config.max_payload);
        let terms = Terms { served: self.served(), headers, max_payload };
        let command = match Command::check(terms, &request, self.receiver.data()) {
            Ok(command) => command,
            Err(refusal) => return self.finish(Answered { request, begun, result: Err(refusal) }),
        };
        if self.in_place && self.done_in_place(&request, begun, command) {
            return;
        }
        let computed = computed(&self.agreed.contexts, command, self.receiver.data());
        if computed > 0 {
            self.pause = self.served().pace(computed).map(|until| Box::pin(sleep_until(until)));
        }
        let (agreed, buffers) = (self.agreed.clone(), self.server.buffers.clone());
        let (data, gone) = (self.receiver.take_data(), self.gone.token().clone());
        let mut call: BoxFuture<'static, Answered> = Box::pin(async move {
            let (served, contexts) = (&*agreed.export.served, &agreed.contexts);
            let scene = Scene { served, contexts, buffers: &buffers, gone: &gone };
            let result = perform(scene, command, data).await;
            Answered { request, begun, result }
        });
        // Many calls return at once. The others are polled again with a real waker.
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => self.finish(answered),
            Poll::Pending => {
                self.held += room(&request);
                self.in_flight.push(call);
            }
        }
    }

    /// Does a request on this thread and adds its reply, if that is possible.
    fn done_in_place(&mut self, request: &ExtendedRequest, begun: Instant, command: Command) -> bool {
        let agreed = self.agreed.clone();
        let served = &agreed.export.served;
        let Some(device) = served.device.in_place() else { return false };
        let done = match command {
            Command::Read { offset, length } if length > 0 => {
                self.read_in_place(request, device, offset, length)
            }
            Command::Write { offset, durability: Durability::Cached } => {
                let written = device.write(offset, self.receiver.data());
                written.map(|()| {
                    self.replies.push(request, Ok(Answer::Done));
                    true
                })
            }
            _ => Ok(false),
        };
        match done {
            Ok(true) => agreed.export.meter.count(request, true, begun.elapsed()),
            Ok(false) => return false,
            Err(error) => self.finish(Answered { request: *request, begun, result: Err(error.into()) }),
        }
        true
    }

    fn read_in_place(
        &mut self,
        request: &ExtendedRequest,
        device: &dyn InPlace,
        offset: u64,
        length: usize,
    ) -> oma_core::Result<bool> {
        if length <= COPIED {
            let waits = self.alone >= ALONE;
            return self.replies.push_small(request, length, |buffer| match waits {
                // Nobody else is kept waiting, and two hand-overs are spared.
                true => device.read_waiting(offset, buffer),
                false => device.read(offset, buffer),
            });
        }
        if self.transport.sends_files() {
            let served = self.served();
            let extent = Extent::new(offset, request.length).ok().filter(|_| served.lends());
            let lent = extent.and_then(|extent| device.lend(extent));
            let alone = served.meters.connections() == 1;
            return Ok(lent.is_some_and(|file| self.replies.push_file(request, length, file, alone).is_ok()));
        }
        let mut data = self.server.buffers.take(length);
        let read = device.read(offset, &mut data);
        match read {
            Ok(true) => self.replies.push(request, Ok(Answer::Data(data))),
            Ok(false) | Err(_) => self.server.buffers.give(data),
        }
        read
    }

    fn finish(&mut self, Answered { request, begun, result }: Answered) {
        self.agreed.export.meter.count(&request, result.is_ok(), begun.elapsed());
        self.replies.push(&request, result);
    }

    fn served(&self) -> &Served {
        &self.agreed.export.served
    }

    /// Whether the client waits for each small reply before it asks again, and nothing else is to be done.
    fn is_asked_one_by_one(&self) -> bool {
        let open = self.receiving && !self.ended && !self.full && !self.draining;
        let idle = self.in_flight.is_empty() && self.replies.is_empty() && !self.receiver.is_mid_request();
        self.in_place && self.transport.looks() && open && idle && self.started == 1 && self.small
    }

    fn note_steps(&mut self) {
        let steps = self.begun + self.replies.sent_pieces();
        if steps != self.steps {
            (self.steps, self.last_step) = (steps, Instant::now());
        }
    }

    fn waits_for_client(&self) -> bool {
        !self.replies.is_empty()
            || (self.receiving && !self.full && !self.ended && self.receiver.is_mid_request())
    }

    fn is_finished(&self) -> bool {
        (!self.receiving || self.draining)
            && !self.backlog
            && self.in_flight.is_empty()
            && self.replies.is_empty()
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
fn admits(config: &ServerConfig, in_flight: usize, held: usize, request: &ExtendedRequest) -> bool {
    let limit = usize::try_from(config.max_buffered.bytes()).unwrap_or(usize::MAX);
    in_flight < config.max_requests.max(1) && (held == 0 || held.saturating_add(room(request)) <= limit)
}

/// Bytes that a request takes of the memory of all connections: small ones are bounded by their number, and one beyond the
/// largest payload is refused.
fn charge(config: &ServerConfig, request: &ExtendedRequest) -> usize {
    let most = usize::try_from(config.max_payload).unwrap_or(usize::MAX);
    Some(room(request)).filter(|room| *room > COPIED).map_or(0, |room| room.min(most))
}

/// Bytes that a request holds, for its data or its reply.
fn room(request: &ExtendedRequest) -> usize {
    let length = usize::try_from(request.length).unwrap_or(usize::MAX);
    match request.command {
        NBD_CMD_READ | NBD_CMD_WRITE => length,
        NBD_CMD_BLOCK_STATUS if request.has_payload() => length.saturating_add(STATUS_ROOM),
        NBD_CMD_BLOCK_STATUS => STATUS_ROOM,
        _ if request.has_payload() => length,
        _ => 0,
    }
}

/// Bytes that a request carries, one way or the other.
fn carried(request: &ExtendedRequest) -> u64 {
    match request.command {
        NBD_CMD_READ | NBD_CMD_WRITE => request.length,
        _ => 0,
    }
}
