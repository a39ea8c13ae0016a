//! Memory for data on its way.

use bytes::{Buf, BytesMut};

/// Buffers begin at multiples of this: the page size of most machines, and what direct I/O asks for.
const ALIGNMENT: usize = 4096;

/// A buffer of zeroes that begins at a page.
///
/// Data of disks lies in pages. Processors with fast string instructions copy it several times slower to where it lies a few
/// bytes behind the beginning of a page, which is where an allocator puts a large buffer.
///
/// ```
/// let buffer = oma_core::page_aligned(100_000);
/// assert_eq!(buffer.len(), 100_000);
/// assert_eq!(buffer.as_ptr().addr() % 4096, 0);
/// ```
#[must_use]
pub fn page_aligned(length: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(length + ALIGNMENT - 1);
    let address = buffer.as_ptr().addr();
    buffer.advance(address.next_multiple_of(ALIGNMENT) - address);
    buffer.truncate(length);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned(buffer: &[u8]) -> bool {
        buffer.as_ptr().addr().is_multiple_of(ALIGNMENT)
    }

    #[test]
    fn a_buffer_stays_where_it_is_while_it_is_used_again() {
        for length in [1, 4095, 4096, 4097, 1 << 20] {
            let mut buffer = page_aligned(length);
            assert!(is_aligned(&buffer) && buffer.len() == length && buffer.iter().all(|byte| *byte == 0));
            buffer.truncate(length / 2);
            buffer.resize(length, 1);
            let tail = buffer.split_off(length / 2);
            buffer.unsplit(tail);
            let frozen = buffer.freeze();
            drop(frozen.slice(1..));
            let again = frozen.try_into_mut().unwrap();
            assert!(is_aligned(&again) && again.capacity() >= length);
        }
    }
}
