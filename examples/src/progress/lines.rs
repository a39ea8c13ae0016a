use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oma_core::engine::{Event, Progress};
use oma_core::{ByteSize, DiskKey};

use super::mode_name;
use crate::output::note;

/// A disk's line is printed at most this often.
const PAUSE: Duration = Duration::from_secs(1);

/// One line a step, and at most one a second and disk.
#[derive(Debug, Default)]
pub(super) struct Lines {
    printed: Mutex<BTreeMap<DiskKey, Instant>>,
}

impl Lines {
    fn is_due(&self, disk: &DiskKey, now: Instant) -> bool {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        match printed.get(disk) {
            Some(last) if now.saturating_duration_since(*last) < PAUSE => false,
            _ => {
                printed.insert(disk.clone(), now);
                true
            }
        }
    }
}

impl Progress for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Job { job, resumed } => {
                note(format!(
                    "{} {}, epoch {}",
                    job.id,
                    if resumed { "continues" } else { "begins" },
                    job.epoch
                ));
            }
            Event::StepBegins(name) => note(name),
            Event::Planned { disk, mode, note: remark, progress } => {
                let there = match progress.done {
                    ByteSize::ZERO => String::new(),
                    done => format!(", {done} of it are there already"),
                };
                note(format!("{disk}: {} of {}{there}", mode_name(mode), progress.total));
                if let Some(remark) = remark {
                    note(format!("{disk}: {remark}"));
                }
                self.is_due(disk, Instant::now());
            }
            Event::Compared { disk, done: ByteSize::ZERO, total } => {
                note(format!("{disk}: compares {total}"));
                self.is_due(disk, Instant::now());
            }
            Event::Compared { disk, done, total } if self.is_due(disk, Instant::now()) => {
                note(format!("{disk}: {} compared", share(done, total)));
            }
            Event::Copied { disk, progress } if self.is_due(disk, Instant::now()) => {
                note(format!("{disk}: {}", share(progress.done, progress.total)));
            }
            Event::Warning(text) => note(format!("warning: {text}")),
            _ => {}
        }
    }
}

fn share(done: ByteSize, total: ByteSize) -> String {
    let percent = u128::from(done.bytes()) * 100 / u128::from(total.bytes()).max(1);
    format!("{percent:3} %, {done} of {total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_one_line_a_second() {
        let (lines, begin) = (Lines::default(), Instant::now());
        let (one, two) = (DiskKey::parse("a").unwrap(), DiskKey::parse("b").unwrap());
        assert!(lines.is_due(&one, begin));
        assert!(!lines.is_due(&one, begin + PAUSE / 2));
        assert!(lines.is_due(&two, begin + PAUSE / 2));
        assert!(lines.is_due(&one, begin + PAUSE));
    }

    #[test]
    fn a_share_of_nothing_is_no_division_by_zero() {
        assert_eq!(share(ByteSize::ZERO, ByteSize::ZERO), "  0 %, 0 B of 0 B");
        assert_eq!(share(ByteSize::mib(2), ByteSize::mib(4)), " 50 %, 2.0 MiB of 4.0 MiB");
    }
}
