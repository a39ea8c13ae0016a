//! Serials as the disks tell them. virtio-blk asks the device each time that somebody reads the file, so a disk that hangs never
//! answers: each disk is asked by a thread of its own, which nobody waits for longer than [`ANSWER`].
//!
//! ```text
//!  disk ─▶ asked already, no answer yet? the same question, not a second thread
//!       └▶ asked anew ─▶ in time: its serial
//!                     └▶ not:     unreadable; with the serial that it told before, it is known which one it is not
//! ```
//!
//! Before Linux 5.15 disks have no count, and a question that is open may be about an earlier disk of that name. It is waited for, so
//! that one disk never holds two threads, and its answer is believed by those only who looked before it was asked.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
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
/// Name, number and, where there is one, the kernel's count of disks: with it, never another disk.
type Key = (String, Number, Option<u64>);

/// What disks were asked, shared by all who look.
#[derive(Clone, Debug, Default)]
pub(super) struct Serials(Arc<Mutex<BTreeMap<Key, Asked>>>);

#[derive(Debug, Default)]
struct Asked {
    /// Since when, and the answer to come.
    open: Option<(Instant, Answer)>,
    /// What it told last; not kept without a count.
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
        let key = (disk.name.clone(), disk.number, disk.sequence);
        let told = self.told(&key, &folder).await;
        let mut all = self.all();
        let known = all.get_mut(&key).filter(|_| disk.sequence.is_some());
        match (told, known) {
            (Some(Ok(told)), Some(known)) => {
                known.last.clone_from(&told);
                (Ok(told), None)
            }
            (Some(Ok(told)), None) => (Ok(told), None),
            (Some(Err(error)), _) => (Err(io::Error::new(error.kind(), error.to_string())), None),
            (None, known) => (Err(silent()), known.and_then(|known| known.last.clone())),
        }
    }

    /// What the disk told; `None` when it hangs.
    async fn told(&self, key: &Key, folder: &Path) -> Option<Told> {
        let begun = Instant::now();
        loop {
            let (since, answer) = self.answer(key, folder);
            let told = timeout_at(since + ANSWER, answer).await.ok()?;
            if key.2.is_some() || since >= begun {
                return Some(told);
            }
        }
    }

    /// The question that is open, or a new one.
    fn answer(&self, key: &Key, folder: &Path) -> (Instant, Answer) {
        let mut all = self.all();
        let asked = all.entry(key.clone()).or_default();
        if let Some(open) = asked.open.as_ref().filter(|(_, answer)| answer.peek().is_none()) {
            return open.clone();
        }
        let (folder, sequence) = (folder.to_owned(), key.2);
        let read = blocking(move || serial_of(&folder, sequence));
        let read = read.map(|read| read.map_err(io::Error::other).and_then(|told| told).map_err(Arc::new));
        let new = (Instant::now(), read.boxed().shared());
        asked.open = Some(new.clone());
        new
    }

    /// Disks that went are not kept.
    fn forget_others(&self, disks: &Disks) {
        let is_there = |(name, number, sequence): &Key| {
            disks.iter().any(|disk| (&disk.name, disk.number, disk.sequence) == (name, *number, *sequence))
        };
        self.all().retain(|key, _| is_there(key));
    }

    /// How many disks have not answered yet.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        let is_open = |asked: &&Asked| asked.open.as_ref().is_some_and(|(_, answer)| answer.peek().is_none());
        self.all().values().filter(is_open).count()
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
