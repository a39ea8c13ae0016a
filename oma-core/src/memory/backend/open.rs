//! Volumes and snapshots while they are open.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::State;
use crate::memory::faulty::FaultyDevice;
use crate::traits::{Access, BlockDevice, BlockStatus, DeviceInfo, Durability, InPlace, LeafHasher, Zeroing};
use crate::{Extent, Result, SnapshotId, VolumeId};

/// The right to use an open volume; ends when it is dropped (L06).
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) opened: Opened,
}

/// What was opened.
#[derive(Debug)]
pub(super) enum Opened {
    Volume(VolumeId, Access),
    Snapshot(SnapshotId),
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.opened {
            Opened::Volume(id, access) => {
                let Some(entry) = state.volumes.get_mut(id) else { return };
                match access {
                    Access::ReadOnly => entry.readers = entry.readers.saturating_sub(1),
                    Access::ReadWrite => entry.writer = false,
                }
            }
            Opened::Snapshot(id) => {
                let Some(frozen) = state.frozen.get_mut(id) else { return };
                frozen.readers = frozen.readers.saturating_sub(1);
            }
        }
    }
}

/// An open volume or snapshot holds its lock as long as it lives.
#[derive(Debug)]
pub(super) struct OpenVolume {
    // Goes first: whoever waits until the device is gone finds the volume closed.
    pub(super) _lock: Lock,
    pub(super) device: FaultyDevice,
}

#[async_trait]
impl BlockDevice for OpenVolume {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        self.device.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.device.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.device.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.device.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.device.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.device.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.device.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.device.block_status(extent).await
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        self.device.in_place()
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.device.leaf_hasher()
    }
}
