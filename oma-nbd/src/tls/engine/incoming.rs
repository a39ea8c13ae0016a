/// One record of plain data at most, with its header and what its protection adds in TLS 1.2.
const RECORD: usize = 5 + (16 << 10) + 2048;
/// A receive takes no more than this: a few records. Twice the longest handshake message that rustls takes.
const LARGEST: usize = 128 << 10;

/// Records that were received and not opened yet.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Lets go of bytes at the front.
    pub(super) fn discard(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "no more is discarded than is there");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for a receive; empty only when a peer sent a message that is longer than any may be.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.is_empty() {
            self.bytes.resize(RECORD, 0);
        } else if self.end == self.bytes.len() && self.bytes.len() < LARGEST {
            // The last receive filled it: more comes at once.
            let larger = (self.bytes.len() * 2).min(LARGEST);
            self.bytes.resize(larger, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Room for exactly so many bytes.
    pub(super) fn room(&mut self, count: usize) -> &mut [u8] {
        let end = self.end + count;
        if self.bytes.len() < end {
            self.bytes.resize(end.max(RECORD), 0);
        }
        &mut self.bytes[self.end..end]
    }

    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
    }
}
