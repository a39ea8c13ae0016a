//! The content of a memory device: a sparse map of fixed pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Extent;
use crate::traits::{BlockStatus, BlockStatusKind};

/// Unit of allocation.
pub(super) const PAGE: usize = 4096;
const PAGE_BYTES: u64 = 4096;

/// Allocated pages by number; every other one is a hole. A clone shares pages until one of both is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(BTreeMap<u64, Page>);

#[derive(Clone, Debug)]
enum Page {
    Zero,
    Data(Arc<[u8; PAGE]>),
}

/// The part of an extent in one page: the page's number, where it begins there, where in the extent, how long it is.
struct Part {
    page: u64,
    at: usize,
    from: usize,
    length: usize,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.length == PAGE
    }
}

fn parts(extent: Extent) -> impl Iterator<Item = Part> {
    let size = |bytes: u64| usize::try_from(bytes).expect("memory holds no more than usize");
    extent.pieces(PAGE_BYTES).map(move |piece| Part {
        page: piece.offset() / PAGE_BYTES,
        at: size(piece.offset() % PAGE_BYTES),
        from: size(piece.offset() - extent.offset()),
        length: size(piece.length()),
    })
}

impl Pages {
    /// Fills `buffer`, which is as long as the extent.
    pub(super) fn read(&self, extent: Extent, buffer: &mut [u8]) {
        for part in parts(extent) {
            let target = &mut buffer[part.from..part.from + part.length];
            match self.0.get(&part.page) {
                Some(Page::Data(data)) => target.copy_from_slice(&data[part.at..part.at + part.length]),
                Some(Page::Zero) | None => target.fill(0),
            }
        }
    }

    /// Takes `data`, which is as long as the extent.
    pub(super) fn write(&mut self, extent: Extent, data: &[u8]) {
        for part in parts(extent) {
            let target = self.data(part.page);
            target[part.at..part.at + part.length].copy_from_slice(&data[part.from..part.from + part.length]);
        }
    }

    /// Zeroes the extent; whole pages are given back.
    pub(super) fn punch(&mut self, extent: Extent) {
        // Not page by page: the extent may be as long as the device.
        let touched = extent.offset() / PAGE_BYTES..=(extent.end() - 1) / PAGE_BYTES;
        let allocated: Vec<u64> = self.0.range(touched).map(|(page, _)| *page).collect();
        for page in allocated {
            let whole = Extent::between(page * PAGE_BYTES, (page + 1).saturating_mul(PAGE_BYTES));
            let Some(part) = whole.and_then(|whole| whole.intersection(extent)) else { continue };
            if Some(part) == whole {
                self.0.remove(&page);
            } else {
                self.zero_part(part);
            }
        }
    }

    /// Zeroes the extent; all its pages are allocated afterwards.
    pub(super) fn zero(&mut self, extent: Extent) {
        for part in parts(extent) {
            if part.is_whole() {
                self.0.insert(part.page, Page::Zero);
            } else {
                self.data(part.page)[part.at..part.at + part.length].fill(0);
            }
        }
    }

    /// The status of the whole extent.
    pub(super) fn status(&self, extent: Extent) -> Vec<BlockStatus> {
        let mut found: Vec<BlockStatus> = Vec::new();
        let mut push = |extent: Option<Extent>, kind: BlockStatusKind| match (extent, found.last_mut()) {
            (None, _) => {}
            (Some(extent), Some(last)) if last.kind == kind => {
                last.extent = Extent::between(last.extent.offset(), extent.end()).unwrap_or(extent);
            }
            (Some(extent), _) => found.push(BlockStatus { extent, kind }),
        };
        let mut at = extent.offset();
        for (page, content) in self.0.range(extent.offset() / PAGE_BYTES..=(extent.end() - 1) / PAGE_BYTES) {
            let start = (page * PAGE_BYTES).max(at);
            let end = (page + 1).saturating_mul(PAGE_BYTES).min(extent.end());
            let kind = match content {
                Page::Zero => BlockStatusKind::Zero,
                Page::Data(_) => BlockStatusKind::Data,
            };
            push(Extent::between(at, start), BlockStatusKind::Hole);
            push(Extent::between(start, end), kind);
            at = end;
        }
        push(Extent::between(at, extent.end()), BlockStatusKind::Hole);
        found
    }

    fn zero_part(&mut self, extent: Extent) {
        for part in parts(extent) {
            if let Some(Page::Data(data)) = self.0.get_mut(&part.page) {
                Arc::make_mut(data)[part.at..part.at + part.length].fill(0);
            }
        }
    }

    fn data(&mut self, page: u64) -> &mut [u8; PAGE] {
        let slot = self.0.entry(page).or_insert(Page::Zero);
        if matches!(slot, Page::Zero) {
            *slot = Page::Data(Arc::new([0; PAGE]));
        }
        match slot {
            Page::Data(data) => Arc::make_mut(data),
            Page::Zero => unreachable!("a zero page was just made a data page"),
        }
    }
}
