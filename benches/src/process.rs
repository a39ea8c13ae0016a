use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The kernel counts processor time in hundredths of a second (`USER_HZ`).
const TICKS: f64 = 100.0;

/// The program `oma`: the one that was named, else the one beside this program.
///
/// # Errors
/// When there is none.
pub fn oma(named: Option<&Path>) -> io::Result<PathBuf> {
    program(named, "oma")
}

/// The program of this name: the one that was named, else the one beside this program.
///
/// # Errors
/// When there is none.
pub fn program(named: Option<&Path>, name: &str) -> io::Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => env::current_exe()?.with_file_name(name),
    };
    if path.is_file() {
        return Ok(path);
    }
    let reason = format!("{} is missing; build it first: cargo build --release", path.display());
    Err(io::Error::other(reason))
}

/// Processor seconds of a process, in user and in kernel mode.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// Its own.
    pub own: f64,
    /// Those of its children that have ended and were waited for.
    pub children: f64,
}

impl Times {
    /// The times of a process, `self` for this one.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(process: &str) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        parse(&text)
            .map(|(_, times)| times)
            .ok_or_else(|| io::Error::other(format!("/proc/{process}/stat: {text}")))
    }
}

/// Bytes that this process had the disk read: `read_bytes` of proc_pid_io(5).
///
/// # Errors
/// The kernel does not count them.
pub fn read_from_disk() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let found = text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok());
    found.ok_or_else(|| io::Error::other(format!("/proc/self/io: {text}")))
}

/// A process and the children that it has now, with its own times first.
///
/// # Errors
/// When there is no such process.
pub fn family(process: u32) -> io::Result<Vec<(u32, Times)>> {
    let mut members = vec![(process, Times::of(&process.to_string())?)];
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(text) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        if let Some((parent, times)) = parse(&text)
            && parent == process
        {
            members.push((id, times));
        }
    }
    Ok(members)
}

/// A process's parent and times: `ppid`, `utime`, `stime`, `cutime` and `cstime` of proc_pid_stat(5).
fn parse(text: &str) -> Option<(u32, Times)> {
    // The program's name may hold blanks and parentheses; what follows the last one is regular.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
    let seconds = |index| Some(f64::from(number(index)? + number(index + 1)?) / TICKS);
    Some((number(1)?, Times { own: seconds(11)?, children: seconds(13)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_any_name_is_read() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 0 1 2 3 4 150 50 25 0 20 0 1 0 9 9 9";
        assert_eq!(parse(text), Some((3, Times { own: 2.0, children: 0.25 })));
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn a_child_belongs_to_the_family() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let members = family(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(members[0].0, std::process::id());
        assert!(members[1..].iter().any(|(id, _)| *id == child.id()), "{members:?}");
    }
}
