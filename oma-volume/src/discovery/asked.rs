//! Serials as the disks tell them. virtio-blk asks the device each time that somebody reads the file, so a disk that hangs never
//! answers: each disk is asked by a thread of its own, which nobody waits for longer than [`ANSWER`].
//!
//! ```text
//!  disk ─▶ asked already, no answer yet? the same question, not a second thread
//!       └▶ asked anew ─▶ in time: its serial
//!                     └▶ not:     unreadable; with the serial that it told before, it is known which one it is not
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};
use tokio::time::{Instant, timeout_at};

use super::disks::{Disk, Disks, sequence_at, serial_at};
use super::found::Number;
use crate::device::blocking;

/// So long a disk may take to tell its serial. It takes less than a millisecond, unless it hangs.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// What a disk told, or why it could not; of one that many wait for.
type Told = Result<Option<String>, Arc<io::Error>>;
type Answer = Shared<BoxFuture<'static, Told>>;
/// Name, number and the kernel's count of disks: never another disk.
type Key = (String, Number, u64);

/// What disks were asked, shared by all who look.
#[derive(Clone, Debug, Default)]
pub(super) struct Serials(Arc<Mutex<BTreeMap<Key, Asked>>>);

#[derive(Debug, Default)]
struct Asked {
    /// Since when, and the answer to come.
    open: Option<(Instant, Answer)>,
    /// What it told last.
    last: Option<String>,
}

impl Serials {
    /// Asks all disks at once.
    pub(super) async fn ask(&self, root: &Path, disks: &mut Disks) {
        self.forget_others(disks);
        let asked = disks.iter().map(|disk| self.ask_one(root, disk));
        let answers = join_all(asked).await;
        for (disk, (serial, last)) in disks.iter_mut().zip(answers) {
            (disk.serial, disk.last) = (serial, last);
        }
    }

    /// Its serial; of one that does not answer, what it told last.
    async fn ask_one(&self, root: &Path, disk: &Disk) -> (io::Result<Option<String>>, Option<String>) {
        if !disk.tells {
            return (Ok(None), None);
        }
        let folder = root.join("sys/block").join(&disk.name);
        let key = disk.sequence.map(|sequence| (disk.name.clone(), disk.number, sequence));
        let (since, answer) = self.answer(key.as_ref(), folder, disk.sequence);
        let told = timeout_at(since + ANSWER, answer).await;
        let mut all = self.all();
        let known = key.and_then(|key| all.get_mut(&key));
        match (told, known) {
            (Ok(Ok(told)), Some(known)) => {
                known.last.clone_from(&told);
                (Ok(told), None)
            }
            (Ok(Ok(told)), None) => (Ok(told), None),
            (Ok(Err(error)), _) => (Err(io::Error::new(error.kind(), error.to_string())), None),
            (Err(_), known) => (Err(silent()), known.and_then(|known| known.last.clone())),
        }
    }

    /// The question that is open, or a new one. Without a count of disks it cannot be told that a question is about this one.
    fn answer(&self, key: Option<&Key>, folder: PathBuf, sequence: Option<u64>) -> (Instant, Answer) {
        let mut all = self.all();
        let asked = key.map(|key| all.entry(key.clone()).or_default());
        let open = asked.as_ref().and_then(|asked| asked.open.clone());
        if let Some(open) = open.filter(|(_, answer)| answer.peek().is_none()) {
            return open;
        }
        let read = blocking(move || serial_of(&folder, sequence));
        let read = read.map(|read| read.map_err(io::Error::other).and_then(|told| told).map_err(Arc::new));
        let new = (Instant::now(), read.boxed().shared());
        if let Some(asked) = asked {
            asked.open = Some(new.clone());
        }
        new
    }

    /// Disks that went are not kept.
    fn forget_others(&self, disks: &Disks) {
        let is_there = |(name, number, sequence): &Key| {
            disks
                .iter()
                .any(|disk| (&disk.name, disk.number, disk.sequence) == (name, *number, Some(*sequence)))
        };
        self.all().retain(|key, _| is_there(key));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The serial of the disk with this count, if that is what has the name now.
fn serial_of(folder: &Path, sequence: Option<u64>) -> io::Result<Option<String>> {
    let told = serial_at(folder)?;
    match sequence_at(folder)? {
        // It went meanwhile.
        None if sequence.is_some() => Ok(None),
        now if now == sequence => Ok(told),
        _ => Err(io::Error::other("another disk has its name by now")),
    }
}

fn silent() -> io::Error {
    let seconds = ANSWER.as_secs();
    let text = format!("it hangs, for {seconds} s already; look for it in the kernel's log, and detach it");
    io::Error::new(io::ErrorKind::TimedOut, text)
}
