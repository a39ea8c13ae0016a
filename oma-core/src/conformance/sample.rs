use bytes::Bytes;

/// Content for tests: `length` bytes that belong at `offset`, none of them zero, so that a byte at a wrong place or not
/// written is seen.
#[must_use]
pub fn sample(offset: u64, length: usize) -> Bytes {
    (offset..).take(length).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] | 1).collect()
}
