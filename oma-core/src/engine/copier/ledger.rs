//! Which pieces are under way, done and durable.

use std::collections::VecDeque;

use super::pieces::Piece;
use crate::{ByteSize, Extent};

/// Pieces in the order of the disk, from the last recorded mark on.
///
/// The *mark* is the first byte that is not done. Everything below it that the plan asked for is written, so one number
/// is the whole journal of a copy that goes in order.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: VecDeque<Entry>,
    below_mark: BelowMark,
    /// At most so much data is unrecorded.
    step: u64,
    unrecorded_data: u64,
    durable: u64,
    recorded_mark: u64,
    mark: u64,
    time_is_up: bool,
}

/// What is done below the mark and not recorded yet; counted as it comes, because millions of small pieces may wait.
#[derive(Debug, Default)]
struct BelowMark {
    entries: usize,
    /// Bytes of the work.
    bytes: u64,
    /// Bytes that were read.
    data: u64,
}

#[derive(Debug)]
struct Entry {
    extent: Extent,
    /// Bytes of the work.
    bytes: u64,
    /// Bytes that are read.
    data: u64,
    done: bool,
}

impl Ledger {
    pub(super) const fn new(step: ByteSize, resumed: ByteSize) -> Self {
        Self {
            entries: VecDeque::new(),
            below_mark: BelowMark { entries: 0, bytes: 0, data: 0 },
            step: step.bytes(),
            unrecorded_data: 0,
            durable: resumed.bytes(),
            recorded_mark: 0,
            mark: 0,
            time_is_up: false,
        }
    }

    /// Whether one more piece keeps the unrecorded data within the step.
    pub(super) fn has_room(&self, piece: ByteSize) -> bool {
        self.entries.is_empty() || self.unrecorded_data.saturating_add(piece.bytes()) <= self.step
    }

    pub(super) fn dispatched(&mut self, piece: &Piece) {
        let data = if piece.reads_zero { 0 } else { piece.extent.length() };
        self.unrecorded_data += data;
        self.entries.push_back(Entry { extent: piece.extent, bytes: piece.bytes(), data, done: false });
    }

    pub(super) fn done(&mut self, extent: Extent) {
        let found = self.entries.binary_search_by_key(&extent.offset(), |entry| entry.extent.offset());
        let index = found.expect("a piece is dispatched before it is done");
        self.entries[index].done = true;
        while let Some(entry) = self.entries.get(self.below_mark.entries).filter(|entry| entry.done) {
            self.below_mark.entries += 1;
            self.below_mark.bytes += entry.bytes;
            self.below_mark.data += entry.data;
            self.mark = entry.extent.end();
        }
    }

    /// First byte that is not done.
    pub(super) const fn mark(&self) -> u64 {
        self.mark
    }

    /// The mark of the last record.
    pub(super) const fn recorded_mark(&self) -> u64 {
        self.recorded_mark
    }

    /// Bytes of the plan that are in the journal.
    pub(super) const fn durable(&self) -> ByteSize {
        ByteSize::new(self.durable)
    }

    /// Bytes of the plan that are in the journal once the mark is recorded.
    pub(super) const fn durable_at_mark(&self) -> ByteSize {
        ByteSize::new(self.durable + self.below_mark.bytes)
    }

    /// The journal has waited long enough.
    pub(super) const fn is_time(&mut self) {
        self.time_is_up = true;
    }

    /// Whether to record now: enough data, enough time, or nothing else to do (`stuck`).
    pub(super) const fn is_due(&self, stuck: bool) -> bool {
        let is_due = stuck || self.time_is_up || self.below_mark.data >= self.step / 2;
        is_due && self.below_mark.entries > 0
    }

    /// Everything below `mark`, which was the mark once, is in the journal.
    pub(super) fn recorded(&mut self, mark: u64) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.extent.end() <= mark) {
            self.unrecorded_data -= entry.data;
            self.durable += entry.bytes;
            self.below_mark.entries -= 1;
            self.below_mark.bytes -= entry.bytes;
            self.below_mark.data -= entry.data;
        }
        self.recorded_mark = mark;
        self.time_is_up = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, length: u64, reads_zero: bool) -> Piece {
        let extent = Extent::new(offset, length).unwrap();
        Piece { extent, parts: vec![extent], reads_zero }
    }

    #[test]
    fn the_mark_waits_for_the_first_piece_under_way() {
        let mut ledger = Ledger::new(ByteSize::new(100), ByteSize::ZERO);
        for offset in [0, 10, 20] {
            ledger.dispatched(&piece(offset, 10, false));
        }
        ledger.done(Extent::new(10, 10).unwrap());
        assert_eq!((ledger.mark(), ledger.is_due(true)), (0, false));
        ledger.done(Extent::new(0, 10).unwrap());
        assert_eq!((ledger.mark(), ledger.durable_at_mark()), (20, ByteSize::new(20)));
    }

    #[test]
    fn unrecorded_data_never_exceeds_the_step() {
        let mut ledger = Ledger::new(ByteSize::new(30), ByteSize::ZERO);
        for offset in [0, 10, 20] {
            assert!(ledger.has_room(ByteSize::new(10)));
            ledger.dispatched(&piece(offset, 10, false));
        }
        assert!(!ledger.has_room(ByteSize::new(10)));
        ledger.done(Extent::new(0, 10).unwrap());
        assert!(!ledger.has_room(ByteSize::new(10)), "done is not durable");
        ledger.recorded(10);
        assert!(ledger.has_room(ByteSize::new(10)));
        assert_eq!(ledger.durable(), ByteSize::new(10));
    }

    #[test]
    fn zeroes_do_not_use_up_the_step() {
        let mut ledger = Ledger::new(ByteSize::new(30), ByteSize::ZERO);
        ledger.dispatched(&piece(0, 1 << 30, true));
        assert!(ledger.has_room(ByteSize::new(30)));
    }

    #[test]
    fn a_record_is_due_by_data_by_time_or_when_nothing_else_can_go_on() {
        let mut ledger = Ledger::new(ByteSize::new(100), ByteSize::ZERO);
        ledger.dispatched(&piece(0, 10, false));
        ledger.done(Extent::new(0, 10).unwrap());
        assert!(!ledger.is_due(false) && ledger.is_due(true));
        ledger.is_time();
        assert!(ledger.is_due(false));
        ledger.recorded(10);
        assert!(!ledger.is_due(true), "nothing to record");
        ledger.dispatched(&piece(10, 60, false));
        ledger.done(Extent::new(10, 60).unwrap());
        assert!(ledger.is_due(false));
    }

    #[test]
    fn what_was_done_while_a_record_was_made_waits_for_the_next() {
        let mut ledger = Ledger::new(ByteSize::new(100), ByteSize::new(7));
        for offset in [0, 10, 20, 30] {
            ledger.dispatched(&piece(offset, 10, false));
        }
        ledger.done(Extent::new(0, 10).unwrap());
        let mark = ledger.mark();
        ledger.done(Extent::new(20, 10).unwrap());
        ledger.done(Extent::new(10, 10).unwrap());
        ledger.recorded(mark);
        assert_eq!((ledger.recorded_mark(), ledger.durable()), (10, ByteSize::new(17)));
        assert_eq!(
            (ledger.mark(), ledger.durable_at_mark(), ledger.is_due(true)),
            (30, ByteSize::new(37), true)
        );
        ledger.recorded(30);
        assert!(!ledger.is_due(true), "the last piece is under way");
        ledger.done(Extent::new(30, 10).unwrap());
        assert_eq!((ledger.mark(), ledger.durable_at_mark()), (40, ByteSize::new(47)));
    }

    #[test]
    fn data_that_is_recorded_waits_for_no_further_record() {
        let mut ledger = Ledger::new(ByteSize::new(100), ByteSize::ZERO);
        for (offset, length) in [(0, 60), (60, 10)] {
            ledger.dispatched(&piece(offset, length, false));
            ledger.done(Extent::new(offset, length).unwrap());
            assert_eq!(ledger.is_due(false), length == 60);
            ledger.recorded(ledger.mark());
        }
    }
}
