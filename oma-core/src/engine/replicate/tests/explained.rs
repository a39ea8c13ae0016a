//! What a run says of itself: while it runs, and in its report.

use super::interrupted::crash_at;
use super::*;
use crate::engine::config::TrustPolicy;
use crate::engine::{DiskReport, Stage, forecast};

const DISK: &str = "disk-2000";

/// Keeps how far comparisons were.
#[derive(Debug, Default)]
struct Compared(Mutex<Vec<(ByteSize, ByteSize)>>);

impl Compared {
    /// The totals of the comparisons that were told of, each from nothing to its end without a step back.
    fn totals(&self) -> Vec<ByteSize> {
        let told = self.0.lock().unwrap();
        let comparisons: Vec<_> = told.chunk_by(|_, (done, _)| *done != ByteSize::ZERO).collect();
        for comparison in &comparisons {
            assert!(comparison.is_sorted() && comparison.len() > 1, "{comparison:?}");
            let (first, last) = (comparison[0], comparison[comparison.len() - 1]);
            assert_eq!((first.0, last.0), (ByteSize::ZERO, first.1), "{comparison:?}");
        }
        comparisons.iter().map(|comparison| comparison[0].1).collect()
    }
}

impl Progress for Compared {
    fn event(&self, event: Event<'_>) {
        if let Event::Compared { disk, done, total } = event {
            assert_eq!(disk, &key(DISK));
            self.0.lock().unwrap().push((done, total));
        }
    }
}

/// The second epoch of a VM that changed a little, what it did with the disk and what was told of comparisons.
async fn second(verify: VerifyLevel, trust: TrustPolicy) -> (DiskReport, Vec<ByteSize>) {
    let world = World::new(&[DISK]).await;
    assert!(world.run().await.outcome.is_completed());
    world.write(DISK, 3 << 20, 10_000, 7).await;
    let compared = Compared::default();
    let request = ReplicateRequest { verify, trust, ..world.request() };
    let mut report = world.run_as(&request, &compared).await.unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    (report.disks.remove(0), compared.totals())
}

#[tokio::test]
async fn a_run_that_compares_nothing_hashes_nothing_and_tells_what_is_unchanged() {
    let (disk, told) = second(VerifyLevel::None, TrustPolicy::Trust).await;
    assert_eq!((disk.bytes_hashed, disk.bytes_verified, told), (ByteSize::ZERO, None, Vec::new()));
    assert_eq!(disk.stages.of(Stage::Hash), Duration::ZERO);
    assert_eq!(disk.bytes_unchanged, ByteSize::new(CAPACITY.bytes() - 10_000));
    assert_eq!(disk.bytes_skipped, disk.bytes_unchanged);
}

#[tokio::test]
async fn what_is_zero_by_promise_is_not_unchanged() {
    let world = World::new(&[DISK]).await;
    let disk = &world.run().await.disks[0];
    assert_eq!(disk.bytes_unchanged, ByteSize::ZERO);
    assert!(disk.bytes_skipped > ByteSize::mib(2), "{disk:?}");
}

#[tokio::test]
async fn a_verification_is_told_as_it_goes_on_and_its_time_and_bytes_are_in_the_report() {
    let (disk, told) = second(VerifyLevel::Full, TrustPolicy::Trust).await;
    assert_eq!((disk.bytes_verified, told), (Some(CAPACITY), vec![CAPACITY]));
    let promised = disk.bytes_promised_zero.unwrap();
    assert!(promised > ByteSize::mib(2), "{disk:?}");
    assert_eq!(disk.bytes_hashed + promised, CAPACITY);
    assert!(disk.stages.of(Stage::Hash) > Duration::ZERO, "{disk:?}");
}

#[tokio::test]
async fn a_repair_is_told_as_it_goes_on_and_its_time_and_bytes_are_in_the_report() {
    let (disk, told) = second(VerifyLevel::None, TrustPolicy::AlwaysCompare).await;
    assert_eq!((disk.bytes_verified, disk.bytes_promised_zero, told), (None, None, vec![CAPACITY]));
    let (data, hashed) = (1_000_000 + 300_000 + 10_000, disk.bytes_hashed);
    assert!((data..CAPACITY.bytes() / 2).contains(&hashed.bytes()), "{disk:?}");
    assert!(disk.stages.of(Stage::Hash) > Duration::ZERO, "{disk:?}");
    // What is compared before the copy and after it counts for each.
    let (both, told) = second(VerifyLevel::Full, TrustPolicy::AlwaysCompare).await;
    let verified = CAPACITY.bytes() - both.bytes_promised_zero.unwrap().bytes();
    assert_eq!((both.bytes_hashed, told), (hashed + ByteSize::new(verified), vec![CAPACITY; 2]));
}

#[tokio::test]
async fn a_spot_check_is_told_though_it_finds_nothing() {
    let (disk, told) = second(VerifyLevel::None, TrustPolicy::SpotCheck { permille: 1000 }).await;
    assert_eq!(disk.mode, ReplicationType::Incremental);
    assert_eq!(told, [disk.bytes_unchanged]);
    // Whatever both sides promise of them.
    assert_eq!(disk.bytes_hashed, disk.bytes_unchanged);
}

#[tokio::test]
async fn what_a_comparison_hashed_before_it_failed_is_in_the_report() {
    let world = World::new(&[DISK]).await;
    let request = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
    let faults = world.source.faults(&key(DISK));
    let spoil = || {
        faults.fail_as(ErrorKind::Corrupt, Retry::Never);
        faults.fail_reads_in(Extent::new(2 << 20, 1).unwrap());
    };
    let report = world.run_as(&request, &Acting::at("begins verify", 1, spoil)).await.unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Corrupt);
    let disk = &report.disks[0];
    assert_eq!(disk.bytes_verified, None);
    assert!((1_000_000..2 << 20).contains(&disk.bytes_hashed.bytes()), "{disk:?}");
}

/// An epoch an hour after the one before: a megabyte, in ten seconds.
async fn epoch_an_hour_later(world: &World) {
    world.clock.advance(Duration::from_secs(3600));
    world.write(DISK, 0, 1_000_000, 3).await;
    let ten_seconds = || world.clock.advance(Duration::from_secs(10));
    let report = world.run_as(&world.request(), &Acting::at("begins copy", 1, ten_seconds)).await.unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
}

#[tokio::test]
async fn a_forecast_is_told_from_the_records_of_epochs_that_were_not_interrupted() {
    let world = Arc::new(World::new(&[DISK]).await);
    world.run().await;
    let context = world.store.by_path(&world.vm).await.unwrap().unwrap().id;
    let told = async || forecast(&*world.store, &context, world.clock.now()).await.unwrap();
    epoch_an_hour_later(&world).await;
    assert_eq!(told().await, None, "one incremental epoch tells nothing");
    epoch_an_hour_later(&world).await;
    // Stopped on Friday, continued on Monday.
    world.write(DISK, 0, 2 << 20, 9).await;
    assert!(crash_at(&world, "recorded", 2).await);
    world.clock.advance(Duration::from_secs(3 * 86_400));
    assert!(world.run().await.outcome.is_completed());
    let now = world.clock.now();

    let forecast = told().await.unwrap();
    assert_eq!(forecast.epochs, 2);
    assert_eq!(forecast.next_duration.high, Duration::from_secs(10), "{forecast:?}");
    assert_eq!(forecast.cutover.high, Duration::from_secs(10));
    // 3600 s between the epochs, one before each run; the first epoch took no time.
    let (fast, slow) = (1_000_000.0 / 3601.0, 1_000_000.0 / 3611.0);
    assert!((forecast.change_rate.low - slow).abs() < 0.01, "{forecast:?}");
    assert!((forecast.change_rate.high - fast).abs() < 0.01, "{forecast:?}");
    let newest = world.jobs().await.iter().map(|job| job.created_at).max().unwrap();
    let idle = u64::try_from(now.as_millis() - newest.as_millis()).unwrap() / 1000;
    let bytes = forecast.next_bytes.high.bytes();
    assert_eq!((bytes * 3601).div_ceil(1_000_000), idle, "{forecast:?}");
}
