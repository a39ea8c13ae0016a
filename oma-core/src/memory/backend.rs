mod open;
mod snapshots;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use self::open::{Lock, OpenVolume, Opened};
use self::snapshots::Frozen;
use super::device::MemoryDevice;
use super::faulty::{Faults, FaultyDevice};
use crate::record::{ContentStamp, VolumeTag};
use crate::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Snapshots, Volume, VolumeBackend,
    VolumeSpec,
};
use crate::{ByteSize, DiskKey, Error, ErrorKind, Extent, InstanceId, Result, Retry, SnapshotId, VolumeId};

/// Volumes in memory. What is opened fails as [`MemoryBackend::faults`] of its disk says.
#[derive(Debug)]
pub struct MemoryBackend {
    capabilities: BackendCapabilities,
    room: ByteSize,
    granule: ByteSize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<VolumeId, Entry>,
    frozen: BTreeMap<SnapshotId, Frozen>,
    faults: BTreeMap<DiskKey, Faults>,
    disconnected: bool,
}

#[derive(Debug)]
struct Entry {
    name: String,
    device: MemoryDevice,
    /// The tag that it was made with.
    made: VolumeTag,
    tag: VolumeTag,
    attached: bool,
    readers: usize,
    writer: bool,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBackend {
    /// A backend without volumes that can do everything and has room for everything.
    #[must_use]
    pub fn new() -> Self {
        let capabilities = BackendCapabilities {
            zeroed_on_create: true,
            resize: true,
            content_stamp: true,
            snapshots: Snapshots::Instant,
        };
        Self { capabilities, room: ByteSize::new(u64::MAX), granule: ByteSize::new(1), state: Arc::default() }
    }

    /// The same with other capabilities. Without `zeroed_on_create` a new volume is full of `0xa5`.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: BackendCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The same with room for volumes of so many bytes together.
    #[must_use]
    pub fn with_room(mut self, room: ByteSize) -> Self {
        self.room = room;
        self
    }

    /// The same with new volumes whose sizes are multiples of so many bytes, rounded up.
    #[must_use]
    pub fn with_granule(mut self, granule: ByteSize) -> Self {
        self.granule = granule;
        self
    }

    /// The content of a volume, beside all locks and faults: what another program would see and write.
    #[must_use]
    pub fn device(&self, id: &VolumeId) -> Option<MemoryDevice> {
        self.state().volumes.get(id).map(|entry| entry.device.clone())
    }

    /// The faults of all volumes of disks with this key, those opened already too.
    pub fn faults(&self, key: &DiskKey) -> Faults {
        self.state().faults.entry(key.clone()).or_default().clone()
    }

    /// Whether somebody has a volume open for writing.
    #[must_use]
    pub fn is_written(&self, id: &VolumeId) -> bool {
        self.state().volumes.get(id).is_some_and(|entry| entry.writer)
    }

    /// Makes a volume disappear, as if somebody else had deleted it.
    pub fn lose(&self, id: &VolumeId) {
        self.state().volumes.remove(id);
    }

    /// Makes a volume smaller, as if somebody else had cut it.
    pub fn cut(&self, id: &VolumeId, capacity: ByteSize) {
        if let Some(entry) = self.state().volumes.get_mut(id) {
            entry.device = entry.device.with_capacity(capacity);
        }
    }

    /// Lets every call but those on open devices answer `Unavailable`.
    pub fn disconnect(&self) {
        self.state().disconnected = true;
    }

    /// Ends [`MemoryBackend::disconnect`].
    pub fn reconnect(&self) {
        self.state().disconnected = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.disconnected {
            return Err(Error::new(ErrorKind::Unavailable, operation, "memory backend")
                .because("it was disconnected")
                .with_retry(Retry::Later));
        }
        Ok(state)
    }

    /// Changes a volume, once its tag proved whose it is (L02).
    fn change<T>(
        &self,
        operation: &'static str,
        id: &VolumeId,
        tag: &VolumeTag,
        change: impl FnOnce(&mut Entry) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.reached(operation)?;
        let entry =
            state.volumes.get_mut(id).ok_or_else(|| Error::new(ErrorKind::NotFound, operation, id))?;
        entry.prove(operation, id, tag)?;
        change(entry)
    }

    fn rounded(&self, capacity: ByteSize) -> ByteSize {
        let granule = self.granule.bytes().max(1);
        ByteSize::new(capacity.bytes().div_ceil(granule).saturating_mul(granule))
    }

    fn make(&self, spec: &VolumeSpec) -> MemoryDevice {
        let capacity = self.rounded(spec.capacity);
        let device = MemoryDevice::new(VolumeId::of_operation(&spec.operation).to_string(), capacity);
        if !self.capabilities.zeroed_on_create {
            device.fill(Extent::between(0, capacity.bytes()), 0xa5);
        }
        device
    }
}

impl State {
    fn used(&self) -> u64 {
        let volumes = self.volumes.values().map(|entry| &entry.device);
        let devices = volumes.chain(self.frozen.values().map(|frozen| &frozen.device));
        devices.map(|device| device.info().capacity.bytes()).fold(0, u64::saturating_add)
    }
}

impl Entry {
    fn prove(&self, operation: &'static str, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        if self.tag == *tag {
            return Ok(());
        }
        let reason = format!("it bears the tag {}, not {tag}", self.tag);
        Err(Error::new(ErrorKind::PermissionDenied, operation, id).because(reason))
    }

    fn closed(&self, operation: &'static str, id: &VolumeId) -> Result<()> {
        if self.writer || self.readers > 0 {
            let error = Error::new(ErrorKind::Busy, operation, id).because("it is open");
            return Err(error.with_retry(Retry::Later));
        }
        Ok(())
    }

    fn describe(&self, id: &VolumeId) -> Volume {
        Volume {
            id: id.clone(),
            name: self.name.clone(),
            capacity: self.device.info().capacity,
            tag: Some(self.tag.clone()),
            device_path: self.attached.then(|| format!("/dev/memory/{id}")),
        }
    }
}

#[async_trait]
impl VolumeBackend for MemoryBackend {
    fn capabilities(&self) -> BackendCapabilities {
        self.capabilities
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        let id = VolumeId::of_operation(&spec.operation);
        let refused =
            |kind, reason: String| Err(Error::new(kind, "create volume", &spec.name).because(reason));
        let mut state = self.reached("create volume")?;
        if spec.capacity == ByteSize::ZERO {
            return refused(ErrorKind::Invalid, "a volume has at least one byte".to_owned());
        }
        if let Some(entry) = state.volumes.get(&id) {
            if entry.made != spec.tag || entry.device.info().capacity < spec.capacity {
                let reason = format!("operation {} made volume {id} otherwise", spec.operation);
                return refused(ErrorKind::AlreadyExists, reason);
            }
            return Ok(entry.describe(&id));
        }
        if state.used().saturating_add(self.rounded(spec.capacity).bytes()) > self.room.bytes() {
            return refused(ErrorKind::NoSpace, format!("there is room for {} in all", self.room));
        }
        let entry = Entry {
            name: spec.name.clone(),
            device: self.make(spec),
            made: spec.tag.clone(),
            tag: spec.tag.clone(),
            attached: false,
            readers: 0,
            writer: false,
        };
        let volume = entry.describe(&id);
        state.volumes.insert(id, entry);
        Ok(volume)
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        Ok(self.reached("find volume")?.volumes.get(id).map(|entry| entry.describe(id)))
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        let found: Vec<_> = match self.reached("list volumes") {
            Err(error) => vec![Err(error)],
            Ok(state) => {
                let ours = state.volumes.iter().filter(|(_, entry)| entry.tag.instance == *instance);
                ours.map(|(id, entry)| Ok(entry.describe(id))).collect()
            }
        };
        stream::iter(found).boxed()
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let mut state = self.reached("retag volume")?;
        let entry =
            state.volumes.get_mut(id).ok_or_else(|| Error::new(ErrorKind::NotFound, "retag volume", id))?;
        let ours = entry.tag.instance == tag.instance && entry.tag.disk == tag.disk;
        if !ours || tag.generation < entry.tag.generation {
            let reason = format!("it bears the tag {}, which {tag} does not follow", entry.tag);
            return Err(Error::new(ErrorKind::PermissionDenied, "retag volume", id).because(reason));
        }
        entry.tag = tag.clone();
        Ok(())
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.change("attach volume", id, tag, |entry| {
            entry.attached = true;
            Ok(entry.describe(id))
        })
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.change("detach volume", id, tag, |entry| {
            entry.closed("detach volume", id)?;
            entry.attached = false;
            Ok(entry.describe(id))
        })
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        let faults = self.faults(&tag.disk.key);
        let device = self.change("open volume", id, tag, |entry| {
            if !entry.attached {
                return Err(Error::new(ErrorKind::Conflict, "open volume", id).because("it is not attached"));
            }
            match access {
                Access::ReadWrite => {
                    entry.closed("open volume", id)?;
                    entry.writer = true;
                    Ok(entry.device.clone())
                }
                Access::ReadOnly if entry.writer => {
                    let error = Error::new(ErrorKind::Busy, "open volume", id).because("it is being written");
                    Err(error.with_retry(Retry::Later))
                }
                Access::ReadOnly => {
                    entry.readers += 1;
                    Ok(entry.device.read_only())
                }
            }
        })?;
        let lock = Lock { state: self.state.clone(), opened: Opened::Volume(id.clone(), access) };
        Ok(Arc::new(OpenVolume { device: FaultyDevice::new(Arc::new(device), faults), _lock: lock }))
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        if !self.capabilities.resize {
            return Err(Error::new(ErrorKind::Unsupported, "resize volume", id));
        }
        let others = self.reached("resize volume")?.used();
        self.change("resize volume", id, tag, |entry| {
            entry.closed("resize volume", id)?;
            let old = entry.device.info().capacity;
            let wanted = (others - old.bytes()).saturating_add(capacity.bytes());
            if capacity > old && wanted > self.room.bytes() {
                let reason = format!("there is room for {} in all", self.room);
                return Err(Error::new(ErrorKind::NoSpace, "resize volume", id).because(reason));
            }
            entry.device = entry.device.with_capacity(capacity.max(old));
            Ok(entry.describe(id))
        })
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        let state = self.reached("stamp volume")?;
        let entry =
            state.volumes.get(id).ok_or_else(|| Error::new(ErrorKind::NotFound, "stamp volume", id))?;
        let stamp = || ContentStamp(format!("{id}:{}", entry.device.version()));
        Ok(self.capabilities.content_stamp.then(stamp))
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let mut state = self.reached("delete volume")?;
        let Some(entry) = state.volumes.get(id) else { return Ok(()) };
        entry.prove("delete volume", id, tag)?;
        entry.closed("delete volume", id)?;
        state.volumes.remove(id);
        Ok(())
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.freeze(spec)
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        let found: Vec<_> = match self.reached("list snapshots") {
            Err(error) => vec![Err(error)],
            Ok(state) => {
                let of = state.frozen.values().filter(|frozen| frozen.spec.volume == *volume);
                of.map(|frozen| Ok(frozen.describe())).collect()
            }
        };
        stream::iter(found).boxed()
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.open_frozen(spec)
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        self.thaw(id, tag, snapshot)
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.discard(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traits::Provisioning;
    use crate::{ContextId, DiskRef, Generation, InstanceId, OperationId};

    #[tokio::test]
    async fn room_is_taken_by_what_a_volume_has_once_it_is_rounded_up() {
        let backend = MemoryBackend::new().with_room(ByteSize::mib(2)).with_granule(ByteSize::mib(1));
        let context = ContextId::parse("ctx").unwrap();
        let disk = DiskRef { context, key: DiskKey::parse("disk-2000").unwrap() };
        let instance = InstanceId::parse("instance").unwrap();
        let spec = |bytes| VolumeSpec {
            operation: OperationId::mint(),
            tag: VolumeTag { instance: instance.clone(), disk: disk.clone(), generation: Generation::FIRST },
            name: "web".to_owned(),
            capacity: ByteSize::new(bytes),
            provisioning: Provisioning::Thin,
        };
        let made = backend.create(&spec((1 << 20) - 1)).await.unwrap();
        assert_eq!(made.capacity, ByteSize::mib(1));
        let refused = backend.create(&spec((1 << 20) + 1)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace);
        backend.create(&spec(1 << 20)).await.unwrap();
    }
}
