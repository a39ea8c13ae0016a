//! Cuts the work of a disk into pieces, zeroes by the source's promise apart from what must be read.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;

use crate::engine::config::RetryConfig;
use crate::engine::retry::retry;
use crate::engine::zeroes::{WINDOW, status};
use crate::traits::{BlockDevice, BlockStatus, BlockStatusKind};
use crate::{ByteSize, Extent, ExtentSet, Result};

/// A part of the work that is moved in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// What is read.
    pub(super) extent: Extent,
    /// What of it is copied, in order: small gaps are read with their neighbours, because a request costs more.
    pub(super) parts: Vec<Extent>,
    /// The source promises that it reads as zero (L10).
    pub(super) reads_zero: bool,
}

impl Piece {
    fn new(extent: Extent, reads_zero: bool) -> Self {
        Self { extent, parts: vec![extent], reads_zero }
    }

    /// The same in pieces none of which crosses a multiple of `size`.
    pub(super) fn cut(&self, size: ByteSize) -> Vec<Self> {
        let size = size.bytes().max(1);
        let mut cut: Vec<Self> = Vec::new();
        for part in self.parts.iter().flat_map(|part| part.pieces(size)) {
            let same = |last: &&mut Self| last.extent.offset() / size == part.offset() / size;
            match cut.last_mut().filter(same) {
                Some(last) => last.join(part),
                None => cut.push(Self::new(part, self.reads_zero)),
            }
        }
        cut
    }

    /// Takes an extent behind its end to its own, and what lies between.
    fn join(&mut self, extent: Extent) {
        self.extent = Extent::between(self.extent.offset(), extent.end()).expect("it grows");
        self.parts.push(extent);
    }

    /// Bytes that are copied.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.length()).sum()
    }
}

/// How work is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// No piece of data crosses a multiple of it.
    pub(super) size: ByteSize,
    /// Data with at most this much between is one piece.
    pub(super) gap: ByteSize,
    /// Whether the source's word for zeroes is taken.
    pub(super) trust_zeroes: bool,
}

/// The pieces of `work`, in order. The source is asked as patiently as it is read.
pub(super) fn pieces(
    source: Arc<dyn BlockDevice>,
    work: &ExtentSet,
    cut: Cut,
    patience: RetryConfig,
) -> impl Stream<Item = Result<Piece>> {
    let end = work.last().map_or(0, Extent::end);
    let cutter =
        Cutter { source, work: work.iter(), front: None, end, ready: VecDeque::new(), cut, patience };
    stream::try_unfold(cutter, async |mut cutter| Ok(cutter.next().await?.map(|piece| (piece, cutter))))
}

struct Cutter<I> {
    source: Arc<dyn BlockDevice>,
    work: I,
    /// The rest of an extent that is in work.
    front: Option<Extent>,
    end: u64,
    ready: VecDeque<Piece>,
    cut: Cut,
    patience: RetryConfig,
}

impl<I: Iterator<Item = Extent>> Cutter<I> {
    async fn next(&mut self) -> Result<Option<Piece>> {
        while self.ready.is_empty() {
            let Some(first) = self.first() else { return Ok(None) };
            let end = self.end.min(first.offset().saturating_add(WINDOW));
            let window = Extent::between(first.offset(), end).expect("work has at least one byte");
            for status in self.status(window).await? {
                self.take(status);
            }
        }
        Ok(self.ready.pop_front())
    }

    /// What comes next and stays so.
    fn first(&mut self) -> Option<Extent> {
        self.front = self.front.take().or_else(|| self.work.next());
        self.front
    }

    async fn status(&self, window: Extent) -> Result<Vec<BlockStatus>> {
        if !self.cut.trust_zeroes || !self.source.info().can_block_status {
            return Ok(vec![BlockStatus { extent: window, kind: BlockStatusKind::Data }]);
        }
        // Whoever is stopped drops this.
        let never = CancellationToken::new();
        retry(&self.patience, &never, || status(&*self.source, window)).await
    }

    /// Moves the work within one status to the pieces.
    fn take(&mut self, status: BlockStatus) {
        let reads_zero = status.kind.reads_zero();
        let size = if reads_zero { WINDOW } else { self.cut.size.bytes().max(1) };
        while let Some(first) = self.first().filter(|first| first.offset() < status.extent.end()) {
            if let Some(inside) = first.intersection(status.extent) {
                inside.pieces(size).for_each(|extent| self.push(extent, reads_zero));
            }
            self.front = Extent::between(status.extent.end().max(first.offset()), first.end());
        }
    }

    /// Adds an extent to the last piece if reading what lies between costs less than another request.
    fn push(&mut self, extent: Extent, reads_zero: bool) {
        let (size, gap) = (self.cut.size.bytes().max(1), self.cut.gap.bytes());
        let joins = |last: &&mut Piece| {
            let near = extent.offset() - last.extent.end() <= gap;
            near && !last.reads_zero && last.extent.offset() / size == extent.offset() / size
        };
        match self.ready.back_mut().filter(joins) {
            Some(last) if !reads_zero => last.join(extent),
            _ => self.ready.push_back(Piece::new(extent, reads_zero)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDevice;
    use crate::traits::Durability;
    use bytes::Bytes;
    use futures_util::TryStreamExt as _;
    use proptest::prelude::*;

    const CAPACITY: u64 = 100_000;

    fn now<T>(call: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(call).expect("memory answers at once")
    }

    fn cut(work: &ExtentSet, data: &[(u64, u64)], cut: Cut) -> Vec<Piece> {
        let device = MemoryDevice::new("d", ByteSize::new(CAPACITY));
        for (offset, length) in data {
            let bytes = Bytes::from(vec![1; usize::try_from(*length).unwrap()]);
            now(device.write_at(*offset, bytes, Durability::Cached)).unwrap();
        }
        now(pieces(Arc::new(device), work, cut, RetryConfig::default()).try_collect()).unwrap()
    }

    fn set(list: &[(u64, u64)]) -> ExtentSet {
        list.iter().map(|(offset, length)| Extent::new(*offset, *length).unwrap()).collect()
    }

    const CUT: Cut = Cut { size: ByteSize::new(10_000), gap: ByteSize::new(50), trust_zeroes: true };

    #[test]
    fn neighbours_are_read_at_once_when_the_gap_is_small() {
        let whole = [(0, CAPACITY)];
        let work = set(&[(100, 10), (150, 10), (300, 10), (9_990, 5), (10_000, 5)]);
        let found = cut(&work, &whole, CUT);
        let parts: Vec<usize> = found.iter().map(|piece| piece.parts.len()).collect();
        assert_eq!(parts, [2, 1, 1, 1]);
        assert_eq!((found[0].extent, found[0].bytes()), (Extent::new(100, 60).unwrap(), 20));
    }

    #[test]
    fn the_source_is_asked_once_a_window_however_many_extents_it_has() {
        for extents in [1000, 10_000] {
            let device = MemoryDevice::new("d", ByteSize::gib(1));
            let page = |extent: u64| Extent::new(extent << 16, 4096).unwrap();
            for extent in (0..extents).step_by(2) {
                let bytes = Bytes::from_static(&[1; 4096]);
                now(device.write_at(page(extent).offset(), bytes, Durability::Cached)).unwrap();
            }
            let work = (0..extents).map(page).collect();
            let cut = Cut { size: ByteSize::kib(64), ..CUT };
            let cut = pieces(Arc::new(device.clone()), &work, cut, RetryConfig::default());
            let found: Vec<Piece> = now(cut.try_collect()).unwrap();
            let zeroes = found.iter().filter(|piece| piece.reads_zero).count();
            assert_eq!(
                (device.calls().statuses, 2 * zeroes, found.len()),
                (1, found.len(), usize::try_from(extents).unwrap())
            );
        }
    }

    #[test]
    fn a_piece_is_cut_at_multiples_of_a_size_and_keeps_its_parts() {
        let found = cut(&set(&[(100, 10), (150, 9_800), (9_980, 20)]), &[(0, CAPACITY)], CUT).remove(0);
        let pieces = found.cut(ByteSize::new(4_000));
        let told: Vec<_> =
            pieces.iter().map(|piece| (<(u64, u64)>::from(piece.extent), piece.parts.len())).collect();
        assert_eq!(told, [((100, 3_900), 2), ((4_000, 4_000), 1), ((8_000, 2_000), 2)]);
        assert_eq!(pieces.iter().map(Piece::bytes).sum::<u64>(), found.bytes());
        assert_eq!(found.cut(ByteSize::new(20_000)), std::slice::from_ref(&found));
    }

    #[test]
    fn l10_a_promise_that_is_not_taken_means_reading_everything() {
        let work = set(&[(0, CAPACITY)]);
        let distrust = cut(&work, &[], Cut { trust_zeroes: false, ..CUT });
        assert!(distrust.len() == 10 && distrust.iter().all(|piece| !piece.reads_zero));
        assert!(cut(&work, &[], CUT).iter().all(|piece| piece.reads_zero));
    }

    proptest! {
        #[test]
        fn pieces_cover_exactly_the_work_in_order(
            work in prop::collection::vec((0..CAPACITY - 3_000, 1u64..3_000), 0..20),
            data in prop::collection::vec((0..CAPACITY - 9_000, 1u64..9_000), 0..6),
            size in 1u64..20_000,
            gap in 0u64..5_000,
        ) {
            let work = set(&work);
            let found = cut(&work, &data, Cut { size: ByteSize::new(size), gap: ByteSize::new(gap), trust_zeroes: true });
            prop_assert!(found.windows(2).all(|pair| pair[0].extent.end() <= pair[1].extent.offset()));
            let copied: Vec<Extent> = found.iter().flat_map(|piece| piece.parts.clone()).collect();
            prop_assert!(copied.windows(2).all(|pair| pair[0].end() <= pair[1].offset()));
            prop_assert_eq!(copied.into_iter().collect::<ExtentSet>(), work);
            for piece in found.iter().filter(|piece| !piece.reads_zero) {
                prop_assert!(piece.extent.offset() / size == (piece.extent.end() - 1) / size);
            }
        }
    }
}
