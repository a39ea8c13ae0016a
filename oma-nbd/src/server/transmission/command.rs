//! What a request asks for, checked before anything is done.

use std::borrow::Cow;

use oma_core::Extent;
use oma_core::traits::{Durability, Zeroing};

use crate::protocol::{
    ExtendedRequest, Headers, NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FAST_ZERO,
    NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_FLUSH,
    NBD_CMD_READ, NBD_CMD_RESIZE, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_EINVAL, NBD_ENOSPC,
    NBD_EOVERFLOW, NBD_EPERM, StatusPayload,
};
use crate::server::served::Served;

/// A request that may be done. An empty extent is `None`: there is nothing to do, with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read {
        offset: u64,
        length: usize,
    },
    Write {
        offset: u64,
        durability: Durability,
    },
    Flush,
    Trim {
        extent: Option<Extent>,
        durability: Durability,
    },
    WriteZeroes {
        extent: Option<Extent>,
        zeroing: Zeroing,
        durability: Durability,
        fast: bool,
    },
    Cache {
        extent: Option<Extent>,
    },
    /// `filtered`: only of the contexts that the payload names.
    BlockStatus {
        extent: Extent,
        one: bool,
        filtered: bool,
    },
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
/// A longer list of contexts is not even looked at: more could never be agreed on in the handshake.
const LONGEST_FILTER: usize = 64 << 10;

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) served: &'a Served,
    pub(super) headers: Headers,
    pub(super) max_payload: u32,
}

impl Command {
    /// Checks a request and its payload.
    pub(super) fn check(
        terms: Terms<'_>,
        request: &ExtendedRequest,
        payload: &[u8],
    ) -> Result<Self, Refusal> {
        let served = terms.served;
        let durability = match request.flags & NBD_CMD_FLAG_FUA {
            0 => Durability::Cached,
            _ => Durability::Durable,
        };
        let offset = request.offset;
        Ok(match request.command {
            NBD_CMD_READ => terms.read(request)?,
            NBD_CMD_WRITE => {
                flags(request, terms.payload_flag())?;
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
            NBD_CMD_CACHE if served.device.info().can_cache => {
                flags(request, 0)?;
                Self::Cache { extent: extent(served, request, NBD_EINVAL)? }
            }
            NBD_CMD_WRITE_ZEROES => {
                flags(request, NBD_CMD_FLAG_NO_HOLE | fast_flag(served))?;
                writable(served)?;
                let zeroing = match request.flags & NBD_CMD_FLAG_NO_HOLE {
                    0 => Zeroing::Punch,
                    _ => Zeroing::Allocate,
                };
                let fast = request.flags & NBD_CMD_FLAG_FAST_ZERO != 0;
                Self::WriteZeroes { extent: extent(served, request, NBD_ENOSPC)?, zeroing, durability, fast }
            }
            NBD_CMD_BLOCK_STATUS => terms.block_status(request, payload)?,
            NBD_CMD_RESIZE => return Err(Refusal::new(NBD_EINVAL, "an export keeps its size")),
            unknown => return Err(Refusal::new(NBD_EINVAL, format!("command {unknown} is not possible"))),
        })
    }
}

impl Terms<'_> {
    fn read(self, request: &ExtendedRequest) -> Result<Command, Refusal> {
        flags(request, NBD_CMD_FLAG_DF)?;
        extent(self.served, request, NBD_EINVAL)?;
        if request.length > self.max_payload.into() {
            let unbroken = request.flags & NBD_CMD_FLAG_DF != 0 || self.headers == Headers::Extended;
            let error = if unbroken { NBD_EOVERFLOW } else { NBD_EINVAL };
            return Err(Refusal::new(error, format!("at most {} bytes are read at once", self.max_payload)));
        }
        let length = usize::try_from(request.length).expect("a payload fits memory");
        Ok(Command::Read { offset: request.offset, length })
    }

    fn block_status(self, request: &ExtendedRequest, payload: &[u8]) -> Result<Command, Refusal> {
        flags(request, NBD_CMD_FLAG_REQ_ONE | self.payload_flag())?;
        let filtered = request.has_payload();
        let mut asked = *request;
        if filtered {
            asked.length = filter(payload)?.length;
        }
        let extent = extent(self.served, &asked, NBD_EINVAL)?;
        let extent = extent.ok_or_else(|| Refusal::new(NBD_EINVAL, "nothing has no status"))?;
        Ok(Command::BlockStatus { extent, one: request.flags & NBD_CMD_FLAG_REQ_ONE != 0, filtered })
    }

    /// The flag of requests that come with a payload, where there is one.
    fn payload_flag(self) -> u16 {
        if self.headers == Headers::Extended { NBD_CMD_FLAG_PAYLOAD_LEN } else { 0 }
    }
}

/// The payload of block status, which names some contexts.
pub(super) fn filter(payload: &[u8]) -> Result<StatusPayload, Refusal> {
    if payload.len() > LONGEST_FILTER {
        return Err(Refusal::new(NBD_EINVAL, "there are not as many contexts"));
    }
    StatusPayload::decode(payload).map_err(|malformed| Refusal::new(NBD_EINVAL, malformed.to_string()))
}

fn fast_flag(served: &Served) -> u16 {
    if served.device.info().can_zero_fast { NBD_CMD_FLAG_FAST_ZERO } else { 0 }
}

fn flags(request: &ExtendedRequest, allowed: u16) -> Result<(), Refusal> {
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
fn extent(served: &Served, request: &ExtendedRequest, beyond: u32) -> Result<Option<Extent>, Refusal> {
    let (offset, length) = (request.offset, request.length);
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
