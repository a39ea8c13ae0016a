use std::io;

use rustls::unbuffered::{EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, WriteTraffic};

/// Plain data of one record.
const RECORD: usize = 16 << 10;
/// No record is larger than its data by more than this.
const OVERHEAD: usize = 64;
/// Data that is sealed before the socket is asked to take it: less costs system calls, more falls out of the cache.
const SEALED: usize = 128 << 10;

/// Records that are sealed and not sent yet.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Small pieces on their way into one record.
    gathered: Vec<u8>,
}

impl Outgoing {
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Adds a message of TLS itself.
    pub(super) fn encode<D>(&mut self, message: &mut EncodeTlsData<'_, D>) -> Result<(), EncodeError> {
        let mut room = RECORD + OVERHEAD;
        loop {
            match message.encode(self.room(room)) {
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    room = required_size.max(room + 1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Seals as much of the data as fits; how much that is. Small pieces share a record.
    pub(super) fn seal<D>(
        &mut self,
        traffic: &mut WriteTraffic<'_, D>,
        data: &[io::IoSlice<'_>],
    ) -> Result<usize, EncryptError> {
        let mut left = SEALED;
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.clear();
        for piece in data {
            let mut piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            while !piece.is_empty() {
                if gathered.is_empty() && piece.len() >= RECORD {
                    let (whole, rest) = piece.split_at(piece.len() - piece.len() % RECORD);
                    self.seal_piece(traffic, whole)?;
                    piece = rest;
                    continue;
                }
                let (part, rest) = piece.split_at(piece.len().min(RECORD - gathered.len()));
                gathered.extend_from_slice(part);
                piece = rest;
                if gathered.len() == RECORD {
                    self.seal_piece(traffic, &gathered)?;
                    gathered.clear();
                }
            }
        }
        self.seal_piece(traffic, &gathered)?;
        self.gathered = gathered;
        Ok(SEALED - left)
    }

    /// Adds the end of all data.
    pub(super) fn close<D>(&mut self, traffic: &mut WriteTraffic<'_, D>) -> Result<(), EncryptError> {
        self.with_room(OVERHEAD, |room| traffic.queue_close_notify(room))
    }

    fn seal_piece<D>(&mut self, traffic: &mut WriteTraffic<'_, D>, piece: &[u8]) -> Result<(), EncryptError> {
        if piece.is_empty() {
            return Ok(());
        }
        let room = piece.len() + OVERHEAD * (1 + piece.len() / RECORD);
        self.with_room(room, |room| traffic.encrypt(piece, room))
    }

    fn with_room(
        &mut self,
        mut room: usize,
        mut fill: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), EncryptError> {
        loop {
            match fill(self.room(room)) {
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    room = required_size.max(room + 1);
                }
                Err(error @ EncryptError::EncryptExhausted) => return Err(error),
            }
        }
    }

    fn room(&mut self, count: usize) -> &mut [u8] {
        let end = self.end + count;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.end..end]
    }
}
