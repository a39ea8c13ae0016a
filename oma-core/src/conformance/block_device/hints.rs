//! What a device does faster where it can: zeroes and caching.

use super::{Bench, DeviceSubject, extent, filled, is_zero};
use crate::ErrorKind;
use crate::traits::{Durability, Zeroing};

pub(super) async fn fast_zeroes_are_zeroes_or_unsupported_and_nothing_has_changed(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let able = bench.device.info().can_zero_fast;
    let around = extent(0, 64 << 10);
    for zeroed in [extent(0, 32 << 10), extent(4096 + bench.unit, (16 << 10) + 3 * bench.unit)] {
        let (start, end) =
            (usize::try_from(zeroed.offset()).unwrap(), usize::try_from(zeroed.end()).unwrap());
        for zeroing in [Zeroing::Punch, Zeroing::Allocate] {
            for durability in [Durability::Cached, Durability::Durable] {
                bench.fill(around).await;
                let outcome = bench.device.zero_fast(zeroed, zeroing, durability).await;
                let after = bench.read(around).await;
                let inside = match outcome {
                    Ok(()) => {
                        assert!(able, "it said that it cannot, but it did");
                        is_zero(&after[start..end])
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.chain());
                        after[start..end] == filled(around)[start..end]
                    }
                };
                assert!(inside, "{zeroed} {zeroing:?} {durability:?}");
                assert_eq!(after[..start], filled(around)[..start], "{zeroing:?}");
                assert_eq!(after[end..], filled(around)[end..], "{zeroing:?}");
            }
        }
    }
}

pub(super) async fn fast_zeroes_and_caching_beyond_the_capacity_are_invalid(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let last = extent(bench.capacity - bench.unit, bench.unit);
    bench.fill(last).await;
    for beyond in bench.beyond() {
        let zeroes = bench.device.zero_fast(beyond, Zeroing::Punch, Durability::Cached).await;
        assert_eq!(zeroes.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(bench.device.cache(beyond).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(bench.read(last).await, filled(last));
}

pub(super) async fn caching_keeps_the_content(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let data = extent(8192, 128 << 10);
    bench.fill(data).await;
    for cached in [data, extent(bench.unit, bench.unit), bench.whole()] {
        bench.device.cache(cached).await.unwrap();
        assert_eq!(bench.read(data).await, filled(data));
    }
    assert!(is_zero(&bench.read(extent(0, 8192)).await));
}

pub(super) async fn a_read_only_device_caches_but_never_zeroes_fast(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let all = extent(0, 64 << 10);
    bench.device.cache(all).await.unwrap();
    let zeroes = bench.device.zero_fast(all, Zeroing::Punch, Durability::Cached).await;
    assert_eq!(zeroes.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(bench.read(all).await, filled(all));
}
