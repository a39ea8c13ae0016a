use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use oma_core::engine::{Event, Progress};
use oma_core::{ByteSize, DiskKey};

use super::mode_name;

const TEMPLATE: &str = "{prefix:16} {msg:9} [{bar:28}] {percent:>3} % {bytes:>11} of {total_bytes:<11} {binary_bytes_per_sec:>13} {eta:>4}";

/// What a bar of a comparison is called.
const COMPARING: &str = "comparing";

/// One bar a disk: of its copy, and of each comparison before and after it.
#[derive(Debug, Default)]
pub(super) struct Bars {
    all: MultiProgress,
    disks: Mutex<BTreeMap<DiskKey, ProgressBar>>,
}

impl Bars {
    fn begin(&self, disk: &DiskKey, work: &'static str, done: ByteSize, total: ByteSize) {
        let mut bars = self.bars();
        let bar = bars.entry(disk.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template(TEMPLATE)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            self.all.add(ProgressBar::new(total.bytes()).with_style(style).with_prefix(disk.to_string()))
        });
        bar.reset();
        bar.set_message(work);
        bar.set_length(total.bytes());
        // What was there before this run must not count as speed.
        bar.set_position(done.bytes());
        bar.reset_eta();
    }

    fn moves(&self, disk: &DiskKey, done: ByteSize) {
        if let Some(bar) = self.bars().get(disk) {
            bar.set_position(done.bytes());
        }
    }

    fn bars(&self) -> std::sync::MutexGuard<'_, BTreeMap<DiskKey, ProgressBar>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, text: &str) {
        // Nobody is there to be told when the terminal is gone.
        let _ = self.all.println(text);
    }
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Job { job, resumed: true } => {
                self.say(&format!("{} continues, epoch {}", job.id, job.epoch));
            }
            Event::Planned { disk, mode, note, progress } => {
                self.begin(disk, mode_name(mode), progress.done, progress.total);
                if let Some(note) = note {
                    self.say(&format!("{disk}: {note}"));
                }
            }
            Event::Compared { disk, done: ByteSize::ZERO, total } => {
                self.begin(disk, COMPARING, ByteSize::ZERO, total);
            }
            Event::Compared { disk, done, .. } => self.moves(disk, done),
            Event::Copied { disk, progress } => self.moves(disk, progress.done),
            Event::StepEnded("copy" | "verify") => {
                for bar in self.bars().values() {
                    bar.finish();
                }
            }
            Event::Warning(text) => self.say(&format!("warning: {text}")),
            _ => {}
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for bar in self.bars().values() {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::engine::DiskProgress;
    use oma_core::state::ReplicationType;

    #[test]
    fn a_disk_has_one_bar_for_its_comparisons_and_its_copy() {
        let (bars, disk) = (Bars::default(), DiskKey::parse("disk-2000").unwrap());
        let (half, all) = (ByteSize::mib(2), ByteSize::mib(4));
        let compares = |done| bars.event(Event::Compared { disk: &disk, done, total: all });
        let shown = || {
            let shown = bars.bars();
            assert_eq!(shown.len(), 1);
            let bar = &shown[&disk];
            (bar.message(), bar.position(), bar.length(), bar.is_finished())
        };
        compares(ByteSize::ZERO);
        compares(half);
        assert_eq!(shown(), ("comparing".to_owned(), half.bytes(), Some(all.bytes()), false));
        let progress = DiskProgress { total: half, done: ByteSize::mib(1), ..DiskProgress::default() };
        let mode = ReplicationType::Incremental;
        bars.event(Event::Planned { disk: &disk, mode, note: None, progress });
        assert_eq!(shown(), ("changes".to_owned(), 1 << 20, Some(half.bytes()), false));
        bars.event(Event::StepEnded("copy"));
        assert!(shown().3);
        compares(ByteSize::ZERO);
        assert_eq!(shown(), ("comparing".to_owned(), 0, Some(all.bytes()), false));
    }
}
