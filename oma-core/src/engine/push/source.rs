//! A source that is described by an agent, and read by nobody here.

use async_trait::async_trait;

use crate::record::{SourceDisk, SourceIdentity, SourceVm};
use crate::traits::{BlockDevice, Changes, DiskSource, PointDisk, PointInTime};
use crate::{ByteSize, ChangeId, DiskKey, Error, ErrorKind, ExtentSet, JobId, PointId, Result, VmPath};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A VM as an agent describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushVm {
    /// Who it is.
    pub identity: SourceIdentity,
    /// Its path.
    pub path: VmPath,
    /// Its disks at the point in time that is to be copied.
    pub disks: Vec<PushDisk>,
}

/// A disk as an agent describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushDisk {
    /// Its key within the VM.
    pub key: DiskKey,
    /// Its size (L13).
    pub capacity: ByteSize,
    /// Its label, for readers.
    pub label: String,
    /// Where it lies at the source, without secrets.
    pub location: String,
    /// The marker of the point in time.
    pub change_id: ChangeId,
    /// Names its content then: see [`PointDisk::content`].
    pub content: PointId,
    /// What changed up to the point in time, since which change ids.
    pub changed: Vec<(ChangeId, ExtentSet)>,
}

/// The source of a job that an agent pushes.
#[derive(Debug)]
pub struct PushSource {
    vm: PushVm,
}

impl PushSource {
    /// A source as an agent describes it.
    ///
    /// # Errors
    /// `Invalid` when it has no disk, a key twice, or changes since the same change id twice, and for changes beyond the end of a disk.
    pub fn new(vm: PushVm) -> Result<Self> {
        let refused = |reason: String| {
            Err(Error::new(ErrorKind::Invalid, "read the disks of", &vm.path).because(reason))
        };
        if vm.disks.is_empty() {
            return refused("there is none; name at least one".to_owned());
        }
        for (index, disk) in vm.disks.iter().enumerate() {
            let key = &disk.key;
            if vm.disks[..index].iter().any(|other| other.key == *key) {
                return refused(format!("the key {key} stands there twice; each disk needs its own"));
            }
            if disk.capacity == ByteSize::ZERO {
                return refused(format!("{key} has no byte"));
            }
            let told: BTreeSet<&str> = disk.changed.iter().map(|(since, _)| since.as_str()).collect();
            if told.len() < disk.changed.len() {
                return refused(format!(
                    "what changed of {key} is told twice since the same change id; tell it once"
                ));
            }
            let last = disk.changed.iter().filter_map(|(_, extents)| extents.last()).map(crate::Extent::end);
            if last.max().is_some_and(|end| end > disk.capacity.bytes()) {
                return refused(format!("changes of {key} lie beyond its {} bytes", disk.capacity.bytes()));
            }
        }
        Ok(Self { vm })
    }

    fn disk(&self, point: &PointId, key: &DiskKey) -> Result<&PushDisk> {
        let found = self.vm.disks.iter().find(|disk| disk.key == *key);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "find disk", format!("{point}/{key}")))
    }
}

#[async_trait]
impl DiskSource for PushSource {
    async fn discover(&self, vm: &VmPath) -> Result<SourceVm> {
        let disk = |disk: &PushDisk| SourceDisk {
            key: disk.key.clone(),
            label: disk.label.clone(),
            location: disk.location.clone(),
            capacity: disk.capacity,
            unit_number: None,
        };
        Ok(SourceVm {
            identity: self.vm.identity.clone(),
            name: vm.name().to_owned(),
            path: vm.clone(),
            disks: self.vm.disks.iter().map(disk).collect(),
        })
    }

    /// The agent has frozen it before it asked for the job.
    async fn freeze(&self, _vm: &VmPath, job: &JobId) -> Result<PointInTime> {
        let id = PointId::parse(format!("push-{job}"))
            .map_err(|error| Error::new(ErrorKind::Internal, "name", "a point in time").with_source(error))?;
        let disk = |disk: &PushDisk| PointDisk {
            key: disk.key.clone(),
            capacity: disk.capacity,
            change_id: disk.change_id.clone(),
            content: disk.content.clone(),
        };
        Ok(PointInTime { id, disks: self.vm.disks.iter().map(disk).collect() })
    }

    async fn changed(&self, point: &PointId, key: &DiskKey, since: &ChangeId) -> Result<Changes> {
        let told = &self.disk(point, key)?.changed;
        Ok(match told.iter().find(|(told, _)| told == since) {
            Some((_, extents)) => Changes::Since(extents.clone()),
            None => Changes::Unknown(format!("the agent did not tell what changed since {since}")),
        })
    }

    async fn committed(&self, point: &PointId, key: &DiskKey, _change_id: &ChangeId) -> Result<()> {
        self.disk(point, key).map(drop)
    }

    /// Only the agent reads it.
    async fn open(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>> {
        self.disk(point, key)?;
        Err(Error::new(ErrorKind::Unsupported, "open source disk", key)
            .because("an agent pushes it; only the agent can read it"))
    }

    /// The agent has made sure before it reported.
    async fn confirm(&self, _point: &PointInTime) -> Result<()> {
        Ok(())
    }

    async fn release(&self, _point: &PointId) -> Result<()> {
        Ok(())
    }

    async fn release_job(&self, _job: &JobId) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, Extent, InstanceUuid};

    fn disk(key: &str) -> PushDisk {
        let changes = [Extent::new(4096, 512).unwrap()].into_iter().collect();
        PushDisk {
            key: DiskKey::parse(key).unwrap(),
            capacity: ByteSize::mib(1),
            label: String::new(),
            location: String::new(),
            change_id: ChangeId::parse("b@2").unwrap(),
            content: PointId::parse("content").unwrap(),
            changed: vec![(ChangeId::parse("b@1").unwrap(), changes)],
        }
    }

    fn source(disks: Vec<PushDisk>) -> Result<PushSource> {
        let path = VmPath::parse("/DC/vm/web").unwrap();
        let instance_uuid = InstanceUuid::from_path(&path);
        let identity = SourceIdentity { instance_uuid, endpoint: Endpoint::parse("push").unwrap() };
        PushSource::new(PushVm { identity, path, disks })
    }

    #[test]
    fn what_cannot_be_a_vm_is_refused() {
        let beyond = PushDisk { capacity: ByteSize::kib(4), ..disk("disk-2000") };
        let empty = PushDisk { capacity: ByteSize::ZERO, changed: Vec::new(), ..disk("disk-2000") };
        let mut twice = disk("disk-2000");
        twice.changed.push((ChangeId::parse("b@1").unwrap(), ExtentSet::new()));
        for disks in
            [vec![], vec![disk("disk-2000"), disk("disk-2000")], vec![beyond], vec![empty], vec![twice]]
        {
            assert_eq!(source(disks).unwrap_err().kind(), ErrorKind::Invalid);
        }
        source(vec![disk("disk-2000"), disk("disk-2001")]).unwrap();
    }

    #[tokio::test]
    async fn what_the_agent_did_not_tell_is_not_known() {
        let source = source(vec![disk("disk-2000")]).unwrap();
        let (point, key) = (PointId::parse("p").unwrap(), DiskKey::parse("disk-2000").unwrap());
        let changed =
            async |since: &str| source.changed(&point, &key, &ChangeId::parse(since).unwrap()).await.unwrap();
        assert!(
            matches!(changed("b@1").await, Changes::Since(extents) if extents.bytes() == ByteSize::new(512))
        );
        assert!(matches!(changed("b@0").await, Changes::Unknown(_)));
        assert_eq!(source.open(&point, &key).await.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
