//! What every [`BlockDevice`] promises.

mod hashes;
mod hints;

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;

use self::hashes::{
    l11_hashes_of_what_is_not_there_are_an_error, l14_leaf_hashes_are_those_of_the_bytes_that_are_read,
    leaf_hashes_beyond_the_capacity_are_invalid, leaf_hashes_follow_every_change,
    writes_to_other_leaves_change_no_hash,
};
use self::hints::{
    a_read_only_device_caches_but_never_zeroes_fast, caching_keeps_the_content,
    fast_zeroes_and_caching_beyond_the_capacity_are_invalid,
    fast_zeroes_are_zeroes_or_unsupported_and_nothing_has_changed,
};
use super::runner::table;
use super::{Case, Guard, sample};
use crate::traits::{Access, BlockDevice, BlockStatus, BlockStatusKind, Durability, Zeroing};
use crate::{ByteSize, ErrorKind, Extent};

/// The capacity that a subject has at least: whole blocks of 512 bytes, but not of 4096.
pub const DEVICE_CAPACITY: ByteSize = ByteSize::new((1 << 20) + 1536);

/// A fresh device to be put to the test.
pub struct DeviceSubject {
    /// The device, with at least [`DEVICE_CAPACITY`].
    pub device: Arc<dyn BlockDevice>,
    /// What it lives on.
    pub guard: Guard,
}

impl fmt::Debug for DeviceSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSubject").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Cases over a device that can be written and reads as zero everywhere.
#[must_use]
pub fn block_device_cases() -> Vec<Case<DeviceSubject>> {
    table![
        info_is_sound,
        reads_give_back_what_was_written,
        odd_offsets_and_lengths_are_served_and_neighbours_stay,
        the_last_partial_block_is_served,
        large_requests_are_served,
        an_empty_buffer_comes_back_at_once,
        reads_beyond_the_capacity_are_invalid,
        writes_beyond_the_capacity_are_invalid_and_do_nothing,
        zeroes_and_trims_beyond_the_capacity_are_invalid_and_do_nothing,
        block_status_beyond_the_capacity_is_invalid,
        zeroed_extents_read_as_zero_and_neighbours_stay,
        zeroes_may_be_as_long_as_the_device,
        fast_zeroes_are_zeroes_or_unsupported_and_nothing_has_changed,
        fast_zeroes_and_caching_beyond_the_capacity_are_invalid,
        caching_keeps_the_content,
        trim_changes_nothing_outside_and_the_extent_can_be_written_again,
        a_device_that_cannot_trim_keeps_the_content,
        flush_and_durable_writes_keep_the_content,
        changes_are_idempotent,
        block_status_is_in_order_without_gaps_and_never_beyond,
        l10_block_status_says_zero_only_where_zeroes_are_read,
        a_device_without_block_status_answers_data,
        many_calls_are_under_way_at_once,
        overlapping_writes_are_applied_in_some_order,
        a_call_sees_what_returned_before_it_began,
        a_dropped_write_changes_nothing_outside_its_extent,
        l14_leaf_hashes_are_those_of_the_bytes_that_are_read,
        leaf_hashes_follow_every_change,
        leaf_hashes_beyond_the_capacity_are_invalid,
        writes_to_other_leaves_change_no_hash,
    ]
}

/// Cases over a device that only reads; it holds [`sample`] everywhere.
#[must_use]
pub fn read_only_device_cases() -> Vec<Case<DeviceSubject>> {
    table![
        info_says_read_only,
        changes_of_a_read_only_device_are_denied_and_do_nothing,
        a_read_only_device_caches_but_never_zeroes_fast,
    ]
}

/// Cases over a device whose medium ends at half its capacity.
#[must_use]
pub fn short_device_cases() -> Vec<Case<DeviceSubject>> {
    table![
        l11_a_device_that_ends_early_is_corrupt_and_never_short,
        l11_hashes_of_what_is_not_there_are_an_error,
    ]
}

/// The device with comfort for tests.
struct Bench {
    device: Arc<dyn BlockDevice>,
    /// The smallest block: what "odd" means here.
    unit: u64,
    capacity: u64,
    _guard: Guard,
}

impl From<DeviceSubject> for Bench {
    fn from(subject: DeviceSubject) -> Self {
        let info = subject.device.info();
        let (unit, capacity) = (u64::from(info.block_sizes.minimum), info.capacity.bytes());
        Self { unit, capacity, device: subject.device, _guard: subject.guard }
    }
}

impl Bench {
    async fn write(&self, offset: u64, data: Bytes) {
        self.device.write_at(offset, data, Durability::Cached).await.unwrap();
    }

    async fn fill(&self, extent: Extent) {
        self.write(extent.offset(), filled(extent)).await;
    }

    async fn read(&self, extent: Extent) -> Bytes {
        let buffer = BytesMut::zeroed(length(extent));
        self.device.read_at(extent.offset(), buffer).await.unwrap().freeze()
    }

    /// Status of a whole extent, asked for as often as needed.
    async fn status(&self, extent: Extent) -> Vec<BlockStatus> {
        let mut all = Vec::new();
        let mut rest = Some(extent);
        while let Some(asked) = rest {
            let found = self.device.block_status(asked).await.unwrap();
            let end = found.last().expect("at least one entry").extent.end();
            assert_eq!(found[0].extent.offset(), asked.offset(), "it begins at the start of the extent");
            assert!(
                found.windows(2).all(|pair| pair[0].extent.end() == pair[1].extent.offset()),
                "{found:?}"
            );
            assert!(end <= asked.end(), "{asked}: {found:?}");
            all.extend(found);
            rest = Extent::between(end, asked.end());
        }
        all
    }

    fn whole(&self) -> Extent {
        Extent::new(0, self.capacity).unwrap()
    }

    /// Beyond the end in every way there is.
    fn beyond(&self) -> [Extent; 4] {
        let (unit, end) = (self.unit, self.capacity);
        let top = (u64::MAX / unit - 1) * unit;
        [(end - unit, 2 * unit), (end, unit), (end + unit, unit), (top, unit)]
            .map(|(offset, length)| Extent::new(offset, length).unwrap())
    }
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).unwrap()
}

fn length(extent: Extent) -> usize {
    usize::try_from(extent.length()).unwrap()
}

fn filled(extent: Extent) -> Bytes {
    sample(extent.offset(), length(extent))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

async fn info_is_sound(subject: DeviceSubject) {
    let info = subject.device.info();
    let sizes = info.block_sizes;
    assert!(info.capacity >= DEVICE_CAPACITY, "{info:?}");
    assert!([sizes.minimum, sizes.preferred, sizes.maximum].iter().all(|size| size.is_power_of_two()));
    assert!(sizes.minimum <= sizes.preferred && sizes.preferred <= sizes.maximum, "{sizes:?}");
    assert_eq!(info.access, Access::ReadWrite);
}

async fn reads_give_back_what_was_written(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    assert!(is_zero(&bench.read(extent(0, 256 << 10)).await), "the subject is fresh");
    let all = extent(64 << 10, 128 << 10);
    bench.fill(all).await;
    assert_eq!(bench.read(all).await, filled(all));
}

async fn odd_offsets_and_lengths_are_served_and_neighbours_stay(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let around = extent(0, 32 << 10);
    bench.fill(around).await;
    let odd = extent(8192 - 3 * bench.unit, 4096 + 5 * bench.unit);
    bench.write(odd.offset(), Bytes::from(vec![0xee; length(odd)])).await;
    let after = bench.read(around).await;
    let (start, end) = (usize::try_from(odd.offset()).unwrap(), usize::try_from(odd.end()).unwrap());
    assert_eq!(after[..start], filled(around)[..start]);
    assert!(after[start..end].iter().all(|byte| *byte == 0xee));
    assert_eq!(after[end..], filled(around)[end..]);
    assert_eq!(bench.read(odd).await, after.slice(start..end));
}

async fn the_last_partial_block_is_served(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    for count in [1, 3, 9] {
        let last = extent(bench.capacity - count * bench.unit, count * bench.unit);
        bench.fill(last).await;
        assert_eq!(bench.read(last).await, filled(last));
        bench.device.write_zeroes(last, Zeroing::Punch, Durability::Cached).await.unwrap();
        assert!(is_zero(&bench.read(last).await));
    }
}

async fn large_requests_are_served(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let maximum = u64::from(bench.device.info().block_sizes.maximum);
    let large = extent(0, maximum.min(bench.capacity / bench.unit * bench.unit).min(1 << 20));
    bench.fill(large).await;
    assert_eq!(bench.read(large).await, filled(large));
}

async fn an_empty_buffer_comes_back_at_once(subject: DeviceSubject) {
    let buffer = subject.device.read_at(0, BytesMut::new()).await.unwrap();
    assert!(buffer.is_empty());
}

async fn reads_beyond_the_capacity_are_invalid(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    for beyond in bench.beyond() {
        let error =
            bench.device.read_at(beyond.offset(), BytesMut::zeroed(length(beyond))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    }
}

async fn writes_beyond_the_capacity_are_invalid_and_do_nothing(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let last = extent(bench.capacity - bench.unit, bench.unit);
    for beyond in bench.beyond() {
        for durability in [Durability::Cached, Durability::Durable] {
            let call = bench.device.write_at(beyond.offset(), filled(beyond), durability).await;
            assert_eq!(call.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
    assert!(is_zero(&bench.read(last).await));
}

async fn zeroes_and_trims_beyond_the_capacity_are_invalid_and_do_nothing(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let last = extent(bench.capacity - bench.unit, bench.unit);
    bench.fill(last).await;
    for beyond in bench.beyond() {
        for zeroing in [Zeroing::Punch, Zeroing::Allocate] {
            let call = bench.device.write_zeroes(beyond, zeroing, Durability::Cached).await;
            assert_eq!(call.unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(bench.device.trim(beyond).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(bench.read(last).await, filled(last));
}

async fn block_status_beyond_the_capacity_is_invalid(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    for beyond in bench.beyond() {
        let error = bench.device.block_status(beyond).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    }
}

async fn zeroed_extents_read_as_zero_and_neighbours_stay(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let around = extent(0, 64 << 10);
    let odd = extent(4096 + bench.unit, (32 << 10) + 3 * bench.unit);
    let (start, end) = (usize::try_from(odd.offset()).unwrap(), usize::try_from(odd.end()).unwrap());
    for zeroing in [Zeroing::Punch, Zeroing::Allocate] {
        for durability in [Durability::Cached, Durability::Durable] {
            bench.fill(around).await;
            bench.device.write_zeroes(odd, zeroing, durability).await.unwrap();
            let after = bench.read(around).await;
            assert_eq!(after[..start], filled(around)[..start], "{zeroing:?}");
            assert!(is_zero(&after[start..end]), "{zeroing:?}");
            assert_eq!(after[end..], filled(around)[end..], "{zeroing:?}");
        }
    }
}

async fn zeroes_may_be_as_long_as_the_device(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let (first, last) = (extent(0, 8192), extent(bench.capacity - bench.unit, bench.unit));
    for zeroing in [Zeroing::Punch, Zeroing::Allocate] {
        bench.fill(first).await;
        bench.fill(last).await;
        bench.device.write_zeroes(bench.whole(), zeroing, Durability::Cached).await.unwrap();
        assert!(is_zero(&bench.read(first).await) && is_zero(&bench.read(last).await), "{zeroing:?}");
    }
}

async fn trim_changes_nothing_outside_and_the_extent_can_be_written_again(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let around = extent(0, 64 << 10);
    bench.fill(around).await;
    let trimmed = extent(4096 - bench.unit, (16 << 10) + bench.unit);
    bench.device.trim(trimmed).await.unwrap();
    let (start, end) = (usize::try_from(trimmed.offset()).unwrap(), usize::try_from(trimmed.end()).unwrap());
    let after = bench.read(around).await;
    assert_eq!(after[..start], filled(around)[..start]);
    assert_eq!(after[end..], filled(around)[end..]);
    bench.fill(trimmed).await;
    assert_eq!(bench.read(around).await, filled(around));
}

async fn a_device_that_cannot_trim_keeps_the_content(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let all = extent(0, 16 << 10);
    bench.fill(all).await;
    bench.device.trim(all).await.unwrap();
    let kept = bench.read(all).await == filled(all);
    assert!(kept || bench.device.info().can_trim, "it said that it cannot trim, but it did");
}

async fn flush_and_durable_writes_keep_the_content(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    bench.device.flush().await.unwrap();
    let (cached, durable) = (extent(0, 4096), extent(8192, 4096));
    bench.fill(cached).await;
    bench.device.write_at(durable.offset(), filled(durable), Durability::Durable).await.unwrap();
    assert_eq!(bench.read(durable).await, filled(durable));
    bench.device.flush().await.unwrap();
    assert_eq!(bench.read(cached).await, filled(cached));
    assert_eq!(bench.read(durable).await, filled(durable));
}

async fn changes_are_idempotent(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let (data, zeroed) = (extent(0, 12 << 10), extent(4096, 4096));
    for _ in 0..2 {
        bench.fill(data).await;
        bench.fill(data).await;
        for _ in 0..2 {
            bench.device.write_zeroes(zeroed, Zeroing::Punch, Durability::Cached).await.unwrap();
            bench.device.flush().await.unwrap();
        }
        let after = bench.read(data).await;
        assert_eq!(after[..4096], filled(data)[..4096]);
        assert!(is_zero(&after[4096..8192]));
        assert_eq!(after[8192..], filled(data)[8192..]);
        bench.device.trim(data).await.unwrap();
        bench.device.trim(data).await.unwrap();
    }
}

async fn block_status_is_in_order_without_gaps_and_never_beyond(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    for offset in [64 << 10, 256 << 10, 260 << 10, 900 << 10] {
        bench.fill(extent(offset, 4096)).await;
    }
    let inner = extent(bench.unit, (300 << 10) - 3 * bench.unit);
    for asked in [bench.whole(), inner, extent(64 << 10, bench.unit)] {
        let found = bench.status(asked).await;
        assert_eq!(found.last().unwrap().extent.end(), asked.end());
    }
}

async fn l10_block_status_says_zero_only_where_zeroes_are_read(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    bench.fill(extent(0, 128 << 10)).await;
    bench.fill(extent((512 << 10) + bench.unit, bench.unit)).await;
    bench.fill(extent(bench.capacity - bench.unit, bench.unit)).await;
    let holes = [(extent(8192, 16 << 10), Zeroing::Punch), (extent(64 << 10, 8192), Zeroing::Allocate)];
    for (hole, zeroing) in holes {
        bench.device.write_zeroes(hole, zeroing, Durability::Cached).await.unwrap();
    }
    for found in bench.status(bench.whole()).await {
        for piece in found.extent.pieces(64 << 10) {
            let zero = is_zero(&bench.read(piece).await);
            assert!(zero || !found.kind.reads_zero(), "{found:?} holds data in {piece}");
        }
    }
}

async fn a_device_without_block_status_answers_data(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let knows = bench.device.info().can_block_status;
    let found = bench.status(bench.whole()).await;
    let only_data = found.iter().all(|status| status.kind == BlockStatusKind::Data);
    assert!(knows || only_data, "it said that it knows nothing: {found:?}");
}

async fn many_calls_are_under_way_at_once(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let pieces: Vec<_> = extent(0, 1 << 20).pieces(8192).collect();
    join_all(pieces.iter().map(|piece| bench.fill(*piece))).await;
    let found = join_all(pieces.iter().map(|piece| bench.read(*piece))).await;
    for (piece, bytes) in pieces.iter().zip(found) {
        assert_eq!(bytes, filled(*piece), "{piece}");
    }
}

async fn overlapping_writes_are_applied_in_some_order(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let shared = extent(4096 - bench.unit, 8192);
    for _ in 0..8 {
        let writers = (1..=8u8).map(|byte| bench.write(shared.offset(), vec![byte; length(shared)].into()));
        join_all(writers).await;
        let after = bench.read(shared).await;
        assert!((1..=8).contains(&after[0]));
        assert!(after.iter().all(|byte| *byte == after[0]), "two writes were mixed");
    }
}

async fn a_call_sees_what_returned_before_it_began(subject: DeviceSubject) {
    let bench = Arc::new(Bench::from(subject));
    let place = extent(12 << 10, 4096);
    for round in 1..=32u8 {
        let writer = bench.clone();
        tokio::spawn(async move { writer.write(place.offset(), vec![round; 4096].into()).await })
            .await
            .unwrap();
        let reader = bench.clone();
        let seen = tokio::spawn(async move { reader.read(place).await }).await.unwrap();
        assert!(seen.iter().all(|byte| *byte == round));
    }
}

async fn a_dropped_write_changes_nothing_outside_its_extent(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let (around, middle) = (extent(0, 64 << 10), 16 << 10..48 << 10);
    let old = filled(around);
    bench.fill(around).await;
    for polls in 0..4 {
        let data = Bytes::from(vec![0xee; middle.len()]);
        tokio::select! {
            biased;
            () = yields(polls) => {}
            () = bench.write(16 << 10, data) => {}
        }
        let after = bench.read(around).await;
        for (at, byte) in after.iter().enumerate() {
            let new = middle.contains(&at) && *byte == 0xee;
            assert!(new || *byte == old[at], "byte {at} is {byte:#x}");
        }
    }
}

async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

async fn info_says_read_only(subject: DeviceSubject) {
    assert_eq!(subject.device.info().access, Access::ReadOnly);
    assert!(subject.device.info().capacity >= DEVICE_CAPACITY);
}

async fn changes_of_a_read_only_device_are_denied_and_do_nothing(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let all = extent(0, 64 << 10);
    for durability in [Durability::Cached, Durability::Durable] {
        let write = bench.device.write_at(0, Bytes::from(vec![0; length(all)]), durability).await;
        assert_eq!(write.unwrap_err().kind(), ErrorKind::PermissionDenied);
        for zeroing in [Zeroing::Punch, Zeroing::Allocate] {
            let zeroes = bench.device.write_zeroes(all, zeroing, durability).await;
            assert_eq!(zeroes.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    }
    assert_eq!(bench.device.trim(all).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(bench.read(all).await, filled(all));
}

async fn l11_a_device_that_ends_early_is_corrupt_and_never_short(subject: DeviceSubject) {
    let bench = Bench::from(subject);
    let end = bench.capacity / 2 / bench.unit * bench.unit;
    bench.read(extent(end - bench.unit, bench.unit)).await;
    for (offset, units) in [(end - bench.unit, 2), (end, 1), (bench.capacity - bench.unit, 1)] {
        let buffer = BytesMut::zeroed(usize::try_from(units * bench.unit).unwrap());
        let error = bench.device.read_at(offset, buffer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
    }
}
