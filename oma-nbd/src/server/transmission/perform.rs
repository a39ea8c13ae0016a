//! Does what a command says.

use bytes::{Bytes, BytesMut};
use oma_core::traits::{BlockDevice, Durability};
use oma_core::{Error, ErrorKind, Extent};

use super::command::{Command, Refusal};
use crate::protocol::{Chunk, Descriptor, MAX_STRING, NBD_EINVAL, NBD_EIO, NBD_ENOSPC, NBD_EPERM};
use crate::server::MetaContext;
use crate::server::buffers::Buffers;
use crate::server::handshake::Selected;
use crate::server::served::Served;

/// One reply tells no more extents: the client asks again from where it ends.
const MAX_TOLD: usize = 8192;

/// What a request is answered with.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Data { offset: u64, data: BytesMut },
    Status(Vec<Chunk<'static>>),
}

/// Does a command, with the data of a write, and waits for its end.
pub(super) async fn perform(
    served: &Served,
    contexts: &[Selected],
    buffers: &Buffers,
    command: Command,
    data: Bytes,
) -> Result<Answer, Refusal> {
    let device = &*served.device;
    match command {
        Command::Read { length: 0, .. } => {}
        Command::Read { offset, length } => {
            let data = read(device, offset, buffers.take(length)).await?;
            if data.len() != length {
                // Sent as it is, it would shift every byte behind it (L11).
                return Err(Refusal::new(NBD_EIO, "the device answered another number of bytes"));
            }
            return Ok(Answer::Data { offset, data });
        }
        Command::Write { offset, durability } => write(device, offset, data, durability).await?,
        Command::Flush => device.flush().await?,
        Command::Trim { extent, durability } => {
            if let Some(extent) = extent {
                device.trim(extent).await?;
            }
            if durability == Durability::Durable {
                device.flush().await?;
            }
        }
        Command::WriteZeroes { extent, zeroing, durability } => {
            if let Some(extent) = extent {
                device.write_zeroes(extent, zeroing, durability).await?;
            }
        }
        Command::BlockStatus { extent, one } => return status(contexts, extent, one).await,
    }
    Ok(Answer::Done)
}

/// Reads in pieces that the device takes. The buffer is cut and joined again without a copy.
async fn read(device: &dyn BlockDevice, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, Refusal> {
    let most = largest(device);
    if buffer.len() <= most {
        return Ok(device.read_at(offset, buffer).await?);
    }
    let mut whole = BytesMut::new();
    let mut at = offset;
    while !buffer.is_empty() {
        let piece = buffer.split_to(most.min(buffer.len()));
        let next = at + u64::try_from(piece.len()).expect("a buffer is smaller than 2^64");
        whole.unsplit(device.read_at(at, piece).await?);
        at = next;
    }
    Ok(whole)
}

async fn write(
    device: &dyn BlockDevice,
    offset: u64,
    mut data: Bytes,
    durability: Durability,
) -> Result<(), Refusal> {
    let most = largest(device);
    let mut at = offset;
    while !data.is_empty() {
        let piece = data.split_to(most.min(data.len()));
        let next = at + u64::try_from(piece.len()).expect("a buffer is smaller than 2^64");
        device.write_at(at, piece, durability).await?;
        at = next;
    }
    Ok(())
}

fn largest(device: &dyn BlockDevice) -> usize {
    usize::try_from(device.info().block_sizes.maximum.max(1)).unwrap_or(usize::MAX)
}

async fn status(contexts: &[Selected], extent: Extent, one: bool) -> Result<Answer, Refusal> {
    if contexts.is_empty() {
        return Err(Refusal::new(NBD_EINVAL, "no metadata context was chosen"));
    }
    let mut chunks = Vec::with_capacity(contexts.len());
    for Selected { id, context } in contexts {
        let descriptors = descriptors(&**context, extent, one).await?;
        chunks.push(Chunk::BlockStatus { context: *id, descriptors });
    }
    Ok(Answer::Status(chunks))
}

/// The extents of one context: neighbours with equal flags are one, the last one ends within the request.
async fn descriptors(
    context: &dyn MetaContext,
    extent: Extent,
    one: bool,
) -> Result<Vec<Descriptor>, Refusal> {
    let mut found: Vec<Descriptor> = Vec::new();
    let mut rest = Some(extent);
    while let Some(asked) = rest {
        let answer = context.status(asked).await?;
        if answer.first().is_none_or(|first| first.extent.offset() != asked.offset()) {
            return Err(Refusal::new(NBD_EIO, "the metadata context told nothing of what was asked"));
        }
        for (part, flags) in answer.iter().filter_map(|s| Some((s.extent.intersection(asked)?, s.flags))) {
            let length = u32::try_from(part.length()).expect("a request is no longer than 32 bits tell");
            let enough = found.len() == if one { 1 } else { MAX_TOLD };
            match found.last_mut() {
                Some(last) if last.flags == flags => last.length = last.length.saturating_add(length),
                Some(_) if enough => return Ok(found),
                _ => found.push(Descriptor { length, flags }),
            }
            rest = Extent::between(part.end(), extent.end());
        }
    }
    Ok(found)
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        tracing::warn!(error = error.chain(), "a device refused a request");
        let number = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::Fenced => NBD_EPERM,
            ErrorKind::NoSpace => NBD_ENOSPC,
            ErrorKind::Invalid | ErrorKind::Unsupported => NBD_EINVAL,
            _ => NBD_EIO,
        };
        let mut message = error.chain();
        message.truncate(message.floor_char_boundary(MAX_STRING));
        Self::new(number, message)
    }
}
