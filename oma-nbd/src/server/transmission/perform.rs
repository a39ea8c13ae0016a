//! Does what a command says.

use bytes::{Bytes, BytesMut};
use oma_core::traits::{BlockDevice, Durability, Zeroing};
use oma_core::tree::AT_ONCE;
use oma_core::{Error, ErrorKind, Extent};
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::command::{Command, Refusal, filter};
use crate::protocol::{
    ExtendedDescriptor, MAX_STRING, NBD_EINVAL, NBD_EIO, NBD_ENOSPC, NBD_ENOTSUP, NBD_EPERM, NBD_ESHUTDOWN,
};
use crate::server::MetaContext;
use crate::server::buffers::Buffers;
use crate::server::handshake::Selected;
use crate::server::served::Served;

/// One reply tells no more extents: the client asks again from where it ends.
const MAX_TOLD: usize = 8192;
/// Zeroes that may have to be written are written in steps of so many bytes, so that they can be stopped between two.
const STEP: u64 = 1 << 30;
/// A request to cache more is done in part: it is a hint, and nobody shall wait for a whole disk to be read.
const MOST_CACHED: u64 = 1 << 30;
/// For the end of one run a context is asked this much at first, then twice as much, and so on.
const GLANCE: u64 = 4 << 20;

/// What a request is answered with.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Data(BytesMut),
    Status(Vec<Told>),
}

/// The extents of one metadata context, from the request's offset.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) context: u32,
    pub(super) extents: Vec<ExtendedDescriptor>,
}

/// What calls of one connection share.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) served: &'a Served,
    /// The contexts that were agreed on.
    pub(super) contexts: &'a [Selected],
    pub(super) buffers: &'a Buffers,
    /// The connection is gone: what only waits for its turn is not begun any more.
    pub(super) gone: &'a CancellationToken,
}

/// Bytes of data that a command may have read only to compute something of them.
pub(super) fn computed(contexts: &[Selected], command: Command, payload: &[u8]) -> u64 {
    let Command::BlockStatus { extent, filtered, .. } = command else { return 0 };
    let named = if filtered { filter(payload).ok() } else { None };
    let asked = |known: &&Selected| named.as_ref().is_none_or(|named| named.contexts.contains(&known.id));
    match contexts.iter().filter(asked).any(|known| known.context.is_computed()) {
        true => extent.length().min(AT_ONCE),
        false => 0,
    }
}

/// Does a command, with its payload, and waits for its end.
pub(super) async fn perform(scene: Scene<'_>, command: Command, payload: Bytes) -> Result<Answer, Refusal> {
    let Scene { served, buffers, .. } = scene;
    let device = &*served.device;
    match command {
        Command::Read { length: 0, .. } => {}
        Command::Read { offset, length } => {
            let data = read(device, offset, buffers.take(length)).await?;
            if data.len() != length {
                // Sent as it is, it would shift every byte behind it (L11).
                return Err(Refusal::new(NBD_EIO, "the device answered another number of bytes"));
            }
            return Ok(Answer::Data(data));
        }
        Command::Write { offset, durability } => write(device, offset, payload, durability).await?,
        Command::Flush => device.flush().await?,
        Command::Trim { extent, durability } => {
            if let Some(extent) = extent {
                device.trim(extent).await?;
            }
            if durability == Durability::Durable {
                device.flush().await?;
            }
        }
        Command::WriteZeroes { extent: Some(extent), zeroing, durability, fast: true } => {
            if !zero_fast(device, extent, zeroing, durability).await? {
                return Err(Refusal::new(NBD_ENOTSUP, "zeroing is no faster than writing here"));
            }
        }
        Command::WriteZeroes { extent: Some(extent), zeroing, durability, fast: false } => {
            write_zeroes(served, extent, zeroing, durability).await?;
        }
        Command::Cache { extent: Some(extent) } => {
            let part = Extent::new(extent.offset(), extent.length().min(MOST_CACHED));
            device.cache(part.unwrap_or(extent)).await?;
        }
        Command::WriteZeroes { extent: None, .. } | Command::Cache { extent: None } => {}
        Command::BlockStatus { extent, one, filtered } => {
            let named = if filtered { Some(filter(&payload)?.contexts) } else { None };
            return status(&scene, named.as_deref(), extent, one).await;
        }
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

/// Whether the device zeroed an extent without writing it.
async fn zero_fast(
    device: &dyn BlockDevice,
    extent: Extent,
    zeroing: Zeroing,
    durability: Durability,
) -> Result<bool, Refusal> {
    match device.zero_fast(extent, zeroing, durability).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn write_zeroes(
    served: &Served,
    extent: Extent,
    zeroing: Zeroing,
    durability: Durability,
) -> Result<(), Refusal> {
    let device = &*served.device;
    let far = extent.length() > STEP && device.info().can_zero_fast;
    if far && zero_fast(device, extent, zeroing, durability).await? {
        return Ok(());
    }
    for step in extent.pieces(STEP) {
        if served.stop.cut.is_cancelled() {
            return Err(Refusal::new(NBD_ESHUTDOWN, "the export went away before all was zeroed"));
        }
        device.write_zeroes(step, zeroing, durability).await?;
    }
    Ok(())
}

/// The status of an extent in the contexts that were agreed on, or in those of them that the request names.
async fn status(
    scene: &Scene<'_>,
    named: Option<&[u32]>,
    extent: Extent,
    one: bool,
) -> Result<Answer, Refusal> {
    let wanted: Vec<_> =
        scene.contexts.iter().filter(|known| named.is_none_or(|ids| ids.contains(&known.id))).collect();
    if named.is_some_and(|ids| ids.len() != wanted.len()) {
        return Err(Refusal::new(NBD_EINVAL, "a metadata context is named twice, or was not chosen"));
    }
    if wanted.is_empty() {
        return Err(Refusal::new(NBD_EINVAL, "no metadata context was chosen"));
    }
    let mut told = Vec::with_capacity(wanted.len());
    for Selected { id, context } in wanted {
        let _turn = match context.is_computed() {
            true => Some(turn(scene).await?),
            false => None,
        };
        told.push(Told { context: *id, extents: descriptors(&**context, extent, one).await? });
    }
    Ok(Answer::Status(told))
}

/// The right to compute, when it is this request's turn and its client is still there.
async fn turn<'a>(scene: &Scene<'a>) -> Result<SemaphorePermit<'a>, Refusal> {
    let left = || Refusal::new(NBD_ESHUTDOWN, "the connection is gone");
    tokio::select! {
        biased;
        () = scene.gone.cancelled() => Err(left()),
        turn = scene.served.turns.acquire() => turn.map_err(|_| left()),
    }
}

/// The extents of one context: neighbours with equal flags are one, the last one ends within the request.
async fn descriptors(
    context: &dyn MetaContext,
    extent: Extent,
    one: bool,
) -> Result<Vec<ExtendedDescriptor>, Refusal> {
    let mut found: Vec<ExtendedDescriptor> = Vec::new();
    let mut rest = Some(extent);
    // To find the end of one run, a context need not look at the whole disk: QEMU asks so for run after run.
    let mut glance = if one { GLANCE } else { u64::MAX };
    while let Some(begin) = rest {
        let end = begin.offset().saturating_add(glance).min(begin.end());
        let asked = Extent::between(begin.offset(), end).expect("a glance has at least one byte");
        glance = glance.saturating_mul(2);
        let answer = context.status(asked).await?;
        if answer.first().is_none_or(|first| first.extent.offset() != asked.offset()) {
            return Err(Refusal::new(NBD_EIO, "the metadata context told nothing of what was asked"));
        }
        for (part, flags) in answer.iter().filter_map(|s| Some((s.extent.intersection(asked)?, s.flags))) {
            let length = part.length();
            let enough = found.len() == if one { 1 } else { MAX_TOLD };
            match found.last_mut() {
                Some(last) if last.flags == flags => last.length = last.length.saturating_add(length),
                Some(_) if enough => return Ok(found),
                _ => found.push(ExtendedDescriptor { length, flags }),
            }
            rest = Extent::between(part.end(), extent.end());
        }
        if context.is_computed() {
            break;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::context::ContextStatus;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Runs of one length, every other one with a flag; counts the bytes that it was asked for.
    #[derive(Debug)]
    struct Runs {
        length: u64,
        asked: AtomicU64,
    }

    #[async_trait::async_trait]
    impl MetaContext for Runs {
        fn name(&self) -> &'static str {
            "x-test:runs"
        }

        fn is_computed(&self) -> bool {
            false
        }

        async fn status(&self, extent: Extent) -> oma_core::Result<Vec<ContextStatus>> {
            self.asked.fetch_add(extent.length(), Ordering::Relaxed);
            let status =
                |part: Extent| ContextStatus { extent: part, flags: part.offset() / self.length % 2 };
            Ok(extent.pieces(self.length).map(status).collect())
        }
    }

    #[tokio::test]
    async fn for_the_end_of_one_run_no_context_looks_at_the_whole_disk() {
        for length in [1 << 10, 1 << 20, 100 << 20] {
            let context = Runs { length, asked: AtomicU64::new(0) };
            let disk = Extent::new(length / 2, 1 << 36).unwrap();
            let found = descriptors(&context, disk, true).await.unwrap();
            assert_eq!(found, [ExtendedDescriptor { length: length - length / 2, flags: 0 }]);
            let asked = context.asked.load(Ordering::Relaxed);
            assert!(asked <= GLANCE.max(4 * length), "{asked} for a run of {length}");
        }
    }
}
