//! Devices that are made of something. All calls block.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oma_core::traits::Access;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, inotify, open};
use rustix::io::Errno;

use super::control::{self, Status};
use super::error::LoopError;
use crate::device::lock;
use crate::file::Image;
use crate::uevents;

type Result<T, E = LoopError> = std::result::Result<T, E>;

/// How the names of our devices in the kernel begin.
const MARK: &str = "oma:";
/// So long somebody without a lock may still have a device open that is taken away or opened: udev, which looks at each device that was
/// written, or a program that is just being started and has a copy of every open file until it is loaded.
const PATIENCE: Duration = Duration::from_millis(500);
/// A device is released right after it is told that it was closed or taken apart.
const RELEASE: Duration = Duration::from_millis(10);

/// A device that is made of something.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) path: PathBuf,
    pub(super) status: Box<Status>,
    /// The path of what it is made of, as the kernel knows it.
    pub(super) backing: String,
}

/// All of them, whoever made them. They are only asked.
pub(super) fn all() -> Result<Vec<Bound>> {
    let folder = Path::new("/sys/block");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(LoopError::on(folder))? {
        let entry = entry.map_err(LoopError::on(folder))?;
        let Some(name) =
            entry.file_name().to_str().filter(|name| name.starts_with("loop")).map(str::to_owned)
        else {
            continue;
        };
        // It is there as long as the device is made of something.
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        let path = Path::new("/dev").join(name);
        let backing = backing.trim_end_matches('\n').to_owned();
        if let State::Bound(status) = ask(&path)? {
            found.push(Bound { path, status, backing });
        }
    }
    Ok(found)
}

/// The name in the kernel of the device of an image.
pub(super) fn mark(image: Image<'_>) -> String {
    format!("{MARK}{}", image.id)
}

pub(super) fn node(path: &Path, flags: OFlags) -> Result<File, Errno> {
    open(path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map(File::from)
}

/// How a device is.
enum State {
    /// Made of something.
    Bound(Box<Status>),
    /// To go as soon as it is closed by who took it away: it cannot be opened.
    Going,
    Free,
}

fn ask(path: &Path) -> Result<State> {
    let device = match node(path, OFlags::RDONLY) {
        Err(Errno::NXIO) => return Ok(State::Going),
        Err(Errno::NOENT | Errno::NODEV) => return Ok(State::Free),
        device => device.map_err(LoopError::on(path))?,
    };
    let status = control::status(&device).map_err(LoopError::on(path))?;
    Ok(status.map_or(State::Free, |status| State::Bound(status.into())))
}

impl Bound {
    /// Whether we made it of the image of this volume.
    pub(super) fn is_ours(&self, image: Image<'_>) -> bool {
        self.status.mark() == control::fitted(&mark(image))
    }

    /// Whether we made it.
    pub(super) fn is_marked(&self) -> bool {
        self.status.mark().starts_with(MARK.as_bytes())
    }

    /// Opens it; for writing alone, so that nobody else mounts it or takes it. For reading it is had alone for a moment only: who
    /// mounted it writes to it, and holds no lock that tells.
    pub(super) fn open(&self, access: Access) -> Result<File> {
        let alone = self.open_alone(access)?;
        let device = match access {
            Access::ReadOnly => self.node(OFlags::RDONLY)?,
            Access::ReadWrite => alone,
        };
        self.prove(&device).map(|_| device)
    }

    /// Opens it whoever has it, and sees to it that it stays: whoever began to take it away may have been killed before it went.
    pub(super) fn keep(&self) -> Result<File> {
        let device = self.node(OFlags::RDONLY)?;
        let status = self.prove(&device)?;
        if status.is_leaving() {
            control::keep(&device, &status).map_err(LoopError::on(&self.path))?;
        }
        Ok(device)
    }

    /// Its number may be another device's by now.
    fn prove(&self, device: &File) -> Result<Status> {
        let is = control::status(device).map_err(LoopError::on(&self.path))?;
        is.filter(|is| is.image() == self.status.image() && is.mark() == self.status.mark())
            .ok_or_else(|| LoopError::Gone(self.path.clone()))
    }

    fn node(&self, flags: OFlags) -> Result<File> {
        match node(&self.path, flags) {
            Err(Errno::NXIO) => Err(LoopError::Gone(self.path.clone())),
            device => device.map_err(LoopError::on(&self.path)),
        }
    }

    fn open_alone(&self, access: Access) -> Result<File> {
        let flags = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        let open = || match node(&self.path, flags | OFlags::EXCL) {
            Err(Errno::BUSY) => Ok(None),
            Err(Errno::NXIO) => Err(LoopError::Gone(self.path.clone())),
            device => device.map(Some).map_err(LoopError::on(&self.path)),
        };
        if let Some(device) = open()? {
            return Ok(device);
        }
        // One of us who has it open says so by a lock, and gives that up before the device is closed.
        let device = self.node(OFlags::RDONLY)?;
        lock(&device, access).map_err(LoopError::on(&self.path))?;
        drop(device);
        let closes = closes(&self.path).map_err(LoopError::on(&self.path))?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(device) = open()? {
                return Ok(device);
            }
            if Instant::now() >= until {
                return Err(LoopError::InUse(self.path.clone()));
            }
            wait(&closes, until.min(Instant::now() + RELEASE));
            // Only that there was one matters.
            let _ = rustix::io::read(&closes, &mut [0; 4096]);
        }
    }

    /// Takes it apart, which is when nobody has it open any more. Who has it open for long, and without a lock, keeps it.
    pub(super) fn clear(&self, device: File) -> Result<()> {
        let uevents = uevents::listen();
        // Where nothing is heard nothing is waited for.
        let until = Instant::now() + if uevents.is_ok() { PATIENCE } else { Duration::ZERO };
        control::clear(&device).map_err(LoopError::on(&self.path))?;
        drop(device);
        let gone = self.goes(uevents.as_ref().ok(), until);
        if gone.is_err() {
            // What did not go now must not go later, when it may be attached again.
            match self.keep() {
                Ok(_) | Err(LoopError::Gone(_)) => {}
                Err(left) => {
                    tracing::warn!(device = %self.path.display(), %left, "it will go when its last user closes it");
                }
            }
        }
        gone
    }

    /// Waits until it is gone.
    fn goes(&self, uevents: Option<&OwnedFd>, until: Instant) -> Result<()> {
        loop {
            // Asking opens it, and may be what closes it last.
            match self.ask()? {
                State::Free => return Ok(()),
                State::Bound(..) | State::Going if Instant::now() < until => {}
                State::Bound(..) | State::Going => return Err(LoopError::InUse(self.path.clone())),
            }
            if let Some(uevents) = uevents {
                hears(uevents, until.min(Instant::now() + RELEASE));
            }
        }
    }

    /// [`ask`]; free as well when it is of another image.
    fn ask(&self) -> Result<State> {
        Ok(match ask(&self.path)? {
            State::Bound(status) if status.image() != self.status.image() => State::Free,
            state => state,
        })
    }
}

/// Hears whenever the node at a path is closed.
fn closes(path: &Path) -> Result<OwnedFd, Errno> {
    let heard = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&heard, path, inotify::WatchFlags::CLOSE)?;
    Ok(heard)
}

/// Waits until the kernel tells of a block device or the time is over.
fn hears(uevents: &OwnedFd, until: Instant) {
    while wait(uevents, until) {
        match uevents::take(uevents) {
            Ok(false) | Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(true) | Err(_) => return,
        }
    }
}

/// Whether there is something to read before the time is over.
fn wait(source: impl AsFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("it is less than a second");
        match poll(&mut [PollFd::new(&source, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            answer => return answer.is_ok_and(|ready| ready > 0),
        }
    }
}
