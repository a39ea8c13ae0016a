use std::os::fd::BorrowedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use oma_core::traits::{BlockDevice, BlockStatus, DeviceInfo, Durability, InPlace, LeafHasher, Zeroing};
use oma_core::{Extent, ExtentSet, Result};

use super::{ContextStatus, MarkedExtents, MetaContext};
use crate::protocol::{NBD_STATE_DIRTY, OMA_DIRTY, OMA_STATE_DIRTY, QEMU_DIRTY_BITMAP};

/// Changes are recorded in units of so many bytes, as QEMU does by default.
const UNIT: u64 = 64 << 10;

/// A device that records what is changed through it, and tells as `qemu:dirty-bitmap:NAME` or `x-oma:dirty`.
///
/// It stands in for a hypervisor where there is none. What was changed is forgotten with the value: it is no proof of
/// anything after a restart. A write counts as a change even if it failed.
#[derive(Debug)]
pub struct DirtyBitmap {
    device: Arc<dyn BlockDevice>,
    changed: MarkedExtents,
}

impl DirtyBitmap {
    /// Records the changes of `device` from now on, under the bitmap's name.
    #[must_use]
    pub fn new(name: &str, device: Arc<dyn BlockDevice>) -> Arc<Self> {
        let changed = MarkedExtents::new(format!("{QEMU_DIRTY_BITMAP}{name}"), NBD_STATE_DIRTY);
        Arc::new(Self { device, changed })
    }

    /// Records the changes of `device` from now on, as `x-oma:dirty`.
    #[must_use]
    pub fn of_epoch(device: Arc<dyn BlockDevice>) -> Arc<Self> {
        Arc::new(Self { device, changed: MarkedExtents::new(OMA_DIRTY, OMA_STATE_DIRTY) })
    }

    /// What was changed since it was made or cleared.
    #[must_use]
    pub fn dirty(&self) -> ExtentSet {
        self.changed.extents()
    }

    /// Forgets all changes and gives them back: the next ones count from here.
    pub fn clear(&self) -> ExtentSet {
        self.changed.replace(ExtentSet::new())
    }

    fn inner(&self) -> &dyn InPlace {
        self.device.in_place().expect("it was there when this device's own was asked for")
    }

    fn mark(&self, extent: Option<Extent>) {
        let Some(extent) = extent else { return };
        let start = extent.offset() / UNIT * UNIT;
        let end = extent.end().div_ceil(UNIT).saturating_mul(UNIT).min(self.info().capacity.bytes());
        if let Some(units) = Extent::between(start, end) {
            self.changed.mark(units);
        }
    }

    /// Marks an extent before and after its change: [`DirtyBitmap::clear`] may come between.
    async fn changing(
        &self,
        extent: Option<Extent>,
        change: impl Future<Output = Result<()>> + Send,
    ) -> Result<()> {
        self.mark(extent);
        let outcome = change.await;
        self.mark(extent);
        outcome
    }
}

#[async_trait]
impl MetaContext for DirtyBitmap {
    fn name(&self) -> &str {
        self.changed.name()
    }

    fn is_computed(&self) -> bool {
        false
    }

    async fn status(&self, extent: Extent) -> Result<Vec<ContextStatus>> {
        self.changed.status(extent).await
    }
}

#[async_trait]
impl BlockDevice for DirtyBitmap {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        self.device.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        let length = u64::try_from(data.len()).expect("a buffer is smaller than 2^64");
        let extent = self.info().check_change("write", offset, length)?;
        self.changing(extent, self.device.write_at(offset, data, durability)).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let checked = self.info().check_change("write zeroes", extent.offset(), extent.length())?;
        self.changing(checked, self.device.write_zeroes(extent, zeroing, durability)).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let checked = self.info().check_change("write zeroes fast", extent.offset(), extent.length())?;
        self.changing(checked, self.device.zero_fast(extent, zeroing, durability)).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        let checked = self.info().check_change("trim", extent.offset(), extent.length())?;
        self.changing(checked, self.device.trim(extent)).await
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
        self.device.in_place().map(|_| -> &dyn InPlace { self })
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.device.leaf_hasher()
    }
}

impl InPlace for DirtyBitmap {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.inner().read(offset, buffer)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let length = u64::try_from(data.len()).expect("a buffer is smaller than 2^64");
        let extent = self.info().check_change("write", offset, length)?;
        self.mark(extent);
        let outcome = self.inner().write(offset, data);
        self.mark(extent);
        outcome
    }

    fn lend(&self, extent: Extent) -> Option<BorrowedFd<'_>> {
        self.inner().lend(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::ByteSize;
    use oma_core::memory::{HeldDevice, Hold, MemoryDevice};

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    fn bitmap() -> Arc<DirtyBitmap> {
        DirtyBitmap::new("b0", Arc::new(MemoryDevice::new("m", ByteSize::new(5 * UNIT + 7))))
    }

    #[tokio::test]
    async fn changes_are_told_in_whole_units_and_never_beyond_the_end() {
        let bitmap = bitmap();
        bitmap.write_at(UNIT + 5, Bytes::from_static(b"x"), Durability::Cached).await.unwrap();
        bitmap.write_zeroes(extent(5 * UNIT, 7), Zeroing::Punch, Durability::Cached).await.unwrap();
        bitmap.trim(extent(3 * UNIT - 1, 2)).await.unwrap();
        let all = bitmap.status(extent(0, 5 * UNIT + 7)).await.unwrap();
        let found: Vec<_> = all.iter().map(|s| (s.extent.offset(), s.extent.length(), s.flags)).collect();
        assert_eq!(found, [(0, UNIT, 0), (UNIT, 3 * UNIT, 1), (4 * UNIT, UNIT, 0), (5 * UNIT, 7, 1)]);
    }

    /// Who clears the bitmap and reads then may read what was there before a change that is under way.
    #[tokio::test]
    async fn l10_a_change_is_told_while_it_is_under_way_and_again_when_it_is_over() {
        let hold = Hold::default();
        let held = HeldDevice::new(Arc::new(MemoryDevice::new("m", ByteSize::new(UNIT))), hold.clone());
        let bitmap = DirtyBitmap::new("b0", Arc::new(held));
        hold.hold();
        let (written, ()) =
            tokio::join!(bitmap.write_at(0, Bytes::from_static(b"x"), Durability::Cached), async {
                hold.reached(1).await;
                assert_eq!(bitmap.clear().bytes().bytes(), UNIT, "it may be there already");
                hold.release();
            });
        written.unwrap();
        assert_eq!(bitmap.dirty().bytes().bytes(), UNIT, "it may not have been there yet");
    }

    #[tokio::test]
    async fn reads_refused_writes_and_cleared_changes_are_not_told() {
        let bitmap = bitmap();
        bitmap.read_at(0, BytesMut::zeroed(10)).await.unwrap();
        bitmap.write_at(5 * UNIT, Bytes::from_static(b"too long"), Durability::Cached).await.unwrap_err();
        assert!(bitmap.dirty().is_empty());
        bitmap.write_at(0, Bytes::from_static(b"x"), Durability::Cached).await.unwrap();
        assert_eq!(bitmap.clear().iter().collect::<Vec<_>>(), [extent(0, UNIT)]);
        assert!(bitmap.dirty().is_empty());
    }
}
