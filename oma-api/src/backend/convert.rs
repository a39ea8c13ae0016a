//! To the words of `oma-core` and back.

use oma_core::DiskRef;
use oma_core::record::VolumeTag;
use oma_core::traits::{
    Access, BackendCapabilities, Provisioning, Snapshot, SnapshotSpec, Snapshots, Volume, VolumeSpec,
};

use super::{
    Allocation, BackendSnapshot, BackendVolume, Capabilities, Create, OpenFor, SnapshotCost, SnapshotMark,
    Tag,
};

impl From<VolumeTag> for Tag {
    fn from(tag: VolumeTag) -> Self {
        let VolumeTag { instance, disk: DiskRef { context, key }, generation } = tag;
        Self { instance, context_id: context, disk_key: key, generation }
    }
}

impl From<Tag> for VolumeTag {
    fn from(tag: Tag) -> Self {
        let Tag { instance, context_id, disk_key, generation } = tag;
        Self { instance, disk: DiskRef { context: context_id, key: disk_key }, generation }
    }
}

impl From<BackendCapabilities> for Capabilities {
    fn from(known: BackendCapabilities) -> Self {
        let BackendCapabilities { zeroed_on_create, resize, content_stamp, snapshots } = known;
        let snapshots = match snapshots {
            Snapshots::None => SnapshotCost::None,
            Snapshots::ByCopy => SnapshotCost::ByCopy,
            Snapshots::Instant => SnapshotCost::Instant,
        };
        Self { zeroed_on_create, resize, content_stamp, snapshots }
    }
}

impl From<Capabilities> for BackendCapabilities {
    fn from(told: Capabilities) -> Self {
        let Capabilities { zeroed_on_create, resize, content_stamp, snapshots } = told;
        let snapshots = match snapshots {
            SnapshotCost::None => Snapshots::None,
            SnapshotCost::ByCopy => Snapshots::ByCopy,
            SnapshotCost::Instant => Snapshots::Instant,
        };
        Self { zeroed_on_create, resize, content_stamp, snapshots }
    }
}

impl From<Provisioning> for Allocation {
    fn from(provisioning: Provisioning) -> Self {
        match provisioning {
            Provisioning::Thin => Self::Thin,
            Provisioning::Thick => Self::Thick,
        }
    }
}

impl From<Allocation> for Provisioning {
    fn from(allocation: Allocation) -> Self {
        match allocation {
            Allocation::Thin => Self::Thin,
            Allocation::Thick => Self::Thick,
        }
    }
}

impl From<Access> for OpenFor {
    fn from(access: Access) -> Self {
        match access {
            Access::ReadOnly => Self::Reading,
            Access::ReadWrite => Self::Writing,
        }
    }
}

impl From<OpenFor> for Access {
    fn from(wanted: OpenFor) -> Self {
        match wanted {
            OpenFor::Reading => Self::ReadOnly,
            OpenFor::Writing => Self::ReadWrite,
        }
    }
}

impl From<VolumeSpec> for Create {
    fn from(spec: VolumeSpec) -> Self {
        let VolumeSpec { operation, tag, name, capacity, provisioning } = spec;
        let (tag, provisioning) = (tag.into(), provisioning.into());
        Self { operation_id: operation, tag, name, capacity_bytes: capacity, provisioning }
    }
}

impl From<Create> for VolumeSpec {
    fn from(asked: Create) -> Self {
        let Create { operation_id, tag, name, capacity_bytes, provisioning } = asked;
        let (tag, provisioning) = (tag.into(), provisioning.into());
        Self { operation: operation_id, tag, name, capacity: capacity_bytes, provisioning }
    }
}

impl From<Volume> for BackendVolume {
    fn from(volume: Volume) -> Self {
        let Volume { id, name, capacity, tag, device_path } = volume;
        Self { volume_id: id, name, capacity_bytes: capacity, tag: tag.map(Into::into), device_path }
    }
}

impl From<BackendVolume> for Volume {
    fn from(told: BackendVolume) -> Self {
        let BackendVolume { volume_id, name, capacity_bytes, tag, device_path } = told;
        Self { id: volume_id, name, capacity: capacity_bytes, tag: tag.map(Into::into), device_path }
    }
}

impl From<SnapshotSpec> for SnapshotMark {
    fn from(spec: SnapshotSpec) -> Self {
        let SnapshotSpec { id, volume, tag, job } = spec;
        Self { snapshot_id: id, volume_id: volume, tag: tag.into(), job_id: job }
    }
}

impl From<SnapshotMark> for SnapshotSpec {
    fn from(mark: SnapshotMark) -> Self {
        let SnapshotMark { snapshot_id, volume_id, tag, job_id } = mark;
        Self { id: snapshot_id, volume: volume_id, tag: tag.into(), job: job_id }
    }
}

impl From<Snapshot> for BackendSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { spec, name, capacity } = snapshot;
        Self { mark: spec.into(), name, capacity_bytes: capacity }
    }
}

impl From<BackendSnapshot> for Snapshot {
    fn from(told: BackendSnapshot) -> Self {
        let BackendSnapshot { mark, name, capacity_bytes } = told;
        Self { spec: mark.into(), name, capacity: capacity_bytes }
    }
}
