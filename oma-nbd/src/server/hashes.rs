use std::sync::Arc;

use async_trait::async_trait;
use oma_core::traits::{BlockDevice, ReadFrom};
use oma_core::tree::{LEAF, LeafHash, LeafRun, leaf_hashes};
use oma_core::{Error, ErrorKind, Extent, Result};

use super::{ContextStatus, MetaContext};
use crate::leaves::{LARGEST_BLOCK, quarters, told, words};
use crate::protocol::OMA_BLAKE3;

/// `x-oma:blake3`: hashes of leaves, made where the data is.
///
/// One request hashes no more than [`AT_ONCE`](oma_core::tree::AT_ONCE) bytes.
#[derive(Debug)]
pub(super) struct Hashes {
    device: Arc<dyn BlockDevice>,
}

impl Hashes {
    /// The hashes of a device; `None` when its blocks are too large to tell them.
    pub(super) fn of(device: &Arc<dyn BlockDevice>) -> Option<Arc<dyn MetaContext>> {
        (device.info().block_sizes.minimum <= LARGEST_BLOCK)
            .then(|| -> Arc<dyn MetaContext> { Arc::new(Self { device: device.clone() }) })
    }

    fn tell(&self, run: &LeafRun, told: &mut Vec<ContextStatus>) {
        if run.hash == LeafHash::of_zeroes(run.extent.length().min(LEAF)) {
            told.push(ContextStatus { extent: run.extent, flags: 0 });
            return;
        }
        for leaf in run.extent.pieces(LEAF) {
            let parts = quarters(leaf, self.device.info().block_sizes.minimum);
            let status = parts.into_iter().flatten().zip(words(run.hash.0));
            told.extend(status.map(|(extent, flags)| ContextStatus { extent, flags }));
        }
    }
}

#[async_trait]
impl MetaContext for Hashes {
    fn name(&self) -> &str {
        OMA_BLAKE3
    }

    fn is_computed(&self) -> bool {
        true
    }

    async fn status(&self, extent: Extent) -> Result<Vec<ContextStatus>> {
        let whole = told(extent, self.device.info().block_sizes.minimum).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "hash", &self.device.info().identity)
                .because(format!("the first leaf of {extent} has fewer than four blocks; read it"))
        })?;
        let found = leaf_hashes(&*self.device, whole, ReadFrom::Anywhere).await?;
        let mut told = Vec::new();
        found.runs.iter().for_each(|run| self.tell(run, &mut told));
        Ok(told)
    }
}
