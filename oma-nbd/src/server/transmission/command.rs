//! What a request asks for, checked before anything is done.

use std::borrow::Cow;

use oma_core::Extent;
use oma_core::traits::{Durability, Zeroing};

use crate::protocol::{
    NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_REQ_ONE,
    NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_EINVAL, NBD_ENOSPC,
    NBD_EPERM, Request,
};
use crate::server::served::Served;

/// A request that may be done. An empty extent is `None`: there is nothing to do, with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read { offset: u64, length: usize },
    Write { offset: u64, durability: Durability },
    Flush,
    Trim { extent: Option<Extent>, durability: Durability },
    WriteZeroes { extent: Option<Extent>, zeroing: Zeroing, durability: Durability },
    BlockStatus { extent: Extent, one: bool },
}

/// Why a request is answered with an error: its number and a sentence for readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: u32,
    pub(super) message: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(error: u32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { error, message: message.into() }
    }
}

/// Flags that every command takes: some clients set FUA on all of them.
const ANYWHERE: u16 = NBD_CMD_FLAG_FUA;

impl Command {
    /// Checks a request.
    pub(super) fn check(served: &Served, max_payload: u32, request: &Request) -> Result<Self, Refusal> {
        let durability = match request.flags & NBD_CMD_FLAG_FUA {
            0 => Durability::Cached,
            _ => Durability::Durable,
        };
        let offset = request.offset;
        Ok(match request.command {
            NBD_CMD_READ => {
                flags(request, NBD_CMD_FLAG_DF)?;
                extent(served, request, NBD_EINVAL)?;
                if request.length > max_payload {
                    return Err(Refusal::new(
                        NBD_EINVAL,
                        format!("at most {max_payload} bytes are read at once"),
                    ));
                }
                let length = usize::try_from(request.length).expect("a payload fits memory");
                Self::Read { offset, length }
            }
            NBD_CMD_WRITE => {
                flags(request, 0)?;
                writable(served)?;
                extent(served, request, NBD_ENOSPC)?;
                Self::Write { offset, durability }
            }
            NBD_CMD_FLUSH => {
                flags(request, 0)?;
                Self::Flush
            }
            NBD_CMD_TRIM => {
                flags(request, 0)?;
                writable(served)?;
                Self::Trim { extent: extent(served, request, NBD_EINVAL)?, durability }
            }
            NBD_CMD_WRITE_ZEROES => {
                flags(request, NBD_CMD_FLAG_NO_HOLE)?;
                writable(served)?;
                let zeroing = match request.flags & NBD_CMD_FLAG_NO_HOLE {
                    0 => Zeroing::Punch,
                    _ => Zeroing::Allocate,
                };
                Self::WriteZeroes { extent: extent(served, request, NBD_ENOSPC)?, zeroing, durability }
            }
            NBD_CMD_BLOCK_STATUS => {
                flags(request, NBD_CMD_FLAG_REQ_ONE)?;
                let extent = extent(served, request, NBD_EINVAL)?;
                let extent = extent.ok_or_else(|| Refusal::new(NBD_EINVAL, "nothing has no status"))?;
                Self::BlockStatus { extent, one: request.flags & NBD_CMD_FLAG_REQ_ONE != 0 }
            }
            unknown => return Err(Refusal::new(NBD_EINVAL, format!("command {unknown} is not known"))),
        })
    }
}

fn flags(request: &Request, allowed: u16) -> Result<(), Refusal> {
    match request.flags & !(allowed | ANYWHERE) {
        0 => Ok(()),
        unknown => Err(Refusal::new(NBD_EINVAL, format!("flags {unknown:#x} are not possible here"))),
    }
}

fn writable(served: &Served) -> Result<(), Refusal> {
    match served.is_read_only() {
        true => Err(Refusal::new(NBD_EPERM, "the export is read-only")),
        false => Ok(()),
    }
}

/// The extent of a request; `beyond` is the error when it does not end within the export.
fn extent(served: &Served, request: &Request, beyond: u32) -> Result<Option<Extent>, Refusal> {
    let (offset, length) = (request.offset, u64::from(request.length));
    let size = served.export.capacity.bytes();
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(Refusal::new(
            beyond,
            format!("{length} bytes at {offset} end beyond the {size} bytes of the export"),
        ));
    }
    let block = u64::from(served.device.info().block_sizes.minimum.max(1));
    if !(offset.is_multiple_of(block) && length.is_multiple_of(block)) {
        return Err(Refusal::new(NBD_EINVAL, format!("offset and length must be multiples of {block}")));
    }
    Ok(Extent::new(offset, length).ok())
}
