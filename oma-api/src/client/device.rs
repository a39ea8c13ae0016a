use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use oma_core::traits::{
    BlockDevice, BlockStatus, DeviceIdentity, DeviceInfo, Durability, HashedLeaves, InPlace, LeafHasher,
    ReadFrom, Zeroing,
};
use oma_core::{Error, ErrorKind, Extent, Result};

use super::session::Session;

/// Why a device is of no use any more.
#[derive(Debug, thiserror::Error)]
#[error("the volume daemon has closed this volume, or is gone; open it again")]
struct Closed(#[source] Error);

/// A volume or snapshot that is open at a daemon, until its last clone is dropped.
#[derive(Debug)]
pub(super) struct RemoteDevice {
    info: DeviceInfo,
    // Its connections are cut before the volume is closed, so that nothing of it is under way then.
    inner: Arc<dyn BlockDevice>,
    session: Session,
}

impl RemoteDevice {
    /// `inner` is what the daemon serves for as long as the session lasts.
    pub(super) fn new(identity: String, inner: Arc<dyn BlockDevice>, session: Session) -> Self {
        // A session's URI names it only while it lasts: the volume is the same in each.
        let info = DeviceInfo { identity: DeviceIdentity(identity), ..inner.info().clone() };
        Self { info, inner, session }
    }

    /// An export that is gone is a device that is lost: for good, since the next session has another one.
    fn told<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| {
            let is_gone = match error.kind() {
                ErrorKind::NotFound | ErrorKind::Conflict => true,
                ErrorKind::Unavailable => self.session.is_over(),
                _ => false,
            };
            if !is_gone {
                return error;
            }
            let operation = error.operation().to_owned();
            Error::new(ErrorKind::Unavailable, operation, &self.info.identity).with_source(Closed(error))
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlockDevice for RemoteDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        self.told(self.inner.read_at(offset, buffer).await)
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.told(self.inner.write_at(offset, data, durability).await)
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.told(self.inner.write_zeroes(extent, zeroing, durability).await)
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.told(self.inner.zero_fast(extent, zeroing, durability).await)
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.told(self.inner.trim(extent).await)
    }

    async fn flush(&self) -> Result<()> {
        self.told(self.inner.flush().await)
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.told(self.inner.cache(extent).await)
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.told(self.inner.block_status(extent).await)
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        let hasher: &dyn LeafHasher = self;
        self.inner.leaf_hasher().map(|_| hasher)
    }
}

#[async_trait]
impl LeafHasher for RemoteDevice {
    async fn leaf_hashes(&self, extent: Extent, from: ReadFrom) -> Result<HashedLeaves> {
        let Some(hasher) = self.inner.leaf_hasher() else {
            return Err(Error::new(ErrorKind::Unsupported, "hash leaves", &self.info.identity));
        };
        self.told(hasher.leaf_hashes(extent, from).await)
    }
}
