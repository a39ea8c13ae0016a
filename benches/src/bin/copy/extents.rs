//! Extents that changed, scattered over a disk.

use std::fs;
use std::io;
use std::path::Path;

use oma_core::{ByteSize, Extent};

/// 5 % of a disk in extents of one size, at the same distance from each other; one a line, as `oma copy --extents` takes them.
pub(crate) fn scattered(path: &Path, disk: ByteSize, extent: u64) -> io::Result<u64> {
    let mut text = String::new();
    let mut bytes = 0;
    let mut offset = 0;
    while let Ok(one) = Extent::new(offset, extent) {
        if one.end() > disk.bytes() {
            break;
        }
        text += &format!("{} {}\n", one.offset(), one.length());
        bytes += one.length();
        offset += extent * 20;
    }
    fs::write(path, text)?;
    Ok(bytes)
}
