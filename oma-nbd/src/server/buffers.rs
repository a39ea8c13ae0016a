//! Buffers that are used again: fresh memory costs a page fault for every 4 KiB.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use oma_core::page_aligned;

/// Smallest buffer: 2^12 bytes.
const SMALLEST: usize = 12;
/// Largest buffer kept: 2^26 bytes, the largest payload taken by default.
const LARGEST: usize = 26;
/// No more is kept while unused.
const KEPT: usize = 64 << 20;

/// A pool of buffers with sizes of powers of two.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    classes: [Vec<BytesMut>; LARGEST - SMALLEST + 1],
    bytes: usize,
}

impl Buffers {
    /// A buffer of exactly `length` bytes with whatever was in it, or zeroes.
    pub(super) fn take(&self, length: usize) -> BytesMut {
        let size = length.next_power_of_two().max(1 << SMALLEST);
        let kept = class(size).and_then(|class| {
            let mut kept = self.kept();
            let buffer = kept.classes[class].pop()?;
            kept.bytes -= size;
            Some(buffer)
        });
        let mut buffer = kept.unwrap_or_else(|| page_aligned(size));
        buffer.resize(length, 0);
        buffer
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buffer: BytesMut) {
        let Some(class) = class(buffer.capacity()) else { return };
        let size = 1 << (class + SMALLEST);
        let mut kept = self.kept();
        if kept.bytes + size <= KEPT {
            kept.bytes += size;
            kept.classes[class].push(buffer);
        }
    }

    /// Makes bytes of a buffer, which comes back when the last handle on them is dropped.
    pub(super) fn lend(&self, buffer: BytesMut) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Worst case after a panic is a wrong count of bytes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The class of buffers with this capacity: to be aligned, they have a little more than their size.
fn class(capacity: usize) -> Option<usize> {
    let exponent = usize::try_from(capacity.checked_ilog2()?).ok()?;
    (SMALLEST..=LARGEST).contains(&exponent).then(|| exponent - SMALLEST)
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("bytes", &self.kept().bytes).finish_non_exhaustive()
    }
}

struct Lent {
    buffer: BytesMut,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_handle_is_dropped() {
        let buffers = Buffers::default();
        let bytes = buffers.lend(buffers.take(5000));
        let second = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(buffers.kept().bytes, 0);
        drop(second);
        assert_eq!(buffers.kept().bytes, 8192);
        assert_eq!(buffers.take(8000).len(), 8000);
        assert_eq!(buffers.kept().bytes, 0);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let buffers = Buffers::default();
        let taken: Vec<_> = (0..3).map(|_| buffers.take(32 << 20)).collect();
        taken.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.kept().bytes, 64 << 20);
        buffers.give(BytesMut::new());
        buffers.give(BytesMut::with_capacity(1 << 27));
        assert_eq!(buffers.kept().bytes, 64 << 20);
    }
}
