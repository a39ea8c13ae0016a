//! The disk of the demo, and what happens to it.

use std::path::Path;

use bytes::Bytes;
use oma_core::traits::{BlockDevice, Durability, Zeroing};
use oma_core::{ByteSize, Extent, Result};
use oma_examples::{SampleDisk, noise};

use oma_examples::failure::io_error;

const MIB: u64 = 1 << 20;

/// Makes it, away from the threads that serve connections.
pub(super) async fn make(path: &Path, size: ByteSize) -> Result<SampleDisk> {
    let target = path.to_owned();
    let made = tokio::task::spawn_blocking(move || SampleDisk::make(&target, size, 1)).await;
    made.map_err(std::io::Error::other).flatten().map_err(|error| io_error("make", path.display(), error))
}

/// A running VM for a moment: writes over data, into a hole and over zeroes, zeroes data, flushes.
///
/// Answers how many bytes it changed; each extent is whole units of a dirty bitmap.
pub(super) async fn change(device: &dyn BlockDevice) -> Result<ByteSize> {
    let middle = device.info().capacity.bytes() / 2 / (4 * MIB) * (4 * MIB);
    let mut changed = 0;
    for (offset, length) in [(MIB / 2, MIB), (middle + 2 * MIB, MIB / 4), (middle + 3 * MIB, MIB / 2)] {
        let data = noise(offset, usize::try_from(length).expect("a write fits memory"));
        device.write_at(offset, Bytes::from(data), Durability::Cached).await?;
        changed += length;
    }
    if let Some(extent) = Extent::between(8 * MIB, 9 * MIB) {
        device.write_zeroes(extent, Zeroing::Punch, Durability::Cached).await?;
        changed += extent.length();
    }
    device.flush().await?;
    Ok(ByteSize::new(changed))
}
