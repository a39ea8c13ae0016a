//! What requests may name as a source, and how it is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oma_api::SourceRequest;
use oma_api::server::SourceOpener;
use oma_core::traits::DiskSource;
use oma_core::{Error, ErrorKind, Result, VmPath, WorkerId};
use oma_examples::source::{Source, is_uri};
use oma_nbd::{Address, Uri};

/// Opens sources for jobs: what lies on this machine only below some directories, because whoever may ask for a replication may read
/// it afterwards.
#[derive(Debug)]
pub(crate) struct Sources {
    directories: Vec<PathBuf>,
    /// The daemon's own: its keys, its records and the volumes of others are nobody's source.
    own: PathBuf,
    owner: WorkerId,
}

impl Sources {
    pub(crate) const fn new(directories: Vec<PathBuf>, own: PathBuf, owner: WorkerId) -> Self {
        Self { directories, own, owner }
    }

    /// What links and `..` make of a path; refused outside the directories.
    fn check(&self, path: &Path) -> Result<PathBuf> {
        let refused = |reason: String| {
            Err(Error::new(ErrorKind::PermissionDenied, "read", path.display()).because(reason))
        };
        if !path.is_absolute() {
            return refused("name its whole path, from `/` on".to_owned());
        }
        let real = std::fs::canonicalize(path).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, "find", path.display()).with_source(error)
        });
        let is_below = |real: &Path| {
            let allowed =
                self.directories.iter().filter_map(|directory| std::fs::canonicalize(directory).ok());
            let own = std::fs::canonicalize(&self.own).is_ok_and(|own| real.starts_with(own));
            !own && allowed.into_iter().any(|directory| real.starts_with(directory))
        };
        let parent = || path.parent().and_then(|parent| parent.canonicalize().ok());
        // What is not there is not told of either, outside.
        match real {
            Ok(real) if is_below(&real) => Ok(real),
            Err(error) if parent().is_some_and(|parent| is_below(&parent)) => Err(error),
            _ => refused("it is not below one of the directories of [sources]; docs/omad.md".to_owned()),
        }
    }
}

impl SourceOpener for Sources {
    fn open(&self, vm: &VmPath, source: &SourceRequest) -> Result<Arc<dyn DiskSource>> {
        let SourceRequest { disks, qmp, guest_agent } = source;
        if qmp.is_some() && !disks.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "read the disks of", vm)
                .because("name its disks or its monitor, not both"));
        }
        let checked =
            |socket: &Option<PathBuf>| socket.as_deref().map(|socket| self.check(socket)).transpose();
        let (qmp, guest_agent) = (checked(qmp)?, checked(guest_agent)?);
        let mut disks = disks.clone();
        for disk in &mut disks {
            if !is_uri(&disk.source) {
                // What was checked is what is opened.
                let real = self.check(Path::new(&disk.source))?;
                disk.source = real.into_os_string().into_string().map_err(|_| {
                    Error::new(ErrorKind::Invalid, "read", &disk.source)
                        .because("its path is not valid UTF-8")
                })?;
            } else if disk.source.starts_with("nbd") {
                let uri = Uri::parse(&disk.source)?;
                if let Address::Unix(socket) = uri.address() {
                    self.check(socket)?;
                }
                if let Some(certificates) = uri.tls().and_then(|tls| tls.certificates.as_deref()) {
                    self.check(certificates)?;
                }
            }
        }
        let opened = Source::open(vm, qmp.as_deref(), guest_agent.as_deref(), &disks)?;
        Ok(opened.for_jobs().owned_by(self.owner.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_api::NamedDisk;
    use oma_core::DiskKey;

    fn named(source: &str) -> SourceRequest {
        let key = DiskKey::parse("disk-2000").unwrap();
        let disk = NamedDisk { key, source: source.to_owned(), bitmap: None, change_id: None };
        SourceRequest { disks: vec![disk], ..SourceRequest::default() }
    }

    #[test]
    fn l29_only_what_lies_below_a_named_directory_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("images"), folder.path().join("secret.raw"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(&outside, [1; 512]).unwrap();
        std::fs::write(inside.join("web.raw"), [1; 512]).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link.raw")).unwrap();
        let sources = Sources::new(vec![inside.clone()], inside.join("own"), WorkerId::parse("one").unwrap());
        let vm = VmPath::parse("/DC/vm/web").unwrap();
        let open = |source: &str| sources.open(&vm, &named(source)).map(drop).map_err(|error| error.kind());
        std::fs::create_dir(inside.join("own")).unwrap();
        std::fs::write(inside.join("own/oma.db"), [1; 512]).unwrap();
        let path = |name: &str| inside.join(name).to_str().unwrap().to_owned();
        assert_eq!(open(&path("web.raw")), Ok(()));
        assert_eq!(open("nbd://hypervisor.example/web"), Ok(()));
        assert_eq!(open(&path("none.raw")), Err(ErrorKind::NotFound));
        let socket = format!("nbd+unix:///?socket={}", outside.display());
        for refused in [
            outside.to_str().unwrap(),
            "web.raw",
            &path("../secret.raw"),
            &path("link.raw"),
            &socket,
            "/etc/none",
        ] {
            assert_eq!(open(refused), Err(ErrorKind::PermissionDenied), "{refused}");
        }
        let monitor = SourceRequest { qmp: Some(outside.clone()), ..SourceRequest::default() };
        assert_eq!(sources.open(&vm, &monitor).unwrap_err().kind(), ErrorKind::PermissionDenied);
        let both = SourceRequest { qmp: Some(inside.join("web.raw")), ..named("nbd://h/x") };
        assert_eq!(sources.open(&vm, &both).unwrap_err().kind(), ErrorKind::Invalid);
        let none = Sources::new(Vec::new(), inside.clone(), WorkerId::parse("one").unwrap());
        assert_eq!(none.open(&vm, &named(&path("web.raw"))).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
