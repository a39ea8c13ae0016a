//! Comparisons of a run, and those without a job, within limits.

use tokio::time::Instant;

use super::*;
use crate::engine::config::TrustPolicy;
use crate::engine::{LimitConfig, Limits, LimitsConfig, Stage};

const DISK: &str = "disk-2000";
/// Six stretches of what is compared at once.
const FULL: ByteSize = ByteSize::mib(24);

/// A VM with one epoch of a disk full of data.
async fn replicated() -> World {
    let world = World::empty(&[DISK], FULL);
    let device = world.source.disk(&world.vm, &key(DISK)).unwrap();
    let data = vec![7; usize::try_from(FULL.bytes()).unwrap()];
    device.write_at(0, Bytes::from(data), Durability::Cached).await.unwrap();
    assert!(world.run().await.outcome.is_completed());
    world
}

fn rate() -> LimitConfig {
    LimitConfig { bandwidth: Some(ByteSize::mib(4)), ..LimitConfig::default() }
}

fn limits(config: LimitsConfig) -> Limits {
    Limits::new(config, Arc::new(SystemClock)).unwrap()
}

fn link() -> Limits {
    limits(LimitsConfig { link: rate(), ..LimitsConfig::default() })
}

fn host() -> Limits {
    limits(LimitsConfig {
        hosts: [(Endpoint::parse("vcenter").unwrap(), rate())].into(),
        ..LimitsConfig::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_repair_keeps_the_bandwidth_of_what_it_has_to_read_and_tells_that_it_waited() {
    for (trust_zeroes, limits, seconds) in [(false, link(), 5), (true, host(), 5), (true, link(), 0)] {
        let mut world = replicated().await;
        world.config.trust_zeroes = trust_zeroes;
        let request = ReplicateRequest { trust: TrustPolicy::AlwaysCompare, ..world.request() };
        let (services, _) = world.services();
        let replicator = Replicator::new(services, worker("appliance"), world.config).with_limits(limits);
        let begun = Instant::now();
        let report = replicator.run(&request, &Silent, &CancellationToken::new()).await.unwrap();
        let took = begun.elapsed().as_secs();
        assert!(report.outcome.is_completed(), "{report:?}");
        assert_eq!((report.disks[0].bytes_equal, took), (FULL, seconds), "believed: {trust_zeroes}");
        // Each waits for those before it.
        let waited = report.disks[0].stages.of(Stage::Wait);
        assert!(waited >= Duration::from_secs(seconds), "{waited:?}");
        world.assert_replicated(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_verification_keeps_the_bandwidth_of_what_it_has_to_read() {
    let mut world = replicated().await;
    for (trust_zeroes, limits, seconds) in [(false, link(), 5), (true, host(), 5), (true, link(), 0)] {
        world.config.trust_zeroes = trust_zeroes;
        let (services, _) = world.services();
        let request = VerifyRequest { limits: Some(limits), ..VerifyRequest::new(world.vm.clone()) };
        let begun = Instant::now();
        let found = verify(&services, &world.config, &request, &Silent, &CancellationToken::new()).await;
        assert!(found.unwrap().report.is_identical());
        assert_eq!(begun.elapsed().as_secs(), seconds, "believed: {trust_zeroes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verification_of_an_epoch_keeps_the_bandwidth_with_its_copy() {
    let world = replicated().await;
    world.write(DISK, 0, 1 << 20, 5).await;
    let request = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
    let (services, _) = world.services();
    let replicator = Replicator::new(services, worker("appliance"), world.config).with_limits(host());
    let begun = Instant::now();
    let report = replicator.run(&request, &Silent, &CancellationToken::new()).await.unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    let took = begun.elapsed().as_secs_f64();
    assert!((5.2..5.3).contains(&took), "1 MiB copied and 24 MiB hashed, less the last stretch: {took}");
}
