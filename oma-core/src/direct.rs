//! A source made of disks that an operator names one by one: files, block devices, NBD exports.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::record::{SourceDisk, SourceIdentity, SourceVm};
use crate::traits::{BlockDevice, Changes, DiskSource, PointDisk, PointInTime};
use crate::{
    ByteSize, ChangeId, DiskKey, Endpoint, Error, ErrorKind, IdError, InstanceUuid, JobId, PointId, Result,
    VmPath,
};

/// What a [`DirectDisk`] says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectDescription {
    /// Its size.
    pub capacity: ByteSize,
    /// Where it lies, without secrets.
    pub location: String,
    /// Names its content: see [`PointDisk::content`].
    pub content: PointId,
}

/// One disk that an operator named. It has no snapshots: it must not be written while a job reads it.
#[async_trait]
pub trait DirectDisk: fmt::Debug + Send + Sync + 'static {
    /// What it is now.
    async fn describe(&self) -> Result<DirectDescription>;

    /// What changed since a change id: see [`DiskSource::changed`].
    async fn changed(&self, since: &ChangeId) -> Result<Changes>;

    /// Whether its content is still the one that was described: see [`DiskSource::confirm`].
    async fn confirm(&self, content: &PointId) -> Result<()>;

    /// Opens it for reading.
    async fn open(&self) -> Result<Arc<dyn BlockDevice>>;
}

/// One disk of a [`DirectSource`].
#[derive(Clone, Debug)]
pub struct DirectEntry {
    /// Its key.
    pub key: DiskKey,
    /// The change id of its content, when the operator knows one; else one is minted.
    pub change_id: Option<ChangeId>,
    /// The disk.
    pub disk: Arc<dyn DirectDisk>,
}

/// A VM described by its operator: a path and disks.
///
/// Its identity is the path, its endpoint `direct`; its point in time is "as it is now".
#[derive(Debug)]
pub struct DirectSource {
    endpoint: Endpoint,
    disks: BTreeMap<DiskKey, DirectEntry>,
}

impl DirectSource {
    /// A source of these disks.
    ///
    /// # Errors
    /// `Invalid` when there is none, or a key twice.
    pub fn new(entries: Vec<DirectEntry>) -> Result<Self> {
        let refused =
            |reason: String| Error::new(ErrorKind::Invalid, "read", "the list of disks").because(reason);
        if entries.is_empty() {
            return Err(refused("it is empty; name at least one disk".to_owned()));
        }
        let mut disks = BTreeMap::new();
        for entry in entries {
            let key = entry.key.clone();
            if disks.insert(key.clone(), entry).is_some() {
                return Err(refused(format!("the key {key} stands there twice; each disk needs its own")));
            }
        }
        let endpoint = Endpoint::parse("direct").map_err(Self::never)?;
        Ok(Self { endpoint, disks })
    }

    fn never(error: IdError) -> Error {
        Error::new(ErrorKind::Internal, "name", "a direct source").with_source(error)
    }

    fn entry(&self, point: &PointId, key: &DiskKey) -> Result<&DirectEntry> {
        self.disks
            .get(key)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "find disk", format!("{point}/{key}")))
    }
}

#[async_trait]
impl DiskSource for DirectSource {
    async fn discover(&self, vm: &VmPath) -> Result<SourceVm> {
        let mut disks = Vec::with_capacity(self.disks.len());
        for (key, entry) in &self.disks {
            let about = entry.disk.describe().await?;
            disks.push(SourceDisk {
                key: key.clone(),
                label: key.to_string(),
                location: about.location,
                capacity: about.capacity,
                unit_number: None,
            });
        }
        let identity =
            SourceIdentity { instance_uuid: InstanceUuid::from_path(vm), endpoint: self.endpoint.clone() };
        Ok(SourceVm { identity, name: vm.name().to_owned(), path: vm.clone(), disks })
    }

    async fn freeze(&self, _vm: &VmPath, job: &JobId) -> Result<PointInTime> {
        let mut disks = Vec::with_capacity(self.disks.len());
        for (key, entry) in &self.disks {
            let about = entry.disk.describe().await?;
            disks.push(PointDisk {
                key: key.clone(),
                capacity: about.capacity,
                change_id: entry.change_id.clone().unwrap_or_else(ChangeId::mint),
                content: about.content,
            });
        }
        let id = PointId::parse(format!("direct-{job}")).map_err(Self::never)?;
        Ok(PointInTime { id, disks })
    }

    async fn changed(&self, point: &PointId, key: &DiskKey, since: &ChangeId) -> Result<Changes> {
        self.entry(point, key)?.disk.changed(since).await
    }

    async fn committed(&self, point: &PointId, key: &DiskKey, _change_id: &ChangeId) -> Result<()> {
        self.entry(point, key).map(drop)
    }

    async fn open(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>> {
        self.entry(point, key)?.disk.open().await
    }

    async fn confirm(&self, point: &PointInTime) -> Result<()> {
        let mut confirmed = Ok(());
        for disk in &point.disks {
            match self.entry(&point.id, &disk.key)?.disk.confirm(&disk.content).await {
                // That one was written is worth more than that another one could not be asked.
                Err(error) if error.kind() == ErrorKind::Conflict => return Err(error),
                asked => confirmed = confirmed.and(asked),
            }
        }
        confirmed
    }

    async fn release(&self, _point: &PointId) -> Result<()> {
        Ok(())
    }

    async fn release_job(&self, _job: &JobId) -> Result<()> {
        Ok(())
    }
}
