mod limited;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::memory::{DeviceCall, Faults, FaultyDevice, MemoryDevice};
use crate::traits::{BlockStatus, DeviceInfo, Durability, HashedLeaves, InPlace, LeafHasher, Zeroing};
use crate::{ByteSize, Retry};

/// Data that tells its place.
fn sample(offset: u64, length: usize) -> Bytes {
    (offset..).take(length).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] | 1).collect()
}

fn free() -> Admission {
    Admission::without_limits(ByteSize::mib(128))
}

async fn write(device: &MemoryDevice, offset: u64, data: &'static [u8]) {
    device.write_at(offset, Bytes::from_static(data), Durability::Cached).await.unwrap();
}

async fn differences(source: &MemoryDevice, target: &MemoryDevice) -> ExtentSet {
    let config = ReplicateConfig { piece: ByteSize::kib(64), ..ReplicateConfig::default() };
    let stop = CancellationToken::new();
    let whole = Extent::between(0, source.info().capacity.bytes()).into_iter().collect();
    let comparison = Comparison {
        source: Arc::new(source.read_only()),
        target: Arc::new(target.read_only()),
        doubt: Doubt::Some,
        admission: &free(),
        config: &config,
        stop: &stop,
    };
    comparison.run(&whole).await.unwrap().differences
}

#[tokio::test]
async fn equal_devices_have_no_differences_and_holes_are_not_read() {
    let source = MemoryDevice::new("source", ByteSize::mib(64));
    let target = MemoryDevice::new("target", ByteSize::mib(65));
    for device in [&source, &target] {
        write(device, (40 << 20) + 5, b"the same").await;
    }
    assert!(differences(&source, &target).await.is_empty());
    assert!(source.calls().bytes_read < 1 << 20, "{:?}", source.calls());
}

#[tokio::test]
async fn l14_every_differing_extent_is_named() {
    let source = MemoryDevice::new("source", ByteSize::new((1 << 20) + 100));
    let target = MemoryDevice::new("target", ByteSize::new((1 << 20) + 100));
    write(&source, 4095, b"xy").await;
    write(&target, 500_000, b"only here").await;
    write(&source, (1 << 20) + 99, b"z").await;
    let found: Vec<_> = differences(&source, &target).await.iter().map(<(u64, u64)>::from).collect();
    assert_eq!(found, [(0, 8192), (499_712, 4096), (1 << 20, 100)]);
}

#[tokio::test]
async fn a_zero_hole_equals_written_zeroes() {
    let source = MemoryDevice::new("source", ByteSize::mib(1));
    let target = MemoryDevice::new("target", ByteSize::mib(1));
    write(&target, 8192, &[0; 4096]).await;
    assert!(differences(&source, &target).await.is_empty());
}

async fn found(source: Arc<dyn BlockDevice>, target: Arc<dyn BlockDevice>) -> Result<Found> {
    let config = ReplicateConfig {
        retry: RetryConfig { attempts: 1, ..RetryConfig::default() },
        ..ReplicateConfig::default()
    };
    let stop = CancellationToken::new();
    let whole = Extent::between(0, source.info().capacity.bytes()).into_iter().collect();
    Comparison { source, target, doubt: Doubt::Some, admission: &free(), config: &config, stop: &stop }
        .run(&whole)
        .await
}

/// Two devices of the same data, a few leaves and a part of one.
async fn twins() -> [MemoryDevice; 2] {
    let capacity = ByteSize::new(5 * LEAF + 1536);
    let twins = ["source", "target"].map(|name| MemoryDevice::new(name, capacity));
    for twin in &twins {
        twin.write_at(0, sample(0, 3 << 16), Durability::Cached).await.unwrap();
    }
    twins
}

#[tokio::test]
async fn roots_are_equal_exactly_when_all_is() {
    let [source, target] = twins().await;
    let roots =
        async || found(Arc::new(source.clone()), Arc::new(target.clone())).await.unwrap().roots.unwrap();
    let before = roots().await;
    assert_eq!(before.source, before.target);
    write(&target, 5 * LEAF + 1535, b"x").await;
    let after = roots().await;
    assert_eq!(after.source, before.source);
    assert_ne!(after.target, before.target);
}

#[tokio::test]
async fn l11_what_cannot_be_read_is_not_equal() {
    for side in [0, 1] {
        let twins = twins().await;
        let faults = Faults::new(ErrorKind::Unavailable, Retry::Later);
        let faulty: Vec<Arc<dyn BlockDevice>> = twins
            .iter()
            .enumerate()
            .map(|(at, twin)| -> Arc<dyn BlockDevice> {
                if at == side {
                    Arc::new(FaultyDevice::new(Arc::new(twin.clone()), faults.clone()))
                } else {
                    Arc::new(twin.clone())
                }
            })
            .collect();
        faults.fail_reads_in(Extent::new(2 * LEAF + 77, 1).unwrap());
        let failed = found(faulty[0].clone(), faulty[1].clone()).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unavailable);
        faults.clear();
        faults.fail_nth(DeviceCall::Status, 1);
        found(faulty[0].clone(), faulty[1].clone()).await.unwrap_err();
        assert!(found(faulty[0].clone(), faulty[1].clone()).await.unwrap().differences.is_empty());
        twins[side].cut(2 * LEAF);
        let cut = found(faulty[0].clone(), faulty[1].clone()).await.unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Corrupt, "{}", cut.chain());
    }
}

/// A device that reads as one thing, from its cache, and keeps another, of which its status and its hashes are.
#[derive(Clone, Debug)]
struct Cached {
    cache: MemoryDevice,
    kept: MemoryDevice,
    hashes: bool,
    /// Whether its hashes are of the cache when it may be read anywhere.
    shows_cache: bool,
    /// Bytes that each read lacks.
    short: usize,
    /// Whether its hashes are of the leaf behind the one that was asked for.
    is_off: bool,
}

#[async_trait]
impl LeafHasher for Cached {
    async fn leaf_hashes(&self, extent: Extent, from: ReadFrom) -> Result<HashedLeaves> {
        // It may end early: here after each leaf.
        let mut leaf = extent.pieces(LEAF).next().unwrap_or(extent);
        if self.is_off {
            leaf = Extent::new(leaf.offset() + LEAF, leaf.length()).unwrap();
        }
        match from {
            ReadFrom::Anywhere if self.shows_cache => self.cache.leaf_hashes(leaf, from).await,
            ReadFrom::Anywhere | ReadFrom::Device => self.kept.leaf_hashes(leaf, from).await,
        }
    }
}

#[async_trait]
impl BlockDevice for Cached {
    fn info(&self) -> &DeviceInfo {
        self.cache.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        let mut read = self.cache.read_at(offset, buffer).await?;
        read.truncate(read.len() - self.short);
        Ok(read)
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.cache.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.cache.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.cache.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.cache.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.cache.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.cache.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.kept.block_status(extent).await
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.hashes.then_some(self)
    }
}

#[tokio::test]
async fn l14_a_device_that_kept_something_else_than_its_cache_shows_is_found_out() {
    let [source, cache] = twins().await;
    let [_, kept] = twins().await;
    write(&kept, LEAF + 5, b"not what was written").await;
    let target = Cached { cache, kept, hashes: true, shows_cache: true, short: 0, is_off: false };
    let found = found(Arc::new(source), Arc::new(target)).await.unwrap();
    assert_eq!(found.differences.iter().collect::<Vec<_>>(), [Extent::new(LEAF, LEAF).unwrap()]);
}

#[tokio::test]
async fn l14_hashes_of_other_leaves_than_were_asked_for_prove_nothing() {
    let [source, cache] = twins().await;
    let target =
        Cached { kept: cache.clone(), cache, hashes: true, shows_cache: false, short: 0, is_off: true };
    let failed = found(Arc::new(source), Arc::new(target)).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_thousand_extents_are_asked_for_at_once() {
    let [source, target] = ["s", "t"].map(|name| MemoryDevice::new(name, ByteSize::mib(64)));
    let scope: ExtentSet = (0..1000).map(|at| Extent::new(at * LEAF, 512).unwrap()).collect();
    let (config, stop) = (ReplicateConfig::default(), CancellationToken::new());
    let devices = [source, target].map(|device| (device.clone(), Arc::new(device)));
    let [(one, source), (other, target)] = devices;
    let found =
        Comparison { source, target, doubt: Doubt::Some, admission: &free(), config: &config, stop: &stop };
    let found = found.run(&scope).await.unwrap();
    // One that was doubted, and the last, whose leaf is not asked for whole.
    assert_eq!((found.compared.bytes(), found.promised.bytes()), (2 * 512, 998 * 512));
    assert_eq!([one, other].map(|device| device.calls().statuses), [1, 1]);
}

/// Both promise that leaves 3 and 4 of five read as zero; the source holds data in one of them.
#[tokio::test]
async fn l10_a_promise_that_is_broken_is_told_by_a_sample_and_by_a_comparison_that_looks_at_it() {
    let capacity = ByteSize::new(5 * LEAF);
    let [source, target] = ["s", "t"].map(|name| MemoryDevice::new(name, capacity));
    for device in [&source, &target] {
        device.write_at(0, sample(0, 3 << 16), Durability::Cached).await.unwrap();
    }
    write(&source, 4 * LEAF + 9, b"data").await;
    let faults = Faults::default();
    faults.hide(Extent::new(3 * LEAF, 2 * LEAF).unwrap());
    let source: Arc<dyn BlockDevice> = Arc::new(FaultyDevice::new(Arc::new(source), faults));
    let (config, stop) = (ReplicateConfig::default(), CancellationToken::new());
    for (doubt, leaves, is_found) in [
        (Doubt::All, 0..5, true),
        (Doubt::Some, 4..5, true),
        (Doubt::Some, 3..4, false),
        (Doubt::All, 0..4, false),
    ] {
        let scope = Extent::between(leaves.start * LEAF, leaves.end * LEAF).into_iter().collect();
        let (source, target) = (source.clone(), Arc::new(target.clone()));
        let found = Comparison { source, target, doubt, admission: &free(), config: &config, stop: &stop }
            .run(&scope)
            .await;
        let found = found.unwrap();
        let granule = Extent::new(4 * LEAF, GRANULE).unwrap();
        assert_eq!(found.broken, is_found.then_some(granule), "{doubt:?} {leaves:?}");
        assert_eq!(found.differences, found.broken.into_iter().collect());
    }
}

/// A source that says hole where data is, in its status and in its hashes.
#[tokio::test]
async fn l10_a_source_that_is_not_believed_is_read_to_the_last_byte() {
    let [source, target] = twins().await;
    let empty = MemoryDevice::new("empty", source.info().capacity);
    let lies =
        Cached { cache: source, kept: empty, hashes: true, shows_cache: false, short: 0, is_off: false };
    let whole: ExtentSet = Extent::between(0, target.info().capacity.bytes()).into_iter().collect();
    let stop = CancellationToken::new();
    for (trust_zeroes, expected) in [(false, 0), (true, 3)] {
        let config = ReplicateConfig { trust_zeroes, ..ReplicateConfig::default() };
        let (source, target) = (Arc::new(lies.clone()), Arc::new(target.clone()));
        let found = Comparison {
            source,
            target,
            doubt: Doubt::Some,
            admission: &free(),
            config: &config,
            stop: &stop,
        }
        .run(&whole)
        .await
        .unwrap();
        let leaves = found.differences.iter().flat_map(|extent| extent.pieces(LEAF)).count();
        assert_eq!(leaves, expected, "trust_zeroes: {trust_zeroes}");
    }
}

#[tokio::test]
async fn l11_a_device_that_answers_too_few_bytes_is_not_equal() {
    let [source, cache] = twins().await;
    let target =
        Cached { kept: cache.clone(), cache, hashes: false, shows_cache: false, short: 1, is_off: false };
    let failed = found(Arc::new(source), Arc::new(target)).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn l11_a_comparison_that_was_stopped_is_cancelled() {
    let [source, target] = twins().await;
    let (config, stop) = (ReplicateConfig::default(), CancellationToken::new());
    stop.cancel();
    let scope = Extent::between(0, LEAF).into_iter().collect();
    let comparison = Comparison {
        source: Arc::new(source),
        target: Arc::new(target),
        doubt: Doubt::Some,
        admission: &free(),
        config: &config,
        stop: &stop,
    };
    assert_eq!(comparison.run(&scope).await.unwrap_err().kind(), ErrorKind::Cancelled);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Devices of any data and holes, with and without hashes of their own; damage anywhere.
    #[test]
    fn l14_exactly_the_damaged_granules_of_the_scope_are_named(
        data in prop::collection::vec((0u64..40 * LEAF, 1usize..150_000), 0..6),
        damage in prop::collection::vec((0u64..40 * LEAF, 1usize..9000), 0..5),
        scope in prop::collection::vec((0u64..40 * LEAF, 1u64..20 * LEAF), 1..4),
        hashes in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let capacity = 40 * LEAF + 1536;
            let clip = |offset: u64, length: usize| length.min(usize::try_from(capacity - offset).unwrap());
            let [source, target] = ["s", "t"].map(|name| MemoryDevice::new(name, ByteSize::new(capacity)));
            for (offset, length) in data {
                for device in [&source, &target] {
                    let bytes = sample(offset, clip(offset, length));
                    device.write_at(offset, bytes, Durability::Cached).await.unwrap();
                }
            }
            for (offset, length) in damage {
                let at = usize::try_from(offset).unwrap();
                let flipped: Bytes = target.bytes()[at..at + clip(offset, length)].iter().map(|b| !b).collect();
                target.write_at(offset, flipped, Durability::Cached).await.unwrap();
            }
            let scope: ExtentSet =
                scope.iter().filter_map(|(offset, length)| Extent::between(*offset, (offset + length).min(capacity))).collect();
            let (one, other) = (source.bytes(), target.bytes());
            let differs = |e: &Extent| {
                let range = usize::try_from(e.offset()).unwrap()..usize::try_from(e.end()).unwrap();
                one[range.clone()] != other[range]
            };
            let expected: ExtentSet =
                scope.iter().flat_map(|extent| extent.pieces(GRANULE)).filter(differs).collect();
            let target: Arc<dyn BlockDevice> = match hashes {
                true => Arc::new(target),
                false => Arc::new(Cached { kept: target.clone(), cache: target, hashes, shows_cache: false, short: 0, is_off: false }),
            };
            let (config, stop) = (ReplicateConfig::default(), CancellationToken::new());
            let found = Comparison { source: Arc::new(source), target, doubt: Doubt::Some, admission: &free(), config: &config, stop: &stop }.run(&scope).await.unwrap();
            prop_assert_eq!(found.differences, expected);
            prop_assert_eq!(found.compared + found.promised, scope.bytes());
            Ok(())
        })?;
    }
}
