use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use oma_api::{RunningDisk, RunningReport};
use oma_core::engine::{Event, Progress};
use oma_core::{DiskKey, VmPath};

/// Passes on what it is told, and keeps how far the run is.
#[derive(Debug)]
pub(crate) struct Kept {
    shown: Arc<dyn Progress>,
    vm: VmPath,
    begun: Instant,
    disks: Mutex<BTreeMap<DiskKey, RunningDisk>>,
}

impl Kept {
    pub(super) fn new(shown: Arc<dyn Progress>, vm: VmPath) -> Self {
        Self { shown, vm, begun: Instant::now(), disks: Mutex::default() }
    }

    /// How far the run is now.
    pub(crate) fn report(&self) -> RunningReport {
        let disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        RunningReport { vm_path: self.vm.clone(), seconds: self.begun.elapsed().as_secs_f64(), disks }
    }

    fn of(&self, disk: &DiskKey, change: impl FnOnce(&mut RunningDisk)) {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        match disks.get_mut(disk) {
            Some(known) => change(known),
            None => change(disks.entry(disk.clone()).or_default()),
        }
    }
}

impl Progress for Kept {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Planned { disk, progress, .. }
            | Event::Copied { disk, progress }
            | Event::Recorded { disk, progress } => self.of(disk, |known| {
                known.bytes_total = progress.total;
                known.bytes_done = progress.done;
                known.bytes_durable = progress.durable;
                known.bytes_read = progress.read;
                known.bytes_written = progress.written;
            }),
            Event::Compared { disk, done, total } => {
                self.of(disk, |known| (known.bytes_compared, known.bytes_to_compare) = (done, total));
            }
            _ => {}
        }
        self.shown.event(event);
    }
}
