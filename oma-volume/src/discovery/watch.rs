//! Waits until something may have happened to devices: uevents of the kernel, and changes of the folders where nodes and links are.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::pin;

use futures_util::future::select;
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::uevents;

/// Room for many events of a folder.
const EVENTS: usize = 8 << 10;

/// What it hears from its begin on is kept until it is asked for.
#[derive(Debug)]
pub(super) struct Watch {
    root: PathBuf,
    folders: AsyncFd<OwnedFd>,
    uevents: Option<AsyncFd<OwnedFd>>,
}

impl Watch {
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let folders = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let uevents = uevents::listen().and_then(register);
        let uevents = uevents.inspect_err(
            |error| tracing::debug!(%error, "no uevents here: only nodes and links are watched"),
        );
        Ok(Self { root: root.to_owned(), folders: register(folders)?, uevents: uevents.ok() })
    }

    /// Listens to all folders that are there by now. What happens later is heard; so arm it first, then look.
    pub(super) fn arm(&self) -> io::Result<()> {
        use inotify::WatchFlags as Flags;
        let names = Flags::CREATE | Flags::DELETE | Flags::MOVED_FROM | Flags::MOVED_TO | Flags::ONLYDIR;
        // The content of files in /dev changes all the time: of null, of terminals.
        let (nodes, content) = (names | Flags::ATTRIB, names | Flags::CLOSE_WRITE);
        let at = |name: &str| self.root.join(name);
        for name in ["dev", "dev/disk", "dev/disk/by-id"] {
            self.add(&at(name), nodes)?;
        }
        // The kernel tells of its own files by uevents only; those of a tree that was built are heard here.
        self.add(&at("sys/block"), content)?;
        for disk in fs::read_dir(at("sys/block")).into_iter().flatten().flatten() {
            self.add(&disk.path(), content)?;
        }
        Ok(())
    }

    /// A folder that is not there, or not for us, is made or opened later, or never.
    fn add(&self, folder: &Path, flags: inotify::WatchFlags) -> io::Result<()> {
        match inotify::add_watch(&self.folders, folder, flags) {
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Something may have happened to a disk since the last call.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let folders = wait(&self.folders, |fd| rustix::io::read(fd, &mut [0; EVENTS]).map(|_| true));
        let Some(uevents) = &self.uevents else { return folders.await };
        let uevents = wait(uevents, |fd| uevents::take(fd));
        select(pin!(folders), pin!(uevents)).await.factor_first().0
    }
}

fn register(source: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(unsafe_code, reason = "the call without it is deprecated")]
    // SAFETY: the descriptor is owned by what is registered, and is never replaced or closed while that lives.
    let registered = unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) };
    Ok(registered?)
}

/// Waits for the first message of interest and takes all that are there.
async fn wait(
    source: &AsyncFd<OwnedFd>,
    take: impl Fn(BorrowedFd<'_>) -> Result<bool, Errno>,
) -> io::Result<()> {
    loop {
        let mut ready = source.readable().await?;
        let mut happened = false;
        loop {
            match take(source.get_ref().as_fd()) {
                Ok(is_of_interest) => happened |= is_of_interest,
                // More happened than was kept.
                Err(Errno::NOBUFS) => happened = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        if happened {
            return Ok(());
        }
    }
}
