use oma_core::state::JobStatus;
use oma_core::{ByteSize, ChangeId, DiskKey, Endpoint, Epoch, ExtentSet, InstanceUuid, JobId, PointId};
use serde::{Deserialize, Serialize};

/// A VM whose disks an agent pushes, as they are at the point in time that it has frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// The UUID of the VM at its source; made of its path when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub instance_uuid: Option<InstanceUuid>,
    /// Where the VM comes from, for operators to say; an agent's VMs are its user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub endpoint: Option<Endpoint>,
    /// Its disks.
    pub disks: Vec<PushedDisk>,
}

/// A disk that an agent pushes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PushedDisk {
    /// Its key within the VM.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "disk-2000"))]
    pub key: DiskKey,
    /// Its size in bytes, as the source reports it.
    #[cfg_attr(feature = "server", schema(value_type = u64, minimum = 1))]
    pub capacity_bytes: ByteSize,
    /// The marker of the point in time: what is reported once the disk is copied.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "b0@17"))]
    pub change_id: ChangeId,
    /// Names the content at that point: equal names mean equal content. The change id when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub content: Option<PointId>,
    /// Its label, for readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What changed up to that point. Without a word on the change id that the volume holds the whole disk is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<ChangedSince>,
}

/// What changed on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangedSince {
    /// Since this change id.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "b0@16"))]
    pub since: ChangeId,
    /// Every byte that differs lies in one of these, each as `[offset, length]`; they may hold more. A request has 64 KiB in all: join
    /// those that are near to each other.
    #[cfg_attr(feature = "server", schema(value_type = Vec<[u64; 2]>))]
    pub extents: ExtentSet,
}

/// What the agent of a replication has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct PushRow {
    /// The job.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// How it stands.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: JobStatus,
    /// The epoch that it produces.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub epoch: Epoch,
    /// Whether the exports are there: until then, and again after a restart, ask again.
    pub ready: bool,
    /// Names the attempt, and is said with every word of it. Grows each time that the job is driven by somebody else or anew; the exports
    /// are others then, and a word of an attempt before is refused.
    pub fence: Option<u64>,
    /// For how many seconds nobody has read or written an export, or said a word; who only looks is not seen. While it is small another
    /// agent is at work: leave the job alone.
    #[serde(default)]
    pub quiet_seconds: Option<u64>,
    /// Why it failed, or its last attempt did.
    pub error: Option<String>,
    /// Its disks.
    pub disks: Vec<PushDiskRow>,
}

/// What the agent of a replication has to know of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct PushDiskRow {
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_id: DiskKey,
    /// Its size.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
    /// The change id to report: of the point in time that the job was recorded with.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub change_id: ChangeId,
    /// Names the content at that point.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub content: PointId,
    /// The change id that the volume holds; without one the whole disk is covered.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub base_change_id: Option<ChangeId>,
    /// Where it is written, an NBD URI; its name is nobody else's to know, and is not told to those who only look.
    pub export: Option<String>,
    /// Whether the export reads as zero in all of `work`: zeroes may be left out.
    pub blank: bool,
    /// Whether what the export reads is what its device holds, so that what is found equal need not be written. Where it is not, copy.
    pub compare: bool,
    /// Whether what did not change since the base is right already, also within `work`: nobody has written there for this epoch.
    pub fresh: bool,
    /// What has to be right when the disk is reported, each as `[offset, length]`, but for what was finished before. Nothing outside the
    /// changes may be written.
    #[cfg_attr(feature = "server", schema(value_type = Vec<[u64; 2]>))]
    pub work: ExtentSet,
    /// Bytes of that.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub work_bytes: ByteSize,
    /// Whether it was reported since the job became ready; one that was not is to be reported, also a second time.
    pub reported: bool,
}

/// Extents that an agent has copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FinishedExtents {
    /// The attempt that they were copied in: the `fence` that it was told with.
    pub fence: u64,
    /// Each as `[offset, length]`, at most 1000.
    #[cfg_attr(feature = "server", schema(value_type = Vec<[u64; 2]>))]
    pub extents: ExtentSet,
}

/// Why an agent gives up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PushFailed {
    /// The attempt that is given up: the `fence` that it was told with.
    pub fence: u64,
    /// The reason, for readers; 1 to 1000 characters.
    #[cfg_attr(feature = "server", schema(min_length = 1, max_length = 1000))]
    pub reason: String,
    /// The source was written while it was read: what was copied is of no one moment, and nobody builds on it.
    #[serde(default)]
    pub mixed: bool,
}

#[cfg(feature = "server")]
mod server {
    use std::sync::Arc;

    use oma_core::engine::{PushDisk, PushDiskState, PushSource, PushVm};
    use oma_core::record::SourceIdentity;
    use oma_core::{Error, ErrorKind, PointId, Result, VmPath};

    use super::{PushDiskRow, PushRequest, PushedDisk};

    impl PushRequest {
        /// The VM as it is told of.
        pub(crate) fn source(&self, path: &VmPath, identity: SourceIdentity) -> Result<Arc<PushSource>> {
            let place = format!("pushed from {}", identity.endpoint);
            let disk = |disk: &PushedDisk| {
                Ok(PushDisk {
                    key: disk.key.clone(),
                    capacity: disk.capacity_bytes,
                    label: disk.label.clone().unwrap_or_else(|| disk.key.to_string()),
                    location: place.clone(),
                    change_id: disk.change_id.clone(),
                    content: disk.content()?,
                    changed: disk
                        .changed
                        .iter()
                        .map(|told| (told.since.clone(), told.extents.clone()))
                        .collect(),
                })
            };
            let disks = self.disks.iter().map(disk).collect::<Result<_>>()?;
            PushSource::new(PushVm { identity, path: path.clone(), disks }).map(Arc::new)
        }
    }

    impl PushedDisk {
        /// Names its content.
        fn content(&self) -> Result<PointId> {
            match &self.content {
                Some(content) => Ok(content.clone()),
                None => PointId::parse(self.change_id.as_str()).map_err(|error| {
                    Error::new(ErrorKind::Invalid, "name the content of", &self.key).with_source(error)
                }),
            }
        }

        /// As it is told of before its export is there.
        pub(crate) fn row(&self) -> Result<PushDiskRow> {
            Ok(PushDiskRow {
                disk_id: self.key.clone(),
                capacity_bytes: self.capacity_bytes,
                change_id: self.change_id.clone(),
                content: self.content()?,
                base_change_id: None,
                export: None,
                blank: false,
                compare: false,
                fresh: false,
                work: oma_core::ExtentSet::new(),
                work_bytes: oma_core::ByteSize::ZERO,
                reported: false,
            })
        }
    }

    impl PushDiskRow {
        /// The row of a disk whose export has this URI, for those who may know it.
        pub(crate) fn new(disk: &PushDiskState, export: Option<String>) -> Self {
            Self {
                disk_id: disk.key.clone(),
                capacity_bytes: disk.capacity,
                change_id: disk.change_id.clone(),
                content: disk.content.clone(),
                base_change_id: disk.base.clone(),
                export,
                blank: disk.blank,
                compare: disk.compare,
                fresh: disk.fresh,
                work: disk.work.clone(),
                work_bytes: disk.work.bytes(),
                reported: disk.reported,
            }
        }
    }
}
