//! Where disks are read: files, block devices and NBD exports that the operator named, or a running machine.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use oma_core::direct::{DirectDisk, DirectEntry, DirectSource};
use oma_core::memory::MemorySource;
use oma_core::traits::DiskSource;
use oma_core::{Endpoint, Error, ErrorKind, Result, VmPath, WorkerId};
use oma_nbd::qemu::OtherPoints;
use oma_nbd::{ClientConfig, NbdSource, QemuConfig, QemuSource, Uri};
use oma_volume::source::FileSource;

use crate::failure::io_error;
use oma_api::NamedDisk;

/// What disks are read from.
#[derive(Debug)]
pub enum Source {
    /// The same for everybody.
    Disks(Arc<dyn DiskSource>),
    /// A running machine, which keeps marks for whoever reads it.
    Machine(Box<QemuConfig>),
}

impl Source {
    /// What was named on the command line. Nothing is opened yet.
    ///
    /// # Errors
    /// `Invalid` for a disk that cannot be named so, for none, and for one twice.
    pub fn open(
        vm: &VmPath,
        qmp: Option<&Path>,
        guest_agent: Option<&Path>,
        disks: &[NamedDisk],
    ) -> Result<Self> {
        let Some(qmp) = qmp else { return Ok(Self::Disks(open(disks)?)) };
        Ok(Self::machine(vm, qmp, guest_agent))
    }

    /// For the one process that drives jobs here: what its jobs before have left in the machine goes.
    pub fn for_jobs(self) -> Self {
        match self {
            Self::Disks(_) => self,
            Self::Machine(config) => {
                Self::Machine(Box::new(QemuConfig { other_points: OtherPoints::Release, ..*config }))
            }
        }
    }

    /// To look at what it is now: no later run builds on that.
    pub fn for_looks(self) -> Self {
        match self {
            Self::Disks(_) => self,
            Self::Machine(config) => Self::Machine(Box::new(QemuConfig { tracks: false, ..*config })),
        }
    }

    /// For what is done without a source: nothing is read from it.
    pub fn nothing() -> Result<Self> {
        let endpoint = Endpoint::parse("none")
            .map_err(|error| Error::new(ErrorKind::Internal, "name", "a source").with_source(error))?;
        Ok(Self::Disks(Arc::new(MemorySource::new(endpoint))))
    }

    /// The machine of a monitor.
    pub fn machine(vm: &VmPath, qmp: &Path, guest_agent: Option<&Path>) -> Self {
        let guest_agent = guest_agent.map(Path::to_owned);
        Self::Machine(Box::new(QemuConfig { guest_agent, ..QemuConfig::new(vm.clone(), qmp) }))
    }

    /// The source, as a worker sees it.
    pub fn owned_by(self, owner: WorkerId) -> Arc<dyn DiskSource> {
        match self {
            Self::Disks(source) => source,
            Self::Machine(config) => Arc::new(QemuSource::new(QemuConfig { owner, ..*config })),
        }
    }

    /// What an operator should know of it.
    pub async fn notes(&self) -> Result<Vec<String>> {
        match self {
            Self::Disks(_) => Ok(Vec::new()),
            Self::Machine(config) => QemuSource::new((**config).clone()).notes().await,
        }
    }
}

/// A source of these disks. Nothing is opened yet.
pub fn open(disks: &[NamedDisk]) -> Result<Arc<dyn DiskSource>> {
    let entries = disks.iter().map(|arg| {
        Ok(DirectEntry { key: arg.key.clone(), change_id: arg.change_id.clone(), disk: disk(arg)? })
    });
    Ok(Arc::new(DirectSource::new(entries.collect::<Result<_>>()?)?))
}

/// Whether a disk is served over NBD.
#[must_use]
pub fn is_nbd(arg: &NamedDisk) -> bool {
    scheme(&arg.source).is_some_and(|scheme| scheme.starts_with("nbd"))
}

/// One disk. Nothing is opened yet.
pub fn disk(arg: &NamedDisk) -> Result<Arc<dyn DirectDisk>> {
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
pub fn is_uri(text: &str) -> bool {
    scheme(text).is_some()
}

/// Refuses to write a disk over itself, whatever the two names of it are.
pub fn is_another(source: &str, target: &str) -> Result<()> {
    let file = |path: &str| match std::fs::metadata(path) {
        Ok(about) if about.file_type().is_block_device() => Some((about.rdev(), None)),
        Ok(about) => Some((about.dev(), Some(about.ino()))),
        Err(_) => None,
    };
    let one = match (is_uri(source), is_uri(target)) {
        (false, false) => file(source).is_some_and(|source| file(target) == Some(source)),
        _ => source == target,
    };
    if !one {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, "copy to", target)
        .because("source and target are the same; name another target"))
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
