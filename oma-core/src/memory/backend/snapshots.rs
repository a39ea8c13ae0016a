//! Snapshots of volumes in memory: pages are shared until one of both is written.

use std::sync::Arc;

use super::open::{Lock, OpenVolume, Opened};
use super::{MemoryBackend, MemoryDevice, State};
use crate::memory::faulty::{Faults, FaultyDevice};
use crate::record::VolumeTag;
use crate::traits::{BlockDevice, Snapshot, SnapshotSpec, Snapshots, Volume};
use crate::{Error, ErrorKind, Result, Retry, SnapshotId, VolumeId};

#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) spec: SnapshotSpec,
    pub(super) device: MemoryDevice,
    pub(super) readers: usize,
}

impl Frozen {
    pub(super) fn describe(&self) -> Snapshot {
        let capacity = self.device.info().capacity;
        Snapshot { spec: self.spec.clone(), name: self.spec.name(), capacity }
    }

    /// Proves whose it is: all that it was made with is known.
    fn prove(&self, operation: &'static str, spec: &SnapshotSpec) -> Result<()> {
        if self.spec == *spec {
            return Ok(());
        }
        let reason = format!("it is of volume {} and was made for {}", self.spec.volume, self.spec.job);
        Err(Error::new(ErrorKind::PermissionDenied, operation, &spec.id).because(reason))
    }
}

impl State {
    fn frozen(&mut self, operation: &'static str, spec: &SnapshotSpec) -> Result<&mut Frozen> {
        let missing = || Error::new(ErrorKind::NotFound, operation, &spec.id);
        let frozen = self.frozen.get_mut(&spec.id).ok_or_else(missing)?;
        frozen.prove(operation, spec)?;
        Ok(frozen)
    }
}

impl MemoryBackend {
    /// Puts a snapshot among the others, as another program would have made it.
    pub fn plant(&self, spec: SnapshotSpec, content: &MemoryDevice) {
        let device = content.snapshot(spec.id.to_string(), &content.content());
        self.state().frozen.insert(spec.id.clone(), Frozen { spec, device, readers: 0 });
    }

    /// The ids of all snapshots, beside all locks.
    #[must_use]
    pub fn frozen(&self) -> Vec<SnapshotId> {
        self.state().frozen.keys().cloned().collect()
    }

    /// The content of a snapshot, beside all locks.
    #[must_use]
    pub fn frozen_device(&self, id: &SnapshotId) -> Option<MemoryDevice> {
        self.state().frozen.get(id).map(|frozen| frozen.device.clone())
    }

    fn able(&self, operation: &'static str, id: &SnapshotId) -> Result<()> {
        match self.capabilities.snapshots {
            Snapshots::None => Err(Error::new(ErrorKind::Unsupported, operation, id)),
            Snapshots::ByCopy | Snapshots::Instant => Ok(()),
        }
    }

    pub(super) fn freeze(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        const WHAT: &str = "snapshot volume";
        let mut state = self.reached(WHAT)?;
        self.able(WHAT, &spec.id)?;
        if let Some(known) = state.frozen.get(&spec.id) {
            let other = |_| {
                let reason = "the id was given to another snapshot; mint a new one";
                Error::new(ErrorKind::AlreadyExists, WHAT, &spec.id).because(reason)
            };
            return known.prove(WHAT, spec).map_err(other).map(|()| known.describe());
        }
        let used = state.used();
        let missing = || Error::new(ErrorKind::NotFound, WHAT, &spec.volume);
        let entry = state.volumes.get(&spec.volume).ok_or_else(missing)?;
        entry.prove(WHAT, &spec.volume, &spec.tag)?;
        if entry.writer {
            let error = Error::new(ErrorKind::Busy, WHAT, &spec.volume).because("it is being written");
            return Err(error.with_retry(Retry::Later));
        }
        if used.saturating_add(entry.device.info().capacity.bytes()) > self.room.bytes() {
            let reason = format!("there is room for {} in all", self.room);
            return Err(Error::new(ErrorKind::NoSpace, WHAT, &spec.volume).because(reason));
        }
        let device = entry.device.snapshot(spec.id.to_string(), &entry.device.content());
        let frozen = Frozen { spec: spec.clone(), device, readers: 0 };
        let snapshot = frozen.describe();
        state.frozen.insert(spec.id.clone(), frozen);
        Ok(snapshot)
    }

    pub(super) fn open_frozen(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        const WHAT: &str = "open snapshot";
        let mut state = self.reached(WHAT)?;
        self.able(WHAT, &spec.id)?;
        let frozen = state.frozen(WHAT, spec)?;
        frozen.readers += 1;
        let device = Arc::new(frozen.device.clone());
        let lock = Lock { state: self.state.clone(), opened: Opened::Snapshot(spec.id.clone()) };
        Ok(Arc::new(OpenVolume { device: FaultyDevice::new(device, Faults::default()), _lock: lock }))
    }

    pub(super) fn thaw(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        const WHAT: &str = "revert volume";
        let mut state = self.reached(WHAT)?;
        self.able(WHAT, &snapshot.id)?;
        let entry = state.volumes.get(id).ok_or_else(|| Error::new(ErrorKind::NotFound, WHAT, id))?;
        entry.prove(WHAT, id, tag)?;
        entry.closed(WHAT, id)?;
        let (device, volume) = (entry.device.clone(), entry.describe(id));
        let frozen = state.frozen(WHAT, snapshot)?;
        if snapshot.volume != *id {
            let reason = format!("the snapshot is of volume {}", snapshot.volume);
            return Err(Error::new(ErrorKind::Invalid, WHAT, id).because(reason));
        }
        device.become_equal(&frozen.device);
        Ok(volume)
    }

    pub(super) fn discard(&self, spec: &SnapshotSpec) -> Result<()> {
        const WHAT: &str = "delete snapshot";
        let mut state = self.reached(WHAT)?;
        if !state.frozen.contains_key(&spec.id) {
            return Ok(());
        }
        if state.frozen(WHAT, spec)?.readers > 0 {
            let error = Error::new(ErrorKind::Busy, WHAT, &spec.id).because("it is open");
            return Err(error.with_retry(Retry::Later));
        }
        state.frozen.remove(&spec.id);
        Ok(())
    }
}
