//! The client as a block device: requests cut to what the server takes.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::{join_all, try_join_all};
use oma_core::traits::{
    Access, BlockDevice, BlockStatus, BlockStatusKind, DeviceInfo, Durability, InPlace, LeafHasher, Zeroing,
};
use oma_core::{Extent, Result};

use super::Client;
use super::connection::Request;
use super::decoder::{Answer, Expected};
use super::error::{Failure, Violation};
use super::status::allocation;
use crate::protocol::{
    BASE_ALLOCATION, Headers, NBD_CMD_CACHE, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE,
    NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_ENOTSUP, NBD_FLAG_SEND_FLUSH,
    NBD_FLAG_SEND_FUA, NBD_FLAG_SEND_WRITE_ZEROES,
};

/// No request without data is longer, unless it has extended headers and is sure to be quick: a multiple of every block
/// size, and short enough that a server that has to write zeroes one by one answers within the time of a request.
const LONGEST: u64 = 1 << 30;

/// The beginning of an extent that one quick request without data can cover.
pub(super) fn head(headers: Headers, extent: Extent) -> Extent {
    match headers {
        Headers::Extended => extent,
        Headers::Simple | Headers::Structured => start(extent),
    }
}

/// The beginning of an extent, no longer than [`LONGEST`].
fn start(extent: Extent) -> Extent {
    Extent::new(extent.offset(), extent.length().min(LONGEST)).unwrap_or(extent)
}

#[async_trait]
impl BlockDevice for Client {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        if self.info.check("read", offset, wide(buffer.len()))?.is_none() {
            return Ok(buffer);
        }
        self.read(offset, buffer).await.map_err(|failure| self.failed("read", failure))
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        if self.info.check_change("write", offset, wide(data.len()))?.is_none() {
            return Ok(());
        }
        self.write(offset, data, durability).await.map_err(|failure| self.failed("write", failure))
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.info.check_change("write zeroes", extent.offset(), extent.length())?;
        self.zero(extent, zeroing, durability).await.map_err(|failure| self.failed("write zeroes", failure))
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.info.check_change("write zeroes fast", extent.offset(), extent.length())?;
        let zeroed = self.zero_only_fast(extent, zeroing, durability).await;
        zeroed.map_err(|failure| self.failed("write zeroes fast", failure))
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.info.check_change("trim", extent.offset(), extent.length())?;
        if !self.info.can_trim {
            return Ok(());
        }
        self.trim_all(extent).await.map_err(|failure| self.failed("trim", failure))
    }

    async fn flush(&self) -> Result<()> {
        if self.info.access == Access::ReadOnly {
            return Ok(());
        }
        self.flush_all().await.map_err(|failure| self.failed("flush", failure))
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.info.check("cache", extent.offset(), extent.length())?;
        if !self.info.can_cache {
            return Ok(());
        }
        self.read_ahead(extent).await.map_err(|failure| self.failed("cache", failure))
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.info.check("ask for the status", extent.offset(), extent.length())?;
        if !self.info.can_block_status {
            return Ok(vec![BlockStatus { extent, kind: BlockStatusKind::Data }]);
        }
        let found = self.status(BASE_ALLOCATION, extent).await;
        let found = found.map_err(|failure| self.failed("ask for the status", failure))?;
        Ok(found.into_iter().map(allocation).collect())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.has_hashes().then_some(self)
    }
}

impl Client {
    async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, Failure> {
        let maximum = self.payload();
        if buffer.len() <= maximum {
            return self.read_piece(offset, buffer).await;
        }
        let mut pieces = Vec::with_capacity(buffer.len().div_ceil(maximum));
        let mut at = offset;
        while !buffer.is_empty() {
            let piece = buffer.split_to(maximum.min(buffer.len()));
            let length = wide(piece.len());
            pieces.push(self.read_piece(at, piece));
            at += length;
        }
        // Each piece is a part of the same memory, so joining copies nothing.
        let mut whole = BytesMut::new();
        try_join_all(pieces).await?.into_iter().for_each(|piece| whole.unsplit(piece));
        Ok(whole)
    }

    async fn read_piece(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, Failure> {
        let request = Request::new(NBD_CMD_READ, offset, wide(buffer.len()));
        match self.pool.request(request.expecting(Expected::Data { offset, buffer })).await? {
            Answer::Data(buffer) => Ok(buffer),
            Answer::Done | Answer::Status(_) => Err(Violation::Unfit("a read without data").into()),
        }
    }

    async fn write(&self, offset: u64, mut data: Bytes, durability: Durability) -> Result<(), Failure> {
        let (maximum, plan) = (self.payload(), self.durably(durability)?);
        let mut pieces = Vec::with_capacity(data.len().div_ceil(maximum));
        let mut at = offset;
        while !data.is_empty() {
            let payload = data.split_to(maximum.min(data.len()));
            let length = wide(payload.len());
            let request = Request::new(NBD_CMD_WRITE, at, length);
            pieces.push(self.change(Request { flags: plan.flags, payload, ..request }));
            at += length;
        }
        // All of them, also when one has failed: none may land behind what is written there next.
        join_all(pieces).await.into_iter().collect::<Result<(), _>>()?;
        self.finish(&plan).await
    }

    async fn zero(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<(), Failure> {
        if !self.pool.export().has(NBD_FLAG_SEND_WRITE_ZEROES) {
            return self.write_zeroes_as_data(extent, durability).await;
        }
        let plan = self.durably(durability)?;
        let flags = plan.flags | keeping(zeroing);
        if !self.zero_far(flags, extent).await? {
            self.zero_in_steps(flags, Some(extent)).await?;
        }
        self.finish(&plan).await
    }

    /// Zeroes what is too long for a request that may be slow by one that is quick; false when the server has none.
    async fn zero_far(&self, flags: u16, extent: Extent) -> Result<bool, Failure> {
        let far = head(self.pool.export().headers, extent).length() > LONGEST;
        if !far || !self.info.can_zero_fast {
            return Ok(false);
        }
        let request = Request::new(NBD_CMD_WRITE_ZEROES, extent.offset(), extent.length());
        match self.change(Request { flags: flags | NBD_CMD_FLAG_FAST_ZERO, ..request }).await {
            Ok(()) => Ok(true),
            Err(Failure::Server { errno: NBD_ENOTSUP, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn zero_in_steps(&self, flags: u16, extent: Option<Extent>) -> Result<(), Failure> {
        let mut rest = extent;
        while let Some(extent) = rest {
            let piece = start(extent);
            let request = Request::new(NBD_CMD_WRITE_ZEROES, piece.offset(), piece.length());
            self.change(Request { flags, ..request }).await?;
            rest = Extent::between(piece.end(), extent.end());
        }
        Ok(())
    }

    async fn zero_only_fast(
        &self,
        extent: Extent,
        zeroing: Zeroing,
        durability: Durability,
    ) -> Result<(), Failure> {
        if !self.info.can_zero_fast {
            return Err(Failure::Cannot("zero faster than write"));
        }
        let plan = self.durably(durability)?;
        let flags = plan.flags | keeping(zeroing);
        let first = head(self.pool.export().headers, extent);
        let request = Request::new(NBD_CMD_WRITE_ZEROES, first.offset(), first.length());
        self.change(Request { flags: flags | NBD_CMD_FLAG_FAST_ZERO, ..request }).await?;
        // Something has changed, so the rest must not be refused any more.
        self.zero_in_steps(flags, Extent::between(first.end(), extent.end())).await?;
        self.finish(&plan).await
    }

    /// Asks for an extent to be cached, in pieces no larger than a read: a server may do it by reading.
    async fn read_ahead(&self, extent: Extent) -> Result<(), Failure> {
        for piece in extent.pieces(self.info.block_sizes.maximum.into()) {
            self.pool.request(Request::new(NBD_CMD_CACHE, piece.offset(), piece.length())).await?;
        }
        Ok(())
    }

    async fn write_zeroes_as_data(&self, extent: Extent, durability: Durability) -> Result<(), Failure> {
        const PIECE: usize = 1 << 20;
        let size = PIECE.min(self.payload());
        let zeroes = Bytes::from(vec![0; size]);
        for piece in extent.pieces(wide(size)) {
            let length = usize::try_from(piece.length()).expect("a piece is no longer than its size");
            self.write(piece.offset(), zeroes.slice(..length), durability).await?;
        }
        Ok(())
    }

    async fn trim_all(&self, extent: Extent) -> Result<(), Failure> {
        let mut rest = Some(extent);
        while let Some(extent) = rest {
            let piece = head(self.pool.export().headers, extent);
            self.change(Request::new(NBD_CMD_TRIM, piece.offset(), piece.length())).await?;
            rest = Extent::between(piece.end(), extent.end());
        }
        Ok(())
    }

    async fn change(&self, request: Request) -> Result<(), Failure> {
        if request.flags & NBD_CMD_FLAG_FUA != 0 {
            self.pool.request(request).await?;
        } else {
            self.pool.change(request).await?;
        }
        Ok(())
    }

    async fn flush_all(&self) -> Result<(), Failure> {
        if !self.pool.export().has(NBD_FLAG_SEND_FLUSH) {
            return Err(Failure::Cannot("flush, so nothing written there is ever known to be durable"));
        }
        self.pool.flush().await
    }

    /// How a change is made as durable as asked: by FUA, or by a flush behind it.
    fn durably(&self, durability: Durability) -> Result<Durably, Failure> {
        let export = self.pool.export();
        match durability {
            Durability::Cached => Ok(Durably { flags: 0, flush: None }),
            Durability::Durable if export.has(NBD_FLAG_SEND_FUA) => {
                Ok(Durably { flags: NBD_CMD_FLAG_FUA, flush: None })
            }
            Durability::Durable if export.has(NBD_FLAG_SEND_FLUSH) => {
                Ok(Durably { flags: 0, flush: Some(self.pool.losses()) })
            }
            Durability::Durable => Err(Failure::Cannot("make a write durable")),
        }
    }

    async fn finish(&self, plan: &Durably) -> Result<(), Failure> {
        let Some(losses) = plan.flush else { return Ok(()) };
        self.flush_all().await?;
        // Another flush may have told of a loss; this change may have been lost with it all the same.
        if self.pool.losses() == losses { Ok(()) } else { Err(Failure::WritesInDoubt) }
    }

    /// Bytes of data in one request.
    fn payload(&self) -> usize {
        usize::try_from(self.info.block_sizes.maximum).expect("a size of 32 bits fits usize")
    }
}

#[derive(Debug)]
struct Durably {
    flags: u16,
    /// Whether a flush is needed: the losses before the change began.
    flush: Option<u64>,
}

/// The flag that keeps the space of zeroes, when it is to be kept.
const fn keeping(zeroing: Zeroing) -> u16 {
    match zeroing {
        Zeroing::Punch => 0,
        Zeroing::Allocate => NBD_CMD_FLAG_NO_HOLE,
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}
