//! Reads that wait for the disk without a thread that waits: io_uring.
//!
//! ```text
//!  read_at ── not in the page cache ── this thread's ring ── the kernel reads ── eventfd ── the runtime wakes the reader
//!                 └ no ring, ring full, short read, any error ── pread on a blocking thread
//! ```
//!
//! A ring belongs to a runtime of one thread and is made at its first such read. It keeps what the kernel writes to: whoever
//! goes away leaves the buffer and the open file there until the kernel is done.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use oma_core::page_aligned;
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id, RuntimeFlavor};

use super::medium::Medium;

/// Reads under way on one ring; more go to the blocking threads.
const MOST: u32 = 128;

thread_local! {
    /// The runtime that was on this thread last, and its ring if it could be made.
    static RING: RefCell<Option<(Id, Option<Arc<Ring>>)>> = const { RefCell::new(None) };
}

/// The ring of the runtime on this thread; none where several threads share it or the kernel gives none.
pub(super) fn ring() -> Option<Arc<Ring>> {
    let runtime = Handle::try_current().ok()?;
    if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread {
        return None;
    }
    RING.with_borrow_mut(|last| match last {
        Some((id, ring)) if *id == runtime.id() => ring.clone(),
        _ => {
            let made = Ring::start(&runtime);
            if let Err(error) = &made {
                tracing::debug!(%error, "no io_uring here: blocking threads wait for the disk");
            }
            let ring = made.ok();
            *last = Some((runtime.id(), ring.clone()));
            ring
        }
    })
}

pub(super) struct Ring {
    state: Mutex<State>,
}

struct State {
    uring: IoUring,
    /// By the number that the kernel gives back.
    slots: Vec<Option<Slot>>,
    /// Nobody sees ends any more, or the kernel takes no more reads.
    closed: bool,
}

/// A read under way, or one whose reader has not come yet.
struct Slot {
    /// The kernel writes to it until there is a result.
    buffer: BytesMut,
    /// Keeps the file open as long.
    _medium: Arc<Medium>,
    result: Option<i32>,
    abandoned: bool,
    waker: Option<Waker>,
}

impl Ring {
    fn start(runtime: &Handle) -> io::Result<Arc<Self>> {
        // What has ended is told when this thread is in the kernel anyway.
        let uring = IoUring::builder().setup_coop_taskrun().build(MOST)?;
        let risen = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        uring.submitter().register_eventfd(risen.as_raw_fd())?;
        #[allow(unsafe_code, reason = "tokio cannot know whose descriptor it is")]
        // SAFETY: it is the value's own, which closes it when it is dropped.
        let risen = unsafe { AsyncFd::register_with_interest(risen, Interest::READABLE) }?;
        let slots = (0..MOST).map(|_| None).collect();
        let ring = Arc::new(Self { state: Mutex::new(State { uring, slots, closed: false }) });
        runtime.spawn(see_ends(risen, Closing(ring.clone())));
        Ok(ring)
    }

    /// Reads on behind the `have` bytes that are in the buffer already; the buffer and how much it has then.
    ///
    /// That may be less than all, and even less than before: the rest is for somebody who can tell why.
    pub(super) async fn read(
        self: Arc<Self>,
        medium: &Arc<Medium>,
        offset: u64,
        buffer: BytesMut,
        have: usize,
    ) -> (BytesMut, usize) {
        let length = buffer.len();
        let read = match self.begin(medium, offset, buffer, have) {
            Ok(slot) => Read { ring: self, slot },
            Err(buffer) => return (buffer, have),
        };
        let ended = std::future::poll_fn(|cx| read.poll(cx)).await;
        match ended.map(|(buffer, result)| (buffer, usize::try_from(result))) {
            Some((buffer, Ok(more))) => (buffer, have + more),
            Some((buffer, Err(_))) => (buffer, have),
            // The ring keeps the buffer, which the kernel may yet write to.
            None => (page_aligned(length), 0),
        }
    }

    /// Hands a read to the kernel; gives the buffer back when there is no room.
    fn begin(
        &self,
        medium: &Arc<Medium>,
        offset: u64,
        mut buffer: BytesMut,
        have: usize,
    ) -> Result<usize, BytesMut> {
        let mut state = self.lock();
        let free = state.slots.iter().position(Option::is_none).filter(|_| !state.closed);
        let rest = u32::try_from(buffer.len() - have).ok();
        let place = u64::try_from(have).ok().and_then(|have| offset.checked_add(have));
        let (Some(free), Some(rest), Some(place)) = (free, rest, place) else { return Err(buffer) };
        let Ok(number) = u64::try_from(free) else { return Err(buffer) };
        let start = buffer[have..].as_mut_ptr();
        let entry = opcode::Read::new(Fd(medium.file.as_raw_fd()), start, rest).offset(place).build();
        #[allow(unsafe_code, reason = "io_uring takes addresses")]
        // SAFETY: the buffer and the open file are kept in the slot until the kernel gave a result, also when the reader or
        // the ring goes away.
        let pushed = unsafe { state.uring.submission().push(&entry.user_data(number)) };
        if pushed.is_err() {
            return Err(buffer);
        }
        let _medium = medium.clone();
        state.slots[free] = Some(Slot { buffer, _medium, result: None, abandoned: false, waker: None });
        if let Err(error) = state.uring.submit() {
            // Whether the kernel has it, nobody knows: it stays where it is.
            tracing::debug!(%error, "io_uring takes no more reads");
            state.closed = true;
        }
        Ok(free)
    }

    /// Takes note of what has ended and wakes who waits for it.
    fn note_ends(&self) {
        let mut state = self.lock();
        let (left, wakers) = state.note_ends();
        drop(state);
        // Not under the lock: a waker may run anything, and the last one of a file closes it.
        drop(left);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Slots that nobody asks for any more, and readers to be woken.
    fn note_ends(&mut self) -> (Vec<Slot>, Vec<Waker>) {
        let (mut left, mut wakers) = (Vec::new(), Vec::new());
        for end in self.uring.completion() {
            let found = usize::try_from(end.user_data()).ok().and_then(|number| self.slots.get_mut(number));
            let Some(place) = found else { continue };
            let Some(slot) = place else { continue };
            slot.result = Some(end.result());
            wakers.extend(slot.waker.take());
            if slot.abandoned {
                left.extend(place.take());
            }
        }
        (left, wakers)
    }

    fn are_under_way(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.result.is_none())
    }
}

impl Drop for Ring {
    /// Waits for the kernel: it writes to the buffers.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        while state.are_under_way() {
            match state.uring.submit_and_wait(1) {
                Ok(_) => drop(state.note_ends()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "buffers that the kernel may write to are never freed");
                    std::mem::forget(std::mem::take(&mut state.slots));
                }
            }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// A reader's claim on its slot.
struct Read {
    ring: Arc<Ring>,
    slot: usize,
}

impl Read {
    /// The buffer and the kernel's result; nothing when nobody will tell of its end.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<(BytesMut, i32)>> {
        let mut state = self.ring.lock();
        let closed = state.closed;
        match &mut state.slots[self.slot] {
            Some(Slot { result: Some(result), buffer, .. }) => {
                Poll::Ready(Some((std::mem::take(buffer), *result)))
            }
            Some(slot) if !closed => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(None),
        }
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        let mut state = self.ring.lock();
        let left = match &mut state.slots[self.slot] {
            Some(slot) if slot.result.is_none() => {
                slot.abandoned = true;
                None
            }
            ended => ended.take(),
        };
        drop(state);
        drop(left);
    }
}

/// Sees reads end as long as the runtime lives.
async fn see_ends(risen: AsyncFd<OwnedFd>, closing: Closing) {
    while let Ok(mut ready) = risen.readable().await {
        // Before the look: what ends afterwards raises it again.
        ready.clear_ready();
        closing.0.note_ends();
    }
}

/// Closes its ring when the runtime goes.
struct Closing(Arc<Ring>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let wakers: Vec<_> = state.slots.iter_mut().flatten().filter_map(|slot| slot.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
