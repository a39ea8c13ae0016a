use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::ByteSize;
use crate::memory::MemoryDevice;
use crate::traits::Durability;

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
        config: &config,
        stop: &stop,
    };
    comparison.differences(&whole).await.unwrap()
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
