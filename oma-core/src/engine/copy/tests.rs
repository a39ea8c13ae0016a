mod proof;
mod resumed;

use super::*;
use crate::engine::Silent;
use crate::memory::MemoryDevice;
use crate::traits::Durability;

fn device(name: &str, bytes: u64) -> MemoryDevice {
    MemoryDevice::new(name, ByteSize::new(bytes))
}

fn request(source: &MemoryDevice, target: &MemoryDevice) -> CopyRequest {
    CopyRequest {
        key: DiskKey::parse("disk").unwrap(),
        source: Arc::new(source.clone()),
        target: Arc::new(target.clone()),
        extents: None,
        blank: false,
        zeroing: Zeroing::Punch,
        limit: None,
        resume: None,
        repair: false,
        verify: VerifyLevel::None,
        original: None,
    }
}

async fn run(request: &CopyRequest) -> Result<CopyReport> {
    copy(request, &ReplicateConfig::default(), &Silent, &CancellationToken::new()).await
}

#[tokio::test]
async fn only_the_extents_asked_for_are_copied_and_none_beyond_the_source_is_taken() {
    let (source, target) = (device("a", 100_000), device("b", 200_000));
    source.write_at(0, vec![7; 100_000].into(), Durability::Cached).await.unwrap();
    let extents = [Extent::new(5, 10).unwrap(), Extent::new(90_000, 10_000).unwrap()];
    let request = CopyRequest { extents: Some(extents.into_iter().collect()), ..request(&source, &target) };
    let report = run(&request).await.unwrap();
    assert_eq!(report.bytes_written, ByteSize::new(10_010));
    let written: Vec<usize> = target.bytes().iter().enumerate().filter(|b| *b.1 != 0).map(|b| b.0).collect();
    assert_eq!(written.len(), 10_010);
    assert!(target.unflushed().is_empty(), "the copy is durable");
    let beyond = [Extent::new(99_999, 2).unwrap()].into_iter().collect();
    let refused = run(&CopyRequest { extents: Some(beyond), ..request }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_target_that_is_smaller_or_the_source_itself_is_refused() {
    let (source, target) = (device("a", 100), device("b", 99));
    assert_eq!(run(&request(&source, &target)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(run(&request(&source, &source)).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn l11_a_stopped_copy_is_no_success() {
    let (source, target) = (device("a", 100), device("b", 100));
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = copy(&request(&source, &target), &ReplicateConfig::default(), &Silent, &stop).await;
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
}
