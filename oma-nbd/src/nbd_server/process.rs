//! The processes of nbd-server: the one that takes connections, and one for each connection. All calls block.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Unsound;
use super::error::Failure;

/// The name of its processes.
const PROGRAM: &str = "nbd-server";
/// Where it looks for a configuration that nobody named.
const DEFAULT_FILE: &str = "/etc/nbd-server/config";

/// The first that can read its configuration again. Before, the references to new sections were counted wrong: the server changed
/// memory that was not its own, ended after some times, and might have served another section's device.
const SOUND: Version = Version { major: 3, minor: 25 };

/// A version of nbd-server; 0.0 when it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Who a device is, however its path is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceKey {
    block: bool,
    numbers: (u64, u64),
}

impl DeviceKey {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        let block = about.file_type().is_block_device();
        Ok(Self { block, numbers: if block { (about.rdev(), 0) } else { (about.dev(), about.ino()) } })
    }
}

/// A process that stays the one that was looked at: another that got its number is never signalled.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    handle: OwnedFd,
}

/// What a process is that is not the one looked for.
#[derive(Debug)]
enum Other {
    Gone,
    Stranger(String),
    /// Nobody can tell, which is another thing (L21): files are short, or the right to look is missing.
    Unknown(Failure),
}

impl Other {
    /// Why a process could not be looked at.
    fn of(about: &Path, error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::SRCH | Errno::NOENT) => Self::Gone,
            _ => Self::Unknown(Failure::on(about)(error)),
        }
    }
}

impl Process {
    /// A process of nbd-server with this configuration.
    fn of(pid: Pid, file: &Path) -> Result<Self, Other> {
        let about = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        let unseen = |error| Other::of(&about, error);
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| unseen(error.into()))?;
        let name = fs::read(about.join("comm")).map_err(unseen)?;
        let name = String::from_utf8_lossy(&name);
        if name.trim_end() != PROGRAM {
            return Err(Other::Stranger(format!("{:?}", name.trim_end())));
        }
        let arguments = fs::read(about.join("cmdline")).map_err(unseen)?;
        if arguments.is_empty() {
            // It has ended and nobody has waited for it yet.
            return Err(Other::Gone);
        }
        let named = configuration(&arguments);
        // A relative path is of no use to a server in the background either: it cannot read it again.
        let named = Path::new(&named).canonicalize().ok();
        if named.as_deref() != Some(file) {
            return Err(Other::Stranger("an nbd-server with another configuration".to_owned()));
        }
        Ok(Self { pid, handle })
    }

    /// Asks the very program that runs, also when another was installed since.
    fn version(&self) -> Result<Version, Failure> {
        let program = PathBuf::from(format!("/proc/{}/exe", self.pid.as_raw_pid()));
        let said =
            Command::new(&program).arg("-V").stdin(Stdio::null()).output().map_err(Failure::on(&program))?;
        let said = [said.stdout, said.stderr].concat();
        Ok(version(&String::from_utf8_lossy(&said)).unwrap_or_default())
    }

    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }

    /// Ends it at once; what it has in the device is done before it is gone.
    pub(super) fn kill(&self) -> Result<(), Failure> {
        let about = PathBuf::from(format!("/proc/{}", self.pid.as_raw_pid()));
        self.signal(Signal::KILL).map_err(|error| Failure::on(&about)(error.into()))
    }
}

/// Has the server read its configuration again.
pub(super) fn reload(pid_file: &Path, file: &Path, unsound: Unsound) -> Result<(), Failure> {
    let server = server(pid_file, file)?;
    if unsound == Unsound::Refuse {
        let version = server.version()?;
        if version < SOUND {
            return Err(Failure::Unsound { version });
        }
    }
    server.signal(Signal::HUP).map_err(|error| Failure::on(pid_file)(error.into()))
}

/// The process that takes connections.
fn server(pid_file: &Path, file: &Path) -> Result<Process, Failure> {
    let text = match fs::read_to_string(pid_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::NoProcess { reason: format!("{} is not there", pid_file.display()) });
        }
        Err(error) => return Err(Failure::on(pid_file)(error)),
    };
    let number: Option<i32> = text.trim().parse().ok().filter(|number| *number > 0);
    let Some(pid) = number.and_then(Pid::from_raw) else {
        return Err(Failure::NoProcess { reason: format!("{} holds no process id", pid_file.display()) });
    };
    Process::of(pid, file).map_err(|other| match other {
        Other::Gone => Failure::NoProcess { reason: format!("process {} is gone", pid.as_raw_pid()) },
        Other::Stranger(found) => {
            Failure::OtherProcess { pid_file: pid_file.to_owned(), pid: pid.as_raw_pid(), found }
        }
        Other::Unknown(failure) => failure,
    })
}

/// The processes of this configuration that have a device open: one for each connection. Also those whose server is gone.
pub(super) fn holders(device: DeviceKey, file: &Path) -> Result<Vec<Process>, Failure> {
    let proc = Path::new("/proc");
    let mut holders = Vec::new();
    for entry in fs::read_dir(proc).map_err(Failure::on(proc))? {
        let name = entry.map_err(Failure::on(proc))?.file_name();
        let number: Option<i32> = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        let process = match Process::of(pid, file) {
            Ok(process) => process,
            // One that ends meanwhile holds nothing.
            Err(Other::Gone | Other::Stranger(_)) => continue,
            Err(Other::Unknown(failure)) => return Err(failure),
        };
        if has_open(&proc.join(name).join("fd"), device)? {
            holders.push(process);
        }
    }
    Ok(holders)
}

fn has_open(folder: &Path, device: DeviceKey) -> Result<bool, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        // Not to be allowed to look is no proof that nobody is there (L21).
        Err(error) => return Err(Failure::on(folder)(error)),
    };
    // Sockets and files that are closed meanwhile are not it.
    Ok(entries.flatten().any(|entry| DeviceKey::of(&entry.path()).is_ok_and(|found| found == device)))
}

/// The version that the program tells.
fn version(said: &str) -> Option<Version> {
    let (major, rest) = said.split("version ").nth(1)?.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// The configuration that a command line names.
fn configuration(arguments: &[u8]) -> String {
    let arguments = String::from_utf8_lossy(arguments);
    let mut arguments = arguments.split('\0').skip(1);
    while let Some(argument) = arguments.next() {
        match argument {
            "-C" | "--config-file" => return arguments.next().unwrap_or_default().to_owned(),
            _ => {
                let glued = argument.strip_prefix("--config-file=").or_else(|| argument.strip_prefix("-C"));
                if let Some(path) = glued {
                    return path.to_owned();
                }
            }
        }
    }
    DEFAULT_FILE.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_found_in_the_command_line() {
        for (line, expected) in [
            ("nbd-server\0", DEFAULT_FILE),
            ("nbd-server\0-p\0/pid\0-C\0/a b\0", "/a b"),
            ("nbd-server\0-C/a\0", "/a"),
            ("nbd-server\0--config-file=/a\0", "/a"),
            ("nbd-server\0--config-file\0/a\0", "/a"),
            ("-C\0", DEFAULT_FILE),
        ] {
            assert_eq!(configuration(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn versions_are_told_apart() {
        let told = |text| version(text).unwrap_or_default();
        assert!(told("This is nbd-server version 3.24\n") < SOUND);
        assert!(told("nbd-server: no option\nThis is nbd-server version 3.26.1\n") > SOUND);
        assert_eq!(told("This is nbd-server version 3.25"), SOUND);
        assert!(told("something else") < SOUND && told("version x.y") < SOUND);
    }

    #[test]
    fn l21_a_process_that_cannot_be_looked_at_is_not_taken_for_gone() {
        let seen = |error: Errno| Other::of(Path::new("/proc/1"), error.into());
        assert!([Errno::SRCH, Errno::NOENT].into_iter().all(|error| matches!(seen(error), Other::Gone)));
        for error in [Errno::MFILE, Errno::NFILE, Errno::ACCESS, Errno::PERM, Errno::NOMEM] {
            assert!(matches!(seen(error), Other::Unknown(_)), "{error:?}");
        }
    }

    #[test]
    fn a_process_of_another_program_is_not_taken_for_it() {
        let us = rustix::process::getpid();
        assert!(Process::of(us, Path::new(DEFAULT_FILE)).is_err());
    }

    #[test]
    fn a_file_is_known_by_any_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(DeviceKey::of(&file).unwrap(), DeviceKey::of(&link).unwrap());
        assert_ne!(DeviceKey::of(&file).unwrap(), DeviceKey::of(folder.path()).unwrap());
    }
}
