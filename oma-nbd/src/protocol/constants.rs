//! Numbers of the protocol, named as in its document.

/// First magic of the greeting: `NBDMAGIC`.
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of the greeting and magic of an option: `IHAVEOPT`.
pub const NBD_OPTS_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second magic of the greeting of an oldstyle server, which has no options.
pub const NBD_CLISERV_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Magic of a reply to an option.
pub const NBD_REP_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic of a request.
pub const NBD_REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic of a request with 64 bits of length.
pub const NBD_EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Magic of a simple reply.
pub const NBD_SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Magic of a chunk of a structured reply.
pub const NBD_STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Magic of a chunk of a reply with 64 bits of length.
pub const NBD_EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Handshake flag of the server: it speaks fixed newstyle.
pub const NBD_FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag of the server: it can leave out the 124 zeroes behind an `EXPORT_NAME` reply.
pub const NBD_FLAG_NO_ZEROES: u16 = 1 << 1;
/// Flag of the client: it speaks fixed newstyle.
pub const NBD_FLAG_C_FIXED_NEWSTYLE: u32 = 1 << 0;
/// Flag of the client: leave out the 124 zeroes.
pub const NBD_FLAG_C_NO_ZEROES: u32 = 1 << 1;

/// Option: open an export and end the handshake, without a way to refuse but to disconnect.
pub const NBD_OPT_EXPORT_NAME: u32 = 1;
/// Option: end the session.
pub const NBD_OPT_ABORT: u32 = 2;
/// Option: list the exports.
pub const NBD_OPT_LIST: u32 = 3;
/// Option: begin TLS.
pub const NBD_OPT_STARTTLS: u32 = 5;
/// Option: tell about an export.
pub const NBD_OPT_INFO: u32 = 6;
/// Option: open an export and end the handshake.
pub const NBD_OPT_GO: u32 = 7;
/// Option: use structured replies.
pub const NBD_OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: list the metadata contexts of an export.
pub const NBD_OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: choose metadata contexts for block status.
pub const NBD_OPT_SET_META_CONTEXT: u32 = 10;
/// Option: use headers with 64-bit lengths.
pub const NBD_OPT_EXTENDED_HEADERS: u32 = 11;

/// Reply to an option: done.
pub const NBD_REP_ACK: u32 = 1;
/// Reply to an option: one export of a list.
pub const NBD_REP_SERVER: u32 = 2;
/// Reply to an option: one piece of information about an export.
pub const NBD_REP_INFO: u32 = 3;
/// Reply to an option: one metadata context.
pub const NBD_REP_META_CONTEXT: u32 = 4;
/// Bit of all replies that refuse an option.
pub const NBD_REP_FLAG_ERROR: u32 = 1 << 31;
/// Refusal: unknown option.
pub const NBD_REP_ERR_UNSUP: u32 = NBD_REP_FLAG_ERROR + 1;
/// Refusal: forbidden by policy.
pub const NBD_REP_ERR_POLICY: u32 = NBD_REP_FLAG_ERROR + 2;
/// Refusal: the payload is not what the option needs.
pub const NBD_REP_ERR_INVALID: u32 = NBD_REP_FLAG_ERROR + 3;
/// Refusal: not on this platform.
pub const NBD_REP_ERR_PLATFORM: u32 = NBD_REP_FLAG_ERROR + 4;
/// Refusal: begin TLS first.
pub const NBD_REP_ERR_TLS_REQD: u32 = NBD_REP_FLAG_ERROR + 5;
/// Refusal: no such export.
pub const NBD_REP_ERR_UNKNOWN: u32 = NBD_REP_FLAG_ERROR + 6;
/// Refusal: the server is shutting down.
pub const NBD_REP_ERR_SHUTDOWN: u32 = NBD_REP_FLAG_ERROR + 7;
/// Refusal: the client must ask for block sizes.
pub const NBD_REP_ERR_BLOCK_SIZE_REQD: u32 = NBD_REP_FLAG_ERROR + 8;
/// Refusal: the payload is too large.
pub const NBD_REP_ERR_TOO_BIG: u32 = NBD_REP_FLAG_ERROR + 9;
/// Refusal: extended headers are on already.
pub const NBD_REP_ERR_EXT_HEADER_REQD: u32 = NBD_REP_FLAG_ERROR + 10;

/// Information: size and transmission flags.
pub const NBD_INFO_EXPORT: u16 = 0;
/// Information: canonical name.
pub const NBD_INFO_NAME: u16 = 1;
/// Information: description.
pub const NBD_INFO_DESCRIPTION: u16 = 2;
/// Information: block sizes.
pub const NBD_INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flag: always set.
pub const NBD_FLAG_HAS_FLAGS: u16 = 1 << 0;
/// Transmission flag: no changes allowed.
pub const NBD_FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: flush works.
pub const NBD_FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: FUA works.
pub const NBD_FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: a spinning disk.
pub const NBD_FLAG_ROTATIONAL: u16 = 1 << 4;
/// Transmission flag: trim works.
pub const NBD_FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: write-zeroes works.
pub const NBD_FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `NBD_CMD_FLAG_DF` works; only with structured replies.
pub const NBD_FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: a flush on one connection covers the writes of all.
pub const NBD_FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: resize works (experimental).
pub const NBD_FLAG_SEND_RESIZE: u16 = 1 << 9;
/// Transmission flag: cache works.
pub const NBD_FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `NBD_CMD_FLAG_FAST_ZERO` works.
pub const NBD_FLAG_SEND_FAST_ZERO: u16 = 1 << 11;
/// Transmission flag: block status takes a payload; only with extended headers.
pub const NBD_FLAG_BLOCK_STAT_PAYLOAD: u16 = 1 << 12;

/// Command: read.
pub const NBD_CMD_READ: u16 = 0;
/// Command: write.
pub const NBD_CMD_WRITE: u16 = 1;
/// Command: disconnect.
pub const NBD_CMD_DISC: u16 = 2;
/// Command: flush.
pub const NBD_CMD_FLUSH: u16 = 3;
/// Command: trim.
pub const NBD_CMD_TRIM: u16 = 4;
/// Command: cache.
pub const NBD_CMD_CACHE: u16 = 5;
/// Command: write zeroes.
pub const NBD_CMD_WRITE_ZEROES: u16 = 6;
/// Command: block status.
pub const NBD_CMD_BLOCK_STATUS: u16 = 7;
/// Command: resize (experimental); the request's offset is the new size.
pub const NBD_CMD_RESIZE: u16 = 8;

/// Command flag: durable before the reply.
pub const NBD_CMD_FLAG_FUA: u16 = 1 << 0;
/// Command flag: zeroes keep their space.
pub const NBD_CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag: one data chunk, not several.
pub const NBD_CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag: one extent of block status.
pub const NBD_CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag: zeroes only if that is faster than writing.
pub const NBD_CMD_FLAG_FAST_ZERO: u16 = 1 << 4;
/// Command flag: the length is that of a payload; only with extended headers.
pub const NBD_CMD_FLAG_PAYLOAD_LEN: u16 = 1 << 5;

/// Chunk flag: the last one.
pub const NBD_REPLY_FLAG_DONE: u16 = 1 << 0;
/// Chunk: nothing more to say.
pub const NBD_REPLY_TYPE_NONE: u16 = 0;
/// Chunk: offset and data.
pub const NBD_REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk: offset and length of zeroes.
pub const NBD_REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk: status of one metadata context.
pub const NBD_REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Chunk: status of one metadata context with 64 bits of length and flags; only with extended headers.
pub const NBD_REPLY_TYPE_BLOCK_STATUS_EXT: u16 = 6;
/// Bit of all chunks that tell an error.
pub const NBD_REPLY_TYPE_ERROR_BIT: u16 = 1 << 15;
/// Chunk: error.
pub const NBD_REPLY_TYPE_ERROR: u16 = NBD_REPLY_TYPE_ERROR_BIT + 1;
/// Chunk: error at an offset.
pub const NBD_REPLY_TYPE_ERROR_OFFSET: u16 = NBD_REPLY_TYPE_ERROR_BIT + 2;

/// Name of the metadata context that tells allocation.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Flag of `base:allocation`: not allocated.
pub const NBD_STATE_HOLE: u32 = 1 << 0;
/// Flag of `base:allocation`: reads as zero.
pub const NBD_STATE_ZERO: u32 = 1 << 1;
/// Names of the metadata contexts that tell QEMU's dirty bitmaps begin so.
pub const QEMU_DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// Flag of `qemu:dirty-bitmap:`: changed.
pub const NBD_STATE_DIRTY: u32 = 1 << 0;
/// Name of the metadata context that tells from which image of a chain the content comes: 0 for none, 1 for the topmost.
pub const QEMU_ALLOCATION_DEPTH: &str = "qemu:allocation-depth";
/// Name of our metadata context that tells which extents are durable in the running epoch.
pub const OMA_EPOCH: &str = "x-oma:epoch";
/// Flag of `x-oma:epoch`: durable, so it need not be copied again in this epoch.
pub const OMA_STATE_DURABLE: u32 = 1 << 0;
/// Name of our metadata context that tells which extents have changed since the last epoch.
pub const OMA_DIRTY: &str = "x-oma:dirty";
/// Flag of `x-oma:dirty`: changed.
pub const OMA_STATE_DIRTY: u32 = 1 << 0;
/// Name of our metadata context that tells BLAKE3 hashes of the data, in flags of 64 bits: only with extended headers.
pub const OMA_BLAKE3: &str = "x-oma:blake3";

/// Error: not permitted.
pub const NBD_EPERM: u32 = 1;
/// Error: input or output failed.
pub const NBD_EIO: u32 = 5;
/// Error: out of memory.
pub const NBD_ENOMEM: u32 = 12;
/// Error: invalid argument.
pub const NBD_EINVAL: u32 = 22;
/// Error: no space.
pub const NBD_ENOSPC: u32 = 28;
/// Error: too large.
pub const NBD_EOVERFLOW: u32 = 75;
/// Error: not supported.
pub const NBD_ENOTSUP: u32 = 95;
/// Error: shutting down.
pub const NBD_ESHUTDOWN: u32 = 108;

/// No text of the protocol (export name, query, error message) is longer, in bytes.
pub const MAX_STRING: usize = 4096;
/// No chunk of block status tells more extents.
pub const MAX_DESCRIPTORS: usize = 1 << 20;
/// What a client may assume of a server that tells no block sizes, in bytes of payload.
pub const DEFAULT_MAX_PAYLOAD: u32 = 32 << 20;
