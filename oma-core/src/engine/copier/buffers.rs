//! Buffers that are used again: a fresh one costs a page fault for each 4 KiB.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::page_aligned;

#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<BytesMut>>,
}

impl Buffers {
    /// A buffer that begins at a page; it holds anything.
    pub(super) fn take(&self, length: usize) -> BytesMut {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut buffer) = kept.filter(|buffer| buffer.capacity() >= length) else {
            return page_aligned(length);
        };
        buffer.resize(length, 0);
        buffer
    }

    pub(super) fn give_back(&self, buffer: BytesMut) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }

    /// Keeps the buffer of data that nobody else holds.
    pub(super) fn recycle(&self, data: Bytes) {
        if let Ok(buffer) = data.try_into_mut() {
            self.give_back(buffer);
        }
    }
}
