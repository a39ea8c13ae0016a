//! How often stores and devices are called, counted: in step with the extents of a copy, and not with the size of a comparison.

use super::*;
use crate::engine::config::TrustPolicy;
use crate::memory::DeviceCalls;

const DISK: &str = "disk-2000";
/// One changed page in each such part of the disk.
const APART: u64 = 64 << 10;

/// Counts what is told.
#[derive(Debug, Default)]
struct Told(AtomicUsize);

impl Progress for Told {
    fn event(&self, _event: Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What an epoch of so many scattered extents calls: the journal, events, and the target.
async fn calls(extents: u64) -> [(&'static str, u64); 6] {
    let mut world = World::empty(&[DISK], ByteSize::new(extents * APART));
    world.config.merge_gap = ByteSize::ZERO;
    assert!(world.run().await.outcome.is_completed());
    let device = world.source.disk(&world.vm, &key(DISK)).unwrap();
    for extent in 0..extents {
        device.write_at(extent * APART, Bytes::from_static(&[7; 4096]), Durability::Cached).await.unwrap();
    }
    let target = world.target(DISK).await;
    let (before, journal, told) = (target.calls(), world.journal.calls(), Told::default());
    let report = world.run_as(&world.request(), &told).await.unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    assert_eq!(report.disks[0].bytes_written.bytes(), extents * 4096);
    let since = |count: fn(&DeviceCalls) -> u64| count(&target.calls()) - count(&before);
    [
        ("journal", world.journal.calls() - journal),
        ("events", u64::try_from(told.0.into_inner()).unwrap()),
        ("writes", since(|calls| calls.writes)),
        ("zeroes", since(|calls| calls.zeroes)),
        ("statuses", since(|calls| calls.statuses)),
        ("flushes", since(|calls| calls.flushes)),
    ]
}

#[tokio::test]
async fn ten_times_the_extents_are_ten_times_the_calls_of_stores_and_devices() {
    let (few, many) = (calls(1000).await, calls(10_000).await);
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        assert!(many <= few * 21 / 2, "{what}: {few} for a thousand, {many} for ten thousand");
    }
    assert!(few[0].1 < 200 && few[2].1 == 1000, "{few:?}");
}

#[tokio::test]
async fn a_comparison_of_any_disk_is_recorded_sixty_four_times_at_most() {
    for (gib, most) in [(1, 1), (16, 16), (64, 64), (640, 64)] {
        let world = World::empty(&[DISK], ByteSize::gib(gib));
        assert!(world.run().await.outcome.is_completed());
        let request = ReplicateRequest { trust: TrustPolicy::AlwaysCompare, ..world.request() };
        let before = world.journal.calls();
        let report = world.run_as(&request, &Silent).await.unwrap();
        assert_eq!(report.disks[0].bytes_equal, ByteSize::gib(gib));
        // Beside what it begins with, and the last of its copy.
        assert_eq!(world.journal.calls() - before, most + 2, "of {gib} GiB");
    }
}
