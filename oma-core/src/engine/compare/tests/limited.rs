//! Limits and memory bound what a comparison reads, and never stop it for good.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::*;
use crate::engine::copier::Memory;
use crate::engine::limits::{Limit, LimitConfig, Way};

const CAPACITY: ByteSize = ByteSize::mib(16);
const RATE: ByteSize = ByteSize::mib(4);
/// Longer than anything here takes while time is simulated.
const EVER: Duration = Duration::from_secs(3600);

/// Two devices full of the same data, of which the source hashes by itself or not.
async fn full(hashes: bool) -> (MemoryDevice, Arc<dyn BlockDevice>, MemoryDevice) {
    let [source, target] = ["source", "target"].map(|name| MemoryDevice::new(name, CAPACITY));
    for device in [&source, &target] {
        let data = vec![7; usize::try_from(CAPACITY.bytes()).unwrap()];
        device.write_at(0, Bytes::from(data), Durability::Cached).await.unwrap();
    }
    let (kept, cache) = (source.clone(), source.clone());
    let read = Cached { cache, kept, hashes, shows_cache: false, short: 0, is_off: false };
    (source, Arc::new(read), target)
}

fn limit(config: &LimitConfig) -> Arc<Limit> {
    Arc::new(Limit::new(config).unwrap())
}

fn rate() -> Arc<Limit> {
    limit(&LimitConfig { bandwidth: Some(RATE), ..LimitConfig::default() })
}

fn link(limit: Arc<Limit>, memory: ByteSize) -> Admission {
    Admission::new(Way { source: Vec::new(), link: Some(limit) }, Memory::new(memory))
}

async fn compare(
    source: Arc<dyn BlockDevice>,
    target: MemoryDevice,
    admission: &Admission,
    stop: &CancellationToken,
) -> Result<Found> {
    let config = ReplicateConfig::default();
    let whole = Extent::between(0, CAPACITY.bytes()).into_iter().collect();
    let target = Arc::new(target);
    Comparison { source, target, doubt: Doubt::Some, admission, config: &config, stop }.run(&whole).await
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_paid_where_bytes_go_and_hashes_pay_nothing_of_the_link() {
    let memory = || Memory::new(ByteSize::mib(128));
    let host = || Admission::new(Way { source: vec![rate()], link: None }, memory());
    let over = || link(rate(), ByteSize::mib(128));
    for (hashes, admission, seconds) in
        [(false, over(), 3), (false, host(), 3), (true, host(), 3), (true, over(), 0)]
    {
        let (_, source, target) = full(hashes).await;
        let begun = Instant::now();
        let found = compare(source, target, &admission, &CancellationToken::new()).await.unwrap();
        assert!(found.differences.is_empty());
        // The last stretch pays for those before it.
        let took = begun.elapsed();
        assert!(took.as_millis().abs_diff(seconds * 1000) <= 10, "hashes: {hashes}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_differs_pays_the_link_though_its_source_hashes() {
    let (_, source, target) = full(true).await;
    let other = vec![8; usize::try_from(CAPACITY.bytes()).unwrap()];
    target.write_at(0, Bytes::from(other), Durability::Cached).await.unwrap();
    let begun = Instant::now();
    let admission = link(rate(), ByteSize::mib(128));
    let found = compare(source, target, &admission, &CancellationToken::new()).await.unwrap();
    assert_eq!(found.differences.bytes(), CAPACITY);
    let took = begun.elapsed().as_secs_f64();
    assert!((3.7..3.8).contains(&took), "all but the last piece of 1 MiB are waited for: {took}");
}

#[tokio::test(start_paused = true)]
async fn the_least_of_everything_is_enough_to_end_whatever_differs() {
    let one = LimitConfig {
        operations: Some(1),
        bytes_in_flight: Some(ByteSize::new(1)),
        ..LimitConfig::default()
    };
    for hashes in [false, true] {
        let (_, source, target) = full(hashes).await;
        for offset in [5, 3 << 20, (4 << 20) + 100, 9 << 20, (16 << 20) - 1] {
            write(&target, offset, b"x").await;
        }
        let [host, datastore, over] = [(); 3].map(|()| limit(&one));
        let way = Way { source: vec![host, datastore], link: Some(over) };
        let admission = Admission::new(way, Memory::new(ByteSize::kib(64)));
        let stop = CancellationToken::new();
        let found =
            timeout(EVER, compare(source, target, &admission, &stop)).await.expect("it ends").unwrap();
        assert_eq!(found.differences.count(), 5);
    }
}

#[tokio::test]
async fn while_one_stretch_has_all_that_may_be_taken_no_other_is_read() {
    let one = LimitConfig { operations: Some(1), ..LimitConfig::default() };
    for admission in [link(limit(&one), ByteSize::mib(128)), Admission::without_limits(ByteSize::kib(64))] {
        let (memory, source, target) = full(false).await;
        let faults = Faults::default();
        let source = Arc::new(FaultyDevice::new(source, faults.clone()));
        faults.stall_reads_in(Extent::new(0, 1).unwrap());
        let stop = CancellationToken::new();
        let (compared, ()) = tokio::join!(compare(source, target, &admission, &stop), async {
            faults.until_stalled_in(Extent::new(0, 1).unwrap()).await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(memory.calls().reads, 0, "{admission:?}");
            faults.clear();
        });
        assert!(compared.unwrap().differences.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn l11_a_stop_ends_a_wait_for_a_limit_at_once() {
    let (_, source, target) = full(false).await;
    let crawl = LimitConfig { bandwidth: Some(ByteSize::new(1)), ..LimitConfig::default() };
    let (admission, stop) = (link(limit(&crawl), ByteSize::mib(128)), CancellationToken::new());
    let begun = Instant::now();
    let (compared, ()) = tokio::join!(compare(source, target, &admission, &stop), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    });
    assert_eq!(compared.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
