use super::*;
use crate::ByteSize;

#[tokio::test]
async fn the_nth_call_fails_once_and_does_nothing() {
    let memory = MemoryDevice::new("m", ByteSize::kib(64));
    let faults = Faults::new(ErrorKind::NoSpace, Retry::Never);
    let device = FaultyDevice::new(Arc::new(memory.clone()), faults.clone());
    faults.fail_nth(DeviceCall::Write, 2);
    let write = || device.write_at(0, Bytes::from_static(b"x"), Durability::Cached);
    write().await.unwrap();
    assert_eq!(write().await.unwrap_err().kind(), ErrorKind::NoSpace);
    write().await.unwrap();
    assert_eq!((memory.calls().writes, faults.count()), (2, 1));
}

#[tokio::test]
async fn reads_of_a_bad_extent_fail_until_cleared() {
    let memory = MemoryDevice::new("m", ByteSize::kib(64));
    let faults = Faults::default();
    let device = FaultyDevice::new(Arc::new(memory), faults.clone());
    faults.fail_reads_in(Extent::new(4096, 1).unwrap());
    device.read_at(0, BytesMut::zeroed(4096)).await.unwrap();
    assert_eq!(device.read_at(4000, BytesMut::zeroed(100)).await.unwrap_err().retry(), Retry::Later);
    faults.clear();
    device.read_at(4000, BytesMut::zeroed(100)).await.unwrap();
}

#[tokio::test]
async fn what_is_kept_waiting_is_answered_once_another_extent_is_named() {
    let extents = [0, 4096].map(|offset| Extent::new(offset, 4096).unwrap());
    let memory = MemoryDevice::new("m", ByteSize::kib(64));
    let faults = Faults::default();
    faults.stall_reads_in(extents[0]);
    let device = Arc::new(FaultyDevice::new(Arc::new(memory.clone()), faults.clone()));
    let reads = extents.map(|extent| {
        let device = Arc::clone(&device);
        tokio::spawn(async move { device.read_at(extent.offset(), BytesMut::zeroed(4096)).await })
    });
    drop(device);
    let [first, second] = reads;
    second.await.unwrap().unwrap();
    faults.until_stalled_in(extents[0]).await;
    assert_eq!(memory.calls().reads, 1);
    faults.stall_reads_in(extents[1]);
    first.await.unwrap().unwrap();
    faults.until_unused().await;
}
