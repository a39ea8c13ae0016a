//! Hashes of leaves: made by the server where it offers them, so that only hashes cross the link.

use async_trait::async_trait;
use bytes::BytesMut;
use oma_core::traits::{BlockDevice, HashedLeaves, LeafHasher, ReadFrom, ReadManner};
use oma_core::tree::{LEAF, LeafHash, LeafRun, push_run, zero_run};
use oma_core::{Extent, Result};

use super::Client;
use super::error::{Failure, Violation};
use super::status::MetaStatus;
use crate::leaves::{LARGEST_BLOCK, hash, quarters, told};
use crate::protocol::{Headers, OMA_BLAKE3};

impl Client {
    /// Whether the server makes hashes.
    pub(super) fn has_hashes(&self) -> bool {
        let export = self.pool.export();
        export.headers == Headers::Extended
            && export.context(OMA_BLAKE3).is_some()
            && export.block_sizes.minimum <= LARGEST_BLOCK
    }

    /// Asks the server for the hashes of leaves that it can tell.
    async fn ask_hashes(&self, extent: Extent) -> Result<Vec<LeafRun>, Failure> {
        let flags = self.status(OMA_BLAKE3, extent).await?;
        let found = leaves(extent, &flags, self.info.block_sizes.minimum);
        if found.is_empty() {
            return Err(Violation::Status("an answer that ends before the first leaf does").into());
        }
        Ok(found)
    }
}

#[async_trait]
impl LeafHasher for Client {
    async fn leaf_hashes(&self, extent: Extent, _from: ReadFrom) -> Result<HashedLeaves> {
        self.info.check("hash", extent.offset(), extent.length())?;
        let runs = match told(extent, self.info.block_sizes.minimum) {
            Some(whole) => self.ask_hashes(whole).await.map_err(|failure| self.failed("hash", failure))?,
            None => {
                let leaf = extent.pieces(LEAF).next().unwrap_or(extent);
                let length = usize::try_from(leaf.length()).expect("a leaf fits memory");
                let bytes = self.read_at(leaf.offset(), BytesMut::zeroed(length)).await?;
                vec![LeafRun { extent: leaf, hash: LeafHash::of(&bytes) }]
            }
        };
        Ok(HashedLeaves { runs, manner: ReadManner::ThroughCache })
    }
}

/// The hashes of the leaves that the flags tell in full.
fn leaves(asked: Extent, flags: &[MetaStatus], block: u32) -> Vec<LeafRun> {
    let mut runs = Vec::new();
    let mut rest = Some(asked);
    let mut flags = flags.iter().peekable();
    while let Some(leaf) = rest.and_then(|rest| rest.pieces(LEAF).next()) {
        let mut flag_at = |offset: u64| {
            while flags.next_if(|status| status.extent.end() <= offset).is_some() {}
            flags.peek().map(|status| (status.flags, status.extent.end()))
        };
        let run = match flag_at(leaf.offset()) {
            Some((0, end)) if end >= leaf.end() => rest.and_then(|rest| zero_run(rest, end)),
            _ => quarters(leaf, block).and_then(|parts| {
                let mut words = [0; 4];
                for (word, part) in words.iter_mut().zip(parts) {
                    let (flags, end) = flag_at(part.offset())?;
                    if end < part.end() {
                        return None;
                    }
                    *word = flags;
                }
                Some(LeafRun { extent: leaf, hash: LeafHash(hash(words)) })
            }),
        };
        let Some(run) = run else { break };
        push_run(run, &mut runs);
        rest = Extent::between(run.extent.end(), asked.end());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(list: &[(u64, u64, u64)]) -> Vec<MetaStatus> {
        let status = |&(offset, length, flags): &(u64, u64, u64)| MetaStatus {
            extent: Extent::new(offset, length).unwrap(),
            flags,
        };
        list.iter().map(status).collect()
    }

    fn whole(count: u64) -> Extent {
        Extent::new(0, count * LEAF).unwrap()
    }

    #[test]
    fn zeroes_in_a_row_are_one_run_however_many_they_are() {
        let found = leaves(whole(1 << 40), &status(&[(0, LEAF << 40, 0)]), 512);
        assert_eq!(found, [LeafRun { extent: whole(1 << 40), hash: LeafHash::of_zeroes(LEAF) }]);
    }

    #[test]
    fn a_leaf_that_is_told_in_part_is_left_out() {
        let q = LEAF / 4;
        let all = [(0, q, 1), (q, q, 2), (2 * q, q, 3), (3 * q, q, 4), (LEAF, LEAF, 0)];
        let found = leaves(whole(2), &status(&all), 512);
        assert_eq!((found.len(), found[0].extent, found[1].extent.offset()), (2, whole(1), LEAF));
        assert_eq!(found[0].hash, LeafHash(hash([1, 2, 3, 4])));
        assert!(leaves(whole(2), &status(&all[..3]), 512).is_empty());
        assert_eq!(leaves(whole(2), &status(&all[..4]), 512).len(), 1);
        assert!(leaves(whole(2), &status(&[(0, LEAF - 512, 0)]), 512).is_empty());
        // A quarter is told as a whole or not at all.
        let cut = [(0, q, 1), (q, q, 2), (2 * q, q, 3), (3 * q, q - 512, 4)];
        assert!(leaves(whole(1), &status(&cut), 512).is_empty());
    }

    #[test]
    fn equal_neighbours_that_were_merged_are_told_apart() {
        let merged = leaves(whole(1), &status(&[(0, LEAF, 7)]), 512);
        assert_eq!(merged[0].hash, LeafHash(hash([7; 4])));
    }
}
