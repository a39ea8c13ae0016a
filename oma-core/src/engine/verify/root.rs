use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::engine::compare::{MOST_TASKS, STRETCH, hash_all, on_a_task};
use crate::engine::config::ReplicateConfig;
use crate::traits::{BlockDevice, ReadFrom};
use crate::tree::{TreeBuilder, TreeRoot};
use crate::{ByteSize, Error, ErrorKind, Extent, Result};

/// The root of the hash tree over the first bytes of a device: what a verification report names of a whole disk.
///
/// # Errors
/// `Invalid` when the device is smaller; what it answers; `Cancelled` once stopped.
pub async fn tree_root(
    device: &Arc<dyn BlockDevice>,
    capacity: ByteSize,
    config: &ReplicateConfig,
    stop: &CancellationToken,
) -> Result<TreeRoot> {
    device.info().check("hash", 0, capacity.bytes())?;
    let stretches: Vec<_> = Extent::between(0, capacity.bytes()).into_iter().collect();
    let mut hashed = stream::iter(stretches.into_iter().flat_map(|whole| whole.pieces(STRETCH)))
        .map(|extent| {
            let (device, retry, stop) = (device.clone(), config.retry, stop.clone());
            on_a_task(extent, async move {
                if stop.is_cancelled() {
                    return Err(Error::new(ErrorKind::Cancelled, "hash", extent).because("it was stopped"));
                }
                hash_all(&*device, extent, Some(ReadFrom::Anywhere), &retry, &stop).await
            })
        })
        .buffered(config.in_flight.clamp(1, MOST_TASKS));
    let mut tree = TreeBuilder::default();
    while let Some((runs, _)) = hashed.try_next().await? {
        runs.iter().for_each(|run| tree.push_many(run.hash, run.leaves()));
    }
    Ok(tree.root(capacity))
}
