use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use super::device::MemoryDevice;
use super::faulty::{Faults, FaultyDevice};
use crate::record::{SourceDisk, SourceIdentity, SourceVm};
use crate::traits::{BlockDevice, Changes, DiskSource, PointDisk, PointInTime};
use crate::{
    ByteSize, ChangeId, DiskKey, Endpoint, Error, ErrorKind, Extent, ExtentSet, InstanceUuid, JobId, PointId,
    Result, Retry, VmPath,
};

/// A hypervisor in memory, with VMs whose disks can be written while they are replicated.
///
/// It tracks changed bytes per disk as VMware does: a change id has a UUID, which changes when tracking is reset, and a
/// sequence, which grows with every point in time.
#[derive(Debug)]
pub struct MemorySource {
    endpoint: Endpoint,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    vms: BTreeMap<VmPath, BTreeMap<DiskKey, Disk>>,
    points: BTreeMap<PointId, Point>,
    faults: BTreeMap<DiskKey, Faults>,
    disconnected: bool,
}

#[derive(Debug)]
struct Disk {
    live: MemoryDevice,
    tracking: Tracking,
}

/// What changed on a disk, by the sequence of the point in time that the change came before.
#[derive(Clone, Debug)]
struct Tracking {
    uuid: Uuid,
    sequence: u64,
    /// The last sequence that brought a change: equal ones have equal content.
    content: u64,
    /// The last sequence that was committed: what came before is forgotten.
    committed: u64,
    history: BTreeMap<u64, ExtentSet>,
}

#[derive(Debug)]
struct Point {
    answer: PointInTime,
    disks: BTreeMap<DiskKey, Frozen>,
}

#[derive(Debug)]
struct Frozen {
    copy: MemoryDevice,
    tracking: Tracking,
}

impl Tracking {
    fn new() -> Self {
        Self { uuid: Uuid::new_v4(), sequence: 0, content: 0, committed: 0, history: BTreeMap::new() }
    }

    fn advance(&mut self, changed: ExtentSet) {
        self.sequence += 1;
        if !changed.is_empty() {
            self.content = self.sequence;
            self.history.insert(self.sequence, changed);
        }
    }

    fn change_id(&self) -> ChangeId {
        let byte = |b: &u8| format!("{b:02x}");
        let half = |bytes: &[u8]| bytes.iter().map(byte).collect::<Vec<_>>().join(" ");
        let (first, last) = self.uuid.as_bytes().split_at(8);
        let text = format!("{}-{}/{}", half(first), half(last), self.sequence);
        ChangeId::parse(text).expect("VMware's form is a change id")
    }

    fn changed(&self, since: &ChangeId) -> Changes {
        match (since.uuid(), since.sequence()) {
            (Some(uuid), _) if uuid != self.uuid => {
                Changes::Unknown(format!("change tracking was reset after {since}"))
            }
            (Some(_), Some(sequence)) if sequence < self.committed => Changes::Unknown(format!(
                "what changed since {since} is forgotten: {} was committed",
                self.committed
            )),
            (Some(_), Some(sequence)) if sequence <= self.sequence => {
                let newer = self.history.range(sequence.saturating_add(1)..);
                Changes::Since(newer.flat_map(|(_, changed)| changed.iter()).collect())
            }
            _ => Changes::Unknown(format!("the source never gave out the change id {since}")),
        }
    }
}

impl Tracking {
    /// Forgets what came before a committed change id.
    fn commit(&mut self, change_id: &ChangeId) {
        if let (Some(uuid), Some(sequence)) = (change_id.uuid(), change_id.sequence())
            && uuid == self.uuid
        {
            self.committed = self.committed.max(sequence.min(self.sequence));
            self.history = self.history.split_off(&(self.committed + 1));
        }
    }
}

impl MemorySource {
    /// A source without VMs.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, state: Mutex::default() }
    }

    /// Gives a VM, new or known, a disk; answers the live disk, to be written like a guest does. A disk that the VM has
    /// under this key already is replaced.
    pub fn add_disk(&self, vm: &VmPath, key: &DiskKey, capacity: ByteSize) -> MemoryDevice {
        let live = MemoryDevice::new(self.location(vm, key), capacity);
        let disk = Disk { live: live.clone(), tracking: Tracking::new() };
        self.state().vms.entry(vm.clone()).or_default().insert(key.clone(), disk);
        live
    }

    /// Takes a disk away; points in time keep theirs.
    pub fn remove_disk(&self, vm: &VmPath, key: &DiskKey) {
        if let Some(disks) = self.state().vms.get_mut(vm) {
            disks.remove(key);
        }
    }

    /// The live disk.
    #[must_use]
    pub fn disk(&self, vm: &VmPath, key: &DiskKey) -> Option<MemoryDevice> {
        Some(self.state().vms.get(vm)?.get(key)?.live.clone())
    }

    /// Makes a disk larger, which changes its new part; answers the live disk of the new size.
    pub fn grow_disk(&self, vm: &VmPath, key: &DiskKey, capacity: ByteSize) -> Option<MemoryDevice> {
        let mut state = self.state();
        let disk = state.vms.get_mut(vm)?.get_mut(key)?;
        let old = disk.live.info().capacity;
        disk.live.content().note_changed(Extent::between(old.bytes(), capacity.bytes()));
        disk.live = disk.live.with_capacity(capacity.max(old));
        Some(disk.live.clone())
    }

    /// As [`MemorySource::grow_disk`], with data in the new part that no tracker has seen: it is not told as changed.
    pub fn grow_disk_unseen(&self, vm: &VmPath, key: &DiskKey, capacity: ByteSize) -> Option<MemoryDevice> {
        let mut state = self.state();
        let disk = state.vms.get_mut(vm)?.get_mut(key)?;
        let old = disk.live.info().capacity;
        disk.live = disk.live.with_capacity(capacity.max(old));
        disk.live.fill(Extent::between(old.bytes(), capacity.bytes()), 0x6f);
        Some(disk.live.clone())
    }

    /// Makes a disk smaller; answers the live disk of the new size.
    pub fn shrink_disk(&self, vm: &VmPath, key: &DiskKey, capacity: ByteSize) -> Option<MemoryDevice> {
        let mut state = self.state();
        let disk = state.vms.get_mut(vm)?.get_mut(key)?;
        disk.live = disk.live.with_capacity(capacity.min(disk.live.info().capacity));
        Some(disk.live.clone())
    }

    /// Forgets what changed on a disk: change ids given out before are worth nothing.
    pub fn reset_tracking(&self, vm: &VmPath, key: &DiskKey) {
        if let Some(disk) = self.state().vms.get_mut(vm).and_then(|disks| disks.get_mut(key)) {
            disk.tracking = Tracking::new();
        }
    }

    /// The points in time that were not released.
    #[must_use]
    pub fn points(&self) -> BTreeSet<PointId> {
        self.state().points.keys().cloned().collect()
    }

    /// Loses every point in time, as an operator who deletes snapshots does.
    pub fn forget_points(&self) {
        self.state().points.clear();
    }

    /// The faults of all disks with this key at all points in time, those opened already too.
    pub fn faults(&self, key: &DiskKey) -> Faults {
        self.state().faults.entry(key.clone()).or_default().clone()
    }

    /// Lets every call but those on open disks answer `Unavailable`.
    pub fn disconnect(&self) {
        self.state().disconnected = true;
    }

    /// Ends [`MemorySource::disconnect`].
    pub fn reconnect(&self) {
        self.state().disconnected = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.disconnected {
            return Err(Error::new(ErrorKind::Unavailable, operation, &self.endpoint)
                .because("the source was disconnected")
                .with_retry(Retry::Later));
        }
        Ok(state)
    }

    fn location(&self, vm: &VmPath, key: &DiskKey) -> String {
        format!("{}:{vm}/{key}", self.endpoint)
    }
}

impl State {
    fn frozen(&self, operation: &'static str, point: &PointId, key: &DiskKey) -> Result<&Frozen> {
        let found = self.points.get(point).and_then(|point| point.disks.get(key));
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, operation, format!("{point}/{key}")))
    }
}

/// Copies all disks at one moment: every one is locked before the first is copied.
fn freeze(id: &PointId, disks: &mut BTreeMap<DiskKey, Disk>) -> Point {
    let devices: Vec<_> = disks.values().map(|disk| disk.live.clone()).collect();
    let mut contents: Vec<_> = devices.iter().map(MemoryDevice::content).collect();
    let mut point =
        Point { answer: PointInTime { id: id.clone(), disks: Vec::new() }, disks: BTreeMap::new() };
    for (((key, disk), device), content) in disks.iter_mut().zip(&devices).zip(&mut contents) {
        disk.tracking.advance(content.take_changed());
        let tracking = disk.tracking.clone();
        let name = format!("{}@{}", tracking.uuid, tracking.content);
        point.answer.disks.push(PointDisk {
            key: key.clone(),
            capacity: device.info().capacity,
            change_id: tracking.change_id(),
            content: PointId::parse(name).expect("a UUID and a number are a point id"),
        });
        let copy = device.snapshot(format!("{id}/{key}"), content);
        point.disks.insert(key.clone(), Frozen { copy, tracking });
    }
    point
}

fn point_of(job: &JobId) -> PointId {
    PointId::parse(format!("oma-{job}")).expect("a job id makes a point id")
}

#[async_trait]
impl DiskSource for MemorySource {
    async fn discover(&self, vm: &VmPath) -> Result<SourceVm> {
        let state = self.reached("discover VM")?;
        let disks = state.vms.get(vm).ok_or_else(|| Error::new(ErrorKind::NotFound, "discover VM", vm))?;
        let describe = |(key, disk): (&DiskKey, &Disk)| SourceDisk {
            key: key.clone(),
            label: key.to_string(),
            location: self.location(vm, key),
            capacity: disk.live.info().capacity,
            unit_number: None,
        };
        Ok(SourceVm {
            identity: SourceIdentity {
                instance_uuid: InstanceUuid::from_path(vm),
                endpoint: self.endpoint.clone(),
            },
            name: vm.name().to_owned(),
            path: vm.clone(),
            disks: disks.iter().map(describe).collect(),
        })
    }

    async fn freeze(&self, vm: &VmPath, job: &JobId) -> Result<PointInTime> {
        let mut state = self.reached("freeze VM")?;
        let id = point_of(job);
        if let Some(point) = state.points.get(&id) {
            return Ok(point.answer.clone());
        }
        let disks = state.vms.get_mut(vm).ok_or_else(|| Error::new(ErrorKind::NotFound, "freeze VM", vm))?;
        let point = freeze(&id, disks);
        let answer = point.answer.clone();
        state.points.insert(id, point);
        Ok(answer)
    }

    async fn changed(&self, point: &PointId, key: &DiskKey, since: &ChangeId) -> Result<Changes> {
        let state = self.reached("ask for changes")?;
        Ok(state.frozen("ask for changes", point, key)?.tracking.changed(since))
    }

    async fn committed(&self, point: &PointId, key: &DiskKey, change_id: &ChangeId) -> Result<()> {
        let mut state = self.reached("forget changes")?;
        let uuid = state.frozen("forget changes", point, key)?.tracking.uuid;
        let State { vms, points, .. } = &mut *state;
        let live = vms.values_mut().flat_map(BTreeMap::values_mut).map(|disk| &mut disk.tracking);
        let frozen =
            points.values_mut().flat_map(|point| point.disks.values_mut()).map(|disk| &mut disk.tracking);
        live.chain(frozen)
            .filter(|tracking| tracking.uuid == uuid)
            .for_each(|tracking| tracking.commit(change_id));
        Ok(())
    }

    async fn open(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>> {
        let faults = self.faults(key);
        let state = self.reached("open disk")?;
        let copy = state.frozen("open disk", point, key)?.copy.clone();
        Ok(Arc::new(FaultyDevice::new(Arc::new(copy), faults)))
    }

    async fn confirm(&self, point: &PointInTime) -> Result<()> {
        let state = self.reached("confirm point in time")?;
        point
            .disks
            .iter()
            .try_for_each(|disk| state.frozen("confirm point in time", &point.id, &disk.key).map(drop))
    }

    async fn release(&self, point: &PointId) -> Result<()> {
        self.reached("release point in time")?.points.remove(point);
        Ok(())
    }

    async fn release_job(&self, job: &JobId) -> Result<()> {
        self.release(&point_of(job)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::traits::Durability::Cached;
    use bytes::Bytes;

    #[tokio::test]
    async fn change_ids_have_vmwares_form_and_changes_add_up() {
        let source = MemorySource::new(Endpoint::parse("memory").unwrap());
        let (vm, key) = (VmPath::parse("/DC/vm/web").unwrap(), DiskKey::parse("disk-2000").unwrap());
        let live = source.add_disk(&vm, &key, ByteSize::mib(1));
        let mut points = Vec::new();
        for (millis, offset) in [(1, 0), (2, 100), (3, 300)] {
            live.write_at(offset, Bytes::from_static(b"0123456789"), Cached).await.unwrap();
            points.push(source.freeze(&vm, &JobId::mint(Timestamp::from_millis(millis))).await.unwrap());
        }
        let first = &points[0].disks[0].change_id;
        assert!(first.uuid().is_some() && first.sequence() == Some(1), "{first}");
        let changes = source.changed(&points[2].id, &key, first).await.unwrap();
        let expected = [Extent::new(100, 10).unwrap(), Extent::new(300, 10).unwrap()];
        assert_eq!(changes, Changes::Since(expected.into_iter().collect()));
        let between = source.changed(&points[1].id, &key, first).await.unwrap();
        assert_eq!(between, Changes::Since(expected[..1].iter().copied().collect()));
        source.reset_tracking(&vm, &key);
        let after = source.freeze(&vm, &JobId::mint(Timestamp::from_millis(4))).await.unwrap();
        assert!(matches!(source.changed(&after.id, &key, first).await.unwrap(), Changes::Unknown(_)));
    }
}
