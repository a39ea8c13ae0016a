//! What the handshake tells of an export.

use std::fmt;

use oma_core::traits::BlockSizes;

use super::error::{Failure, Violation};
use crate::protocol::{
    DEFAULT_MAX_PAYLOAD, Headers, NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY,
};

/// No payload is larger, whatever the server allows.
const MAX_PAYLOAD: u32 = 64 << 20;
/// No smallest block is larger; the protocol says so.
const MAX_MINIMUM: u32 = 64 << 10;

/// An export, as one connection found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) size: u64,
    pub(super) flags: u16,
    pub(super) block_sizes: BlockSizes,
    pub(super) headers: Headers,
    /// Names and ids of the metadata contexts.
    pub(super) contexts: Vec<(String, u32)>,
}

impl Default for Export {
    fn default() -> Self {
        let block_sizes = BlockSizes { minimum: 1, preferred: 4096, maximum: DEFAULT_MAX_PAYLOAD };
        let (flags, headers) = (NBD_FLAG_HAS_FLAGS, Headers::Simple);
        Self { size: 0, flags, block_sizes, headers, contexts: Vec::new() }
    }
}

/// What a server told of block sizes, made usable: the maximum is rounded down to a power of two and [`MAX_PAYLOAD`].
pub(super) fn block_sizes(minimum: u32, preferred: u32, maximum: u32) -> Result<BlockSizes, Violation> {
    let sane = minimum.is_power_of_two()
        && minimum <= MAX_MINIMUM
        && preferred.is_power_of_two()
        && preferred >= minimum
        && maximum >= minimum;
    if !sane {
        return Err(Violation::Handshake("block sizes that contradict each other"));
    }
    let maximum = 1 << maximum.min(MAX_PAYLOAD).ilog2();
    Ok(BlockSizes { minimum, preferred: preferred.min(maximum), maximum })
}

impl Export {
    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.size > i64::MAX.unsigned_abs() {
            return Err(Violation::Handshake("an export of more than 2^63 bytes").into());
        }
        if !self.size.is_multiple_of(self.block_sizes.minimum.into()) {
            return Err(Violation::Handshake("a size that is no multiple of the smallest block").into());
        }
        Ok(())
    }

    /// Whether the server set a transmission flag.
    pub(super) const fn has(&self, flag: u16) -> bool {
        self.flags & NBD_FLAG_HAS_FLAGS != 0 && self.flags & flag != 0
    }

    /// The id of a metadata context.
    pub(super) fn context(&self, name: &str) -> Option<u32> {
        self.contexts.iter().find(|(known, _)| known == name).map(|(_, id)| *id)
    }

    /// Refuses another export than `before` behind the same name.
    pub(super) fn same_as(&self, before: &Self) -> Result<(), Failure> {
        let names = |export: &Self| export.contexts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let same = self.size == before.size
            && self.flags == before.flags
            && self.block_sizes == before.block_sizes
            && self.headers == before.headers
            && names(self) == names(before);
        if same {
            return Ok(());
        }
        Err(Failure::Changed { before: before.to_string(), after: self.to_string() })
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.has(NBD_FLAG_READ_ONLY) { "read-only" } else { "writable" };
        let several =
            if self.has(NBD_FLAG_CAN_MULTI_CONN) { "several connections" } else { "one connection" };
        let contexts: Vec<_> = self.contexts.iter().map(|(name, _)| name.as_str()).collect();
        let (size, flags, headers, contexts) = (self.size, self.flags, self.headers, contexts.join(", "));
        write!(
            f,
            "{size} bytes, {access}, {several}, {headers:?} headers, flags {flags:#x}, contexts [{contexts}]"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_made_usable_or_refused() {
        let told = |a, b, c| block_sizes(a, b, c).ok().map(|s| (s.minimum, s.preferred, s.maximum));
        assert_eq!(told(1, 4096, 32 << 20), Some((1, 4096, 32 << 20)));
        assert_eq!(told(512, 4096, u32::MAX), Some((512, 4096, 64 << 20)));
        assert_eq!(told(512, 65536, 512 * 3), Some((512, 1024, 1024)));
        for (minimum, preferred, maximum) in [
            (0, 4096, 4096),
            (3, 4096, 4096),
            (512, 256, 4096),
            (512, 1000, 4096),
            (512, 4096, 0),
            (1 << 17, 1 << 17, 1 << 25),
        ] {
            assert_eq!(told(minimum, preferred, maximum), None);
        }
    }

    #[test]
    fn an_export_of_another_size_is_another_export() {
        let export = |size| Export { size, ..Export::default() };
        assert!(export(4096).same_as(&export(4096)).is_ok());
        assert!(matches!(export(8192).same_as(&export(4096)), Err(Failure::Changed { .. })));
        assert!(export(1 << 63).check().is_err());
    }
}
