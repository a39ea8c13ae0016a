//! What a piece must have before it is read: the rights of the way, and memory.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::buffers::Buffers;
use super::memory::{Memory, Taken};
use crate::engine::limits::{Admitted, Limit, Limits, Way};
use crate::record::SourceVm;
use crate::{ByteSize, DiskKey};

/// What a replicator may use, over all its jobs; clones share it.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Budget {
    memory: Memory,
    limits: Option<Limits>,
}

impl Budget {
    pub(in crate::engine) fn new(memory: ByteSize) -> Self {
        Self { memory: Memory::new(memory), limits: None }
    }

    pub(in crate::engine) fn with_limits(self, limits: Limits) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// The way of one disk of a VM.
    pub(in crate::engine) fn admission(&self, vm: &SourceVm, key: &DiskKey) -> Admission {
        let location = vm.disks.iter().find(|disk| disk.key == *key).map_or("", |disk| &disk.location);
        let way = self.limits.as_ref().map(|limits| limits.on_the_way(&vm.identity.endpoint, location));
        Admission::new(way.unwrap_or_default(), self.memory.clone())
    }
}

/// What the pieces of one disk pass through.
#[derive(Debug)]
pub(in crate::engine) struct Admission {
    way: Way,
    memory: Memory,
    /// One piece of a disk waits at a time: so disks take turns, however deep their pipelines are.
    gate: Mutex<()>,
}

/// The right to read one piece.
#[derive(Debug)]
pub(in crate::engine) struct Ticket {
    _limits: Vec<Admitted>,
    _memory: Option<Taken>,
}

impl Admission {
    pub(in crate::engine) fn new(way: Way, memory: Memory) -> Self {
        Self { way, memory, gate: Mutex::new(()) }
    }

    /// That of devices that no limit is for.
    pub(in crate::engine) fn without_limits(memory: ByteSize) -> Self {
        Self::new(Way::default(), Memory::new(memory))
    }

    /// Whether no limit is on the way: pieces need not be small, so that others come between.
    pub(super) const fn is_unlimited(&self) -> bool {
        self.way.source.is_empty() && self.way.link.is_none()
    }

    pub(super) fn buffers(&self) -> &Buffers {
        self.memory.buffers()
    }

    /// Waits for the right to move `bytes`, which take `memory` meanwhile.
    pub(in crate::engine) async fn enter(&self, bytes: u64, memory: u64) -> Ticket {
        self.pass(self.way.source.iter().chain(&self.way.link), bytes, memory).await
    }

    /// Waits for the right to have `bytes` read where they are: nothing of them comes over the link.
    pub(in crate::engine) async fn enter_at_source(&self, bytes: u64, memory: u64) -> Ticket {
        self.pass(self.way.source.iter(), bytes, memory).await
    }

    async fn pass(&self, way: impl Iterator<Item = &Arc<Limit>> + Send, bytes: u64, memory: u64) -> Ticket {
        let _gate = self.gate.lock().await;
        let mut limits = Vec::new();
        for limit in way {
            limits.push(limit.enter(bytes).await);
            // What came back at once must not all go to the disk that looks first.
            tokio::task::yield_now().await;
        }
        let memory = match memory {
            0 => None,
            _ => Some(self.memory.take(memory).await),
        };
        Ticket { _limits: limits, _memory: memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::LimitConfig;
    use futures_util::stream::{FuturesUnordered, StreamExt as _};
    use std::time::Duration;

    /// Moves pieces of 1 MiB with so many under way, for a minute; answers how many.
    async fn disk(admission: Admission, depth: usize) -> u32 {
        let mut flight = FuturesUnordered::new();
        let piece = || async {
            let _ticket = admission.enter(1 << 20, 1 << 20).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let mut moved = 0;
        let minute = tokio::time::sleep(Duration::from_secs(60));
        let mut minute = std::pin::pin!(minute);
        loop {
            while flight.len() < depth {
                flight.push(piece());
            }
            tokio::select! {
                () = &mut minute => return moved,
                _ = flight.next() => moved += 1,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn disks_of_any_depth_take_turns() {
        let configs = [
            LimitConfig { bandwidth: Some(ByteSize::mib(20)), ..LimitConfig::default() },
            LimitConfig { operations: Some(6), ..LimitConfig::default() },
            LimitConfig { bytes_in_flight: Some(ByteSize::mib(6)), ..LimitConfig::default() },
        ];
        for config in configs {
            let limit = Arc::new(Limit::new(&config).unwrap());
            let way = Way { source: vec![limit], link: None };
            let admission = || Admission::new(way.clone(), Memory::new(ByteSize::gib(1)));
            let (deep, shallow) = tokio::join!(disk(admission(), 64), disk(admission(), 8));
            let share = f64::from(shallow) / f64::from(deep + shallow);
            assert!((0.45..0.55).contains(&share), "{config:?}: {deep} and {shallow}");
        }
    }
}
