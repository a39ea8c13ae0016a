use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::traits::{BlockDevice, BlockStatus, DeviceInfo, Durability, InPlace, LeafHasher, Zeroing};
use crate::{Extent, Result};

/// Holds the calls of a [`HeldDevice`] until they are released. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Hold(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    held: bool,
    waiting: usize,
    wakers: Vec<Waker>,
}

impl Hold {
    /// Lets calls wait from now on.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Lets all calls go on.
    pub fn release(&self) {
        let mut state = self.state();
        state.held = false;
        state.wake();
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Waits until so many calls wait.
    pub async fn reached(&self, calls: usize) {
        poll_fn(|cx| self.state().poll_until(cx, |state| state.waiting >= calls)).await;
    }

    async fn pass(&self) {
        let _waiting = Waiting::new(self);
        poll_fn(|cx| self.state().poll_until(cx, |state| !state.held)).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is complete after every line that changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_until(&mut self, cx: &Context<'_>, reached: impl Fn(&Self) -> bool) -> Poll<()> {
        if reached(self) {
            return Poll::Ready(());
        }
        self.wakers.push(cx.waker().clone());
        Poll::Pending
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

/// One call that waits; a dropped one does so no longer.
struct Waiting<'a>(&'a Hold);

impl<'a> Waiting<'a> {
    fn new(hold: &'a Hold) -> Self {
        let mut state = hold.state();
        state.waiting += 1;
        state.wake();
        Self(hold)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// A device whose calls wait while its [`Hold`] holds them, and otherwise does what the inner one does.
#[derive(Debug)]
pub struct HeldDevice {
    inner: Arc<dyn BlockDevice>,
    hold: Hold,
}

impl HeldDevice {
    /// Wraps a device.
    #[must_use]
    pub fn new(inner: Arc<dyn BlockDevice>, hold: Hold) -> Self {
        Self { inner, hold }
    }
}

#[async_trait]
impl BlockDevice for HeldDevice {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        self.hold.pass().await;
        self.inner.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.hold.pass().await;
        self.inner.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.hold.pass().await;
        self.inner.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.hold.pass().await;
        self.inner.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.hold.pass().await;
        self.inner.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.hold.pass().await;
        self.inner.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.hold.pass().await;
        self.inner.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.hold.pass().await;
        self.inner.block_status(extent).await
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        None
    }
}
