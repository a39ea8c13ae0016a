//! The bytes that data on its way may take, over all disks and jobs of a replicator.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::buffers::Buffers;
use crate::ByteSize;

/// Bytes are counted in pages: a semaphore has no more than 2^29 permits on small machines.
const UNIT: u64 = 4096;

/// A budget of bytes, and the buffers that were made within it; clones share both.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Memory {
    free: Arc<Semaphore>,
    all: u32,
    buffers: Arc<Buffers>,
}

/// Bytes taken from the budget; they go back when it is dropped.
#[derive(Debug)]
pub(in crate::engine) struct Taken {
    _permit: OwnedSemaphorePermit,
}

impl Memory {
    pub(in crate::engine) fn new(budget: ByteSize) -> Self {
        let all = u32::try_from(budget.bytes() / UNIT).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        let permits = usize::try_from(all).expect("28 bits fit");
        Self { free: Arc::new(Semaphore::new(permits)), all, buffers: Arc::default() }
    }

    /// Buffers that are kept are no more than were in use at once, over all disks.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Waits for that many bytes, first come, first served. What is larger than the budget takes all of it.
    pub(in crate::engine) async fn take(&self, bytes: u64) -> Taken {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.all);
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await;
        Taken { _permit: permit.expect("the semaphore is never closed") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn the_budget_bounds_what_is_taken_and_comes_back() {
        let memory = Memory::new(ByteSize::mib(1));
        let first = memory.take(600 << 10).await;
        assert!(memory.take(600 << 10).now_or_never().is_none());
        let second = memory.take(400 << 10).await;
        drop((first, second));
        memory.take(1 << 20).await;
    }

    #[tokio::test]
    async fn a_piece_larger_than_the_budget_has_it_for_itself() {
        let memory = Memory::new(ByteSize::kib(64));
        let all = memory.take(1 << 30).await;
        assert!(memory.take(1).now_or_never().is_none());
        drop(all);
        memory.take(1).await;
    }
}
