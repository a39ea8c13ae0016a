use bytes::Bytes;
use futures_util::future::join;

use super::{Bench, DeviceSubject, extent, filled};
use crate::traits::{Durability, ReadFrom, Zeroing};
use crate::tree::{LEAF, LeafHash, LeafRun, leaf_hashes};
use crate::{ErrorKind, Extent};

const WAYS: [ReadFrom; 2] = [ReadFrom::Anywhere, ReadFrom::Device];

/// The hash of each leaf, asked for as often as needed.
async fn hashes(bench: &Bench, asked: Extent, from: ReadFrom) -> Vec<(Extent, LeafHash)> {
    let mut all = Vec::new();
    let mut rest = Some(asked);
    while let Some(extent) = rest {
        let found = leaf_hashes(&*bench.device, extent, from).await.unwrap().runs;
        let leaves = |run: &LeafRun| run.extent.pieces(LEAF).count();
        assert!(found.iter().all(|run| u64::try_from(leaves(run)) == Ok(run.leaves())), "{found:?}");
        all.extend(found.iter().flat_map(|run| run.extent.pieces(LEAF).map(|leaf| (leaf, run.hash))));
        rest = Extent::between(found.last().expect("at least one").extent.end(), asked.end());
    }
    all
}

/// The same of the bytes that are read.
async fn expected(bench: &Bench, asked: Extent) -> Vec<(Extent, LeafHash)> {
    let mut all = Vec::new();
    for leaf in asked.pieces(LEAF) {
        all.push((leaf, LeafHash::of(&bench.read(leaf).await)));
    }
    all
}

async fn assert_hashes(bench: &Bench, asked: Extent) {
    let expected = expected(bench, asked).await;
    for from in WAYS {
        assert_eq!(hashes(bench, asked, from).await, expected, "{asked} {from:?}");
    }
}

pub(super) async fn l14_leaf_hashes_are_those_of_the_bytes_that_are_read(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let (unit, end) = (bench.unit, bench.capacity);
    bench.fill(extent(LEAF, 3 * LEAF + 8192)).await;
    bench.fill(extent(10 * LEAF - 4096, 2 * 4096)).await;
    bench.fill(extent(end - unit, unit)).await;
    assert_hashes(&bench, bench.whole()).await;
    let odd =
        [(unit, LEAF), (LEAF - unit, 2 * unit), (2 * LEAF, unit), (5 * LEAF, 9 * LEAF), (end - unit, unit)];
    for (offset, length) in odd {
        assert_hashes(&bench, extent(offset, length)).await;
    }
}

pub(super) async fn leaf_hashes_follow_every_change(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let device = &bench.device;
    assert_hashes(&bench, bench.whole()).await;
    bench.fill(extent(0, 8 * LEAF)).await;
    assert_hashes(&bench, bench.whole()).await;
    device.write_zeroes(extent(LEAF, 2 * LEAF), Zeroing::Punch, Durability::Cached).await.unwrap();
    device.write_zeroes(extent(4 * LEAF, LEAF), Zeroing::Allocate, Durability::Durable).await.unwrap();
    device.flush().await.unwrap();
    assert_hashes(&bench, bench.whole()).await;
    device.trim(extent(6 * LEAF, LEAF)).await.unwrap();
    device
        .write_at(2 * LEAF - bench.unit, filled(extent(0, 2 * bench.unit)), Durability::Durable)
        .await
        .unwrap();
    assert_hashes(&bench, extent(0, 6 * LEAF)).await;
    assert_hashes(&bench, extent(7 * LEAF, bench.capacity - 7 * LEAF)).await;
}

pub(super) async fn leaf_hashes_beyond_the_capacity_are_invalid(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    for beyond in bench.beyond() {
        let error = leaf_hashes(&*bench.device, beyond, ReadFrom::Device).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    }
}

pub(super) async fn writes_to_other_leaves_change_no_hash(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let (around, written) = (extent(0, 8 * LEAF), extent(3 * LEAF, LEAF));
    bench.fill(around).await;
    let before = expected(&bench, around).await;
    for round in 0..16u8 {
        let data = Bytes::from(vec![round; super::length(written)]);
        let write = bench.device.write_at(written.offset(), data, Durability::Cached);
        let (after, done) = join(hashes(&bench, around, WAYS[usize::from(round % 2)]), write).await;
        done.unwrap();
        let others = |list: &[(Extent, LeafHash)]| {
            list.iter().filter(|(leaf, _)| *leaf != written).copied().collect::<Vec<_>>()
        };
        assert_eq!(others(&after), others(&before));
    }
    assert_hashes(&bench, around).await;
}

pub(super) async fn l11_hashes_of_what_is_not_there_are_an_error(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let end = bench.capacity / 2 / bench.unit * bench.unit;
    for asked in [extent(end - bench.unit, 2 * bench.unit), extent(end / LEAF * LEAF, bench.capacity - end)] {
        for from in WAYS {
            let mut rest = Some(asked);
            let error = loop {
                let part = rest.expect("it ends early before the extent does");
                match leaf_hashes(&*bench.device, part, from).await {
                    Ok(found) => {
                        rest = Extent::between(found.runs.last().unwrap().extent.end(), asked.end());
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
        }
    }
}
