use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use oma_core::DiskKey;
use oma_core::engine::{DiskProgress, Event, Progress};

use super::mode_name;

const TEMPLATE: &str = "{prefix:16} {msg:9} [{bar:28}] {percent:>3} % {bytes:>11} of {total_bytes:<11} {binary_bytes_per_sec:>13} {eta:>4}";

/// One bar a disk.
#[derive(Debug, Default)]
pub(super) struct Bars {
    all: MultiProgress,
    disks: Mutex<BTreeMap<DiskKey, ProgressBar>>,
}

impl Bars {
    fn begin(&self, disk: &DiskKey, mode: &'static str, progress: DiskProgress) {
        let style = ProgressStyle::with_template(TEMPLATE)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::new(progress.total.bytes()).with_style(style);
        let bar = self.all.add(bar.with_prefix(disk.to_string()).with_message(mode));
        // What was there before this run must not count as speed.
        bar.set_position(progress.done.bytes());
        bar.reset_eta();
        self.bars().insert(disk.clone(), bar);
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
                self.begin(disk, mode_name(mode), progress);
                if let Some(note) = note {
                    self.say(&format!("{disk}: {note}"));
                }
            }
            Event::Copied { disk, progress } => {
                if let Some(bar) = self.bars().get(disk) {
                    bar.set_position(progress.done.bytes());
                }
            }
            Event::StepEnded("copy") => {
                for bar in self.bars().values() {
                    bar.finish();
                }
            }
            Event::StepBegins("verify") => self.say("comparing"),
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
