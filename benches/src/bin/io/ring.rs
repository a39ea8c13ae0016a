//! io_uring under a runtime of one thread: requests are gathered and handed over at once, and an eventfd tells of their ends.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use io_uring::squeue::Flags;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::ReadWriteFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Result;
use crate::row::Way;

/// What the kernel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Read,
    /// A write that is on the disk when it is done.
    Write,
    /// The same as two requests, the second begins when the first has ended.
    WriteAndSync,
}

/// A ring for one file.
pub(crate) struct Ring {
    file: File,
    /// Hand over each request at once, not those of all workers together.
    alone: bool,
    uring: RefCell<IoUring>,
    /// Rises when there is something to reap.
    risen: AsyncFd<OwnedFd>,
    slots: Vec<RefCell<Slot>>,
    /// Requests whose end was not seen yet.
    under_way: Cell<usize>,
}

/// A worker's request.
#[derive(Default)]
struct Slot {
    /// What the kernel reads or writes, as long as an end is awaited.
    buffer: BytesMut,
    awaited: u32,
    failure: Option<io::Error>,
    waker: Option<Waker>,
}

impl Ring {
    /// For so many workers, on this thread.
    ///
    /// # Errors
    /// io_uring is forbidden or older than Linux 6.1.
    pub(crate) fn new(file: File, workers: usize, way: Way) -> io::Result<Self> {
        let entries = u32::try_from(2 * workers).map_err(io::Error::other)?.next_power_of_two();
        let alone = way == Way::Alone;
        let mut builder = IoUring::builder();
        if alone {
            builder.setup_coop_taskrun();
        } else {
            // Nobody is interrupted: what has ended waits until this thread asks.
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }
        let uring = builder.build(entries)?;
        let risen = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        uring.submitter().register_eventfd(risen.as_raw_fd())?;
        let slots = (0..workers).map(|_| RefCell::default()).collect();
        #[allow(unsafe_code, reason = "tokio cannot know whose descriptor it is")]
        // SAFETY: it is the value's own, which closes it when it is dropped.
        let risen = unsafe { AsyncFd::register_with_interest(risen, Interest::READABLE) }?;
        Ok(Self { file, alone, uring: RefCell::new(uring), risen, slots, under_way: Cell::new(0) })
    }

    /// Does a job for a worker, who has no other under way.
    pub(crate) async fn run(
        &self,
        worker: usize,
        job: Job,
        place: u64,
        buffer: BytesMut,
    ) -> io::Result<BytesMut> {
        self.push(worker, job, place, buffer)?;
        if self.alone {
            self.uring.borrow().submit()?;
        }
        poll_fn(|cx| {
            let mut slot = self.slots[worker].borrow_mut();
            if slot.awaited > 0 {
                slot.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(match slot.failure.take() {
                None => Ok(std::mem::take(&mut slot.buffer)),
                Some(error) => Err(error),
            })
        })
        .await
    }

    fn push(&self, worker: usize, job: Job, place: u64, mut buffer: BytesMut) -> io::Result<()> {
        let (file, start) = (Fd(self.file.as_raw_fd()), buffer.as_mut_ptr());
        let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
        let dsync = i32::try_from(ReadWriteFlags::DSYNC.bits()).map_err(io::Error::other)?;
        let write = opcode::Write::new(file, start, length).offset(place);
        let entries = match job {
            Job::Read => [Some(opcode::Read::new(file, start, length).offset(place).build()), None],
            Job::Write => [Some(write.rw_flags(dsync).build()), None],
            Job::WriteAndSync => [
                Some(write.build().flags(Flags::IO_LINK)),
                Some(opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build()),
            ],
        };
        let mut slot = self.slots[worker].borrow_mut();
        assert_eq!(slot.awaited, 0, "worker {worker} has a request under way");
        // The kernel's until the last end was seen: the table keeps it even when the worker goes away.
        slot.buffer = buffer;
        for (part, entry) in (0..).zip(entries.into_iter().flatten()) {
            let named = u64::try_from(worker).map_err(io::Error::other)? << 1 | part;
            self.push_entry(&entry.user_data(named))?;
            slot.awaited += 1;
            self.under_way.set(self.under_way.get() + 1);
        }
        Ok(())
    }

    fn push_entry(&self, entry: &squeue::Entry) -> io::Result<()> {
        let mut uring = self.uring.borrow_mut();
        #[allow(unsafe_code, reason = "io_uring takes addresses")]
        // SAFETY: the file and, in the table, the buffer live until the ring is dropped, which waits for all ends.
        let pushed = unsafe { uring.submission().push(entry) };
        pushed.map_err(io::Error::other)
    }

    /// Polls the workers to their end.
    pub(crate) async fn drive<F>(&self, mut workers: FuturesUnordered<F>) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        poll_fn(|cx| self.poll_drive(cx, &mut workers)).await
    }

    fn poll_drive(
        &self,
        cx: &mut Context<'_>,
        workers: &mut (impl Stream<Item = Result<()>> + Unpin),
    ) -> Poll<Result<()>> {
        loop {
            // Before the workers, so that what they ask for next goes out with what the others do.
            while let Poll::Ready(risen) = self.risen.poll_read_ready(cx) {
                risen?.clear_ready();
                self.turn()?;
            }
            while let Poll::Ready(ended) = workers.poll_next_unpin(cx) {
                match ended {
                    Some(ended) => ended?,
                    None => return Poll::Ready(Ok(())),
                }
            }
            let nothing = self.uring.borrow_mut().submission().is_empty();
            if nothing || self.turn()? == 0 {
                return Poll::Pending;
            }
        }
    }

    /// Hands over what was gathered and sees what has ended; how much that was.
    fn turn(&self) -> io::Result<usize> {
        self.uring.borrow().submit()?;
        self.reap()
    }

    fn reap(&self) -> io::Result<usize> {
        let mut uring = self.uring.borrow_mut();
        let mut count = 0;
        for end in uring.completion() {
            count += 1;
            self.under_way.set(self.under_way.get() - 1);
            let worker = usize::try_from(end.user_data() >> 1).map_err(io::Error::other)?;
            let mut slot = self.slots[worker].borrow_mut();
            slot.awaited -= 1;
            let is_sync = end.user_data() & 1 == 1;
            let expected = if is_sync { 0 } else { slot.buffer.len() };
            let failure = match usize::try_from(end.result()) {
                Ok(length) if length == expected => None,
                Ok(length) => Some(io::Error::other(format!("{length} of {expected} bytes"))),
                Err(_) => Some(io::Error::from_raw_os_error(-end.result())),
            };
            // The first one is the cause of the second.
            slot.failure = slot.failure.take().or(failure);
            if slot.awaited == 0
                && let Some(waker) = slot.waker.take()
            {
                waker.wake();
            }
        }
        Ok(count)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.under_way.get() > 0 {
            let waited = self.uring.borrow().submit_and_wait(1);
            if waited.and_then(|_| self.reap()).is_err() {
                // Better to leak them than to free what the kernel may write to.
                std::mem::take(&mut self.slots).into_iter().for_each(std::mem::forget);
                return;
            }
        }
    }
}
