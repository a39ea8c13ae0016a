use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use oma_core::traits::{BlockDevice, BlockStatus, DeviceInfo, Durability, InPlace, LeafHasher, Zeroing};
use oma_core::{Error, ErrorKind, Extent, Result, Retry};

use crate::client::Client;

/// A disk as it was at a point in time.
///
/// QEMU refuses every request once the point is lost, with the number that says "invalid request"; this tells what it means.
#[derive(Debug)]
pub(super) struct View(pub(super) Client);

impl View {
    /// What a refusal of a request that is sound means.
    fn lost(&self, operation: &'static str, error: Error) -> Error {
        if !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::PermissionDenied) {
            return error;
        }
        tracing::warn!(error = %error.chain(), "the point in time is lost");
        Error::new(ErrorKind::Unavailable, operation, &self.info().identity).with_retry(Retry::Never).because(
            "the point in time is lost, because what the guest overwrote could not be kept; \
             make room where the machine's monitor is, and run again",
        )
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlockDevice for View {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        self.info().check("read", offset, length)?;
        self.0.read_at(offset, buffer).await.map_err(|error| self.lost("read", error))
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.0.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.0.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.0.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.0.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.0.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.info().check("ask for the status", extent.offset(), extent.length())?;
        self.0.block_status(extent).await.map_err(|error| self.lost("ask for the status", error))
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        self.0.in_place()
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.0.leaf_hasher()
    }
}
