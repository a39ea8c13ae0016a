use std::fs::{File, OpenOptions};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

use super::error::Failure;

/// The right to change a machine's block graph, for one process of this host at a time.
///
/// It is a locked file beside the monitor, which holds wherever the monitor can be reached from, and an abstract socket that nobody
/// connects to, which holds within a network namespace, by whatever way the monitor is reached. The kernel lets both go with
/// the process, however that ends.
#[derive(Debug)]
pub(super) struct MachineLock {
    _socket: UnixListener,
    _file: Option<LockFile>,
}

impl MachineLock {
    /// Waits for the lock of a machine.
    pub(super) async fn acquire(machine: &str, path: &Path, patience: Duration) -> Result<Self, Failure> {
        let name = format!("oma-qemu-{machine}");
        let address = SocketAddr::from_abstract_name(name).map_err(Failure::Lock)?;
        let end = Instant::now() + patience;
        let socket = wait(end, || match UnixListener::bind_addr(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            bound => bound.map(Some),
        });
        let socket = socket.await?;
        let file = match wait(end, || LockFile::try_lock(path)).await {
            Ok(locked) => Some(locked),
            Err(Failure::Lock(error)) if is_closed(&error) && is_missing(path) => {
                let reason = "nobody may write beside the monitor: processes in other network namespaces are not kept apart";
                tracing::warn!(path = %path.display(), %error, reason);
                None
            }
            Err(failure) => return Err(failure),
        };
        Ok(Self { _socket: socket, _file: file })
    }
}

/// Tries until it is done or too late.
async fn wait<T>(end: Instant, mut attempt: impl FnMut() -> io::Result<Option<T>>) -> Result<T, Failure> {
    loop {
        match attempt().map_err(Failure::Lock)? {
            Some(done) => return Ok(done),
            None if Instant::now() >= end => return Err(Failure::Locked),
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Whether no file can be made in a folder.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether there is no lock file: one that is there and may not be opened is another user's, who may hold it.
fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A file that is locked while it is open, and goes with the lock.
#[derive(Debug)]
struct LockFile {
    path: PathBuf,
    _file: File,
}

impl LockFile {
    /// `None` while somebody else has it.
    fn try_lock(path: &Path) -> io::Result<Option<Self>> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let held = file.metadata()?;
        // Its last owner may have removed it after it was opened here.
        match std::fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
                Ok(Some(Self { path: path.to_owned(), _file: file }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Still locked: whoever waits for it sees that it is gone, and makes another one.
        super::release::unlink(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_lock_and_nothing_stays_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oma-x.lock");
        let held = LockFile::try_lock(&path).unwrap().unwrap();
        assert!(LockFile::try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        // One that a killed process left is no lock.
        std::fs::write(&path, "").unwrap();
        assert!(LockFile::try_lock(&path).unwrap().is_some());
    }

    #[tokio::test]
    async fn two_of_us_that_do_not_share_a_network_namespace_share_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oma-x.lock");
        let unique = format!("test-{}", uuid::Uuid::new_v4());
        let held = MachineLock::acquire(&unique, &path, Duration::ZERO).await.unwrap();
        // Another name stands for another namespace.
        let other = format!("{unique}-2");
        let refused = MachineLock::acquire(&other, &path, Duration::from_millis(50)).await;
        assert!(matches!(refused, Err(Failure::Locked)), "{refused:?}");
        drop(held);
        MachineLock::acquire(&other, &path, Duration::ZERO).await.unwrap();
    }
}
