//! Where disks are read: files, block devices and NBD exports that the operator named.

use std::sync::Arc;

use oma_core::direct::{DirectDisk, DirectEntry, DirectSource};
use oma_core::traits::DiskSource;
use oma_core::{Error, ErrorKind, Result};
use oma_nbd::{ClientConfig, NbdSource, Uri};
use oma_volume::source::FileSource;

use crate::disk_arg::DiskArg;
use crate::failure::io_error;

/// A source of these disks. Nothing is opened yet.
pub(crate) fn open(disks: &[DiskArg]) -> Result<Arc<dyn DiskSource>> {
    let entries = disks.iter().map(|arg| {
        Ok(DirectEntry { key: arg.key.clone(), change_id: arg.change_id.clone(), disk: disk(arg)? })
    });
    Ok(Arc::new(DirectSource::new(entries.collect::<Result<_>>()?)?))
}

/// One disk. Nothing is opened yet.
pub(crate) fn disk(arg: &DiskArg) -> Result<Arc<dyn DirectDisk>> {
    let refused = |reason: String| Error::new(ErrorKind::Invalid, "read disk", &arg.key).because(reason);
    match scheme(&arg.source) {
        Some(scheme) if scheme.starts_with("nbd") => {
            let uri = Uri::parse(&arg.source)?;
            let (bitmap, change_id) = (arg.bitmap.clone(), arg.change_id.clone());
            Ok(Arc::new(NbdSource::new(uri, bitmap, change_id, ClientConfig::default())))
        }
        Some(other) => Err(refused(format!(
            "{other}:// is not known; name nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or a file"
        ))),
        None if arg.bitmap.is_some() => Err(refused(
            "a file has no dirty bitmaps; export the image with qemu-nbd --bitmap and name its URI"
                .to_owned(),
        )),
        None => {
            // The record of the disk names it wherever the next command is run from.
            let path = std::path::absolute(&arg.source)
                .map_err(|error| io_error("find disk", &arg.source, error))?;
            Ok(Arc::new(FileSource::new(path)))
        }
    }
}

/// Whether a text names something on the network, not a path.
pub(crate) fn is_uri(text: &str) -> bool {
    scheme(text).is_some()
}

/// The scheme of a URI; `None` for a path. `./nbd://x` is a path.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(known)).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_uri() {
        assert_eq!(scheme("nbd+unix:///?socket=/a"), Some("nbd+unix"));
        for path in ["/srv/a.raw", "./nbd://x", "a:b", "a b://c", "://"] {
            assert_eq!(scheme(path), None, "{path}");
        }
    }
}
