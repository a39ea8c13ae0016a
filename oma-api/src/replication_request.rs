use std::path::PathBuf;

use oma_core::traits::Provisioning;
use oma_core::{TargetName, VmPath};
use serde::{Deserialize, Serialize};

use crate::{NamedDisk, PushRequest, TrustWanted, VerifyWanted};

/// Where the disks of a VM are read: named one by one, or of a machine that runs under QEMU. Paths are those of the machine that drives
/// the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SourceRequest {
    /// Its disks; none of a running machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<NamedDisk>,
    /// The socket of a running machine's monitor (QMP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub qmp: Option<PathBuf>,
    /// The socket of its guest agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub guest_agent: Option<PathBuf>,
}

impl SourceRequest {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to be replicated, and how: also what is recorded with the job, so that whoever drives it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplicationRequest {
    /// The VM, as its source names it.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "/DC/vm/web01"))]
    pub vm_path: VmPath,
    /// Where its disks are read.
    #[serde(default, skip_serializing_if = "SourceRequest::is_nothing")]
    pub source: SourceRequest,
    /// In place of a source: an agent writes its disks into exports that it is given, and reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushRequest>,
    /// The VM gets the path though it had another one.
    #[serde(default)]
    pub rename: bool,
    /// How much is compared before the epoch is committed: `none`, `sample`, `sample=COUNT`, `sample=N/1000`, `changed` or `full`.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = String, default = "none"))]
    pub verify: VerifyWanted,
    /// How far the source is believed when it says what changed: `yes`, `spot-check`, `spot-check=N/1000` or `no`.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = String, default = "yes"))]
    pub trust_changes: TrustWanted,
    /// When the space of new volumes is allocated.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = String, example = "thin"))]
    pub provisioning: Provisioning,
    /// Make a recovery point of the epoch, and keep so many of the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(minimum = 1))]
    pub keep_points: Option<u32>,
    /// Make a recovery point of the epoch, and keep those that are younger, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(minimum = 1))]
    pub keep_points_seconds: Option<u64>,
    /// Larger goes first; 0 is usual.
    #[serde(default)]
    pub priority: i32,
    /// Where its volumes live, if jobs towards that place are to be bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub target: Option<TargetName>,
}

/// A VM to be recorded with its disks as its source describes them now, without a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DiscoverVm {
    /// The VM, as its source names it.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "/DC/vm/web01"))]
    pub vm_path: VmPath,
    /// Where its disks are read.
    pub source: SourceRequest,
    /// The VM gets the path though it had another one.
    #[serde(default)]
    pub rename: bool,
}

#[cfg(feature = "server")]
impl ReplicationRequest {
    /// As the engine asks.
    #[must_use]
    pub fn wanted(&self) -> oma_core::engine::ReplicateRequest {
        use oma_core::engine::{CopyMode, KeepPoints, PathPolicy, ReplicateRequest};
        let younger_than = self.keep_points_seconds.map(std::time::Duration::from_secs);
        let points = KeepPoints { last: self.keep_points, younger_than };
        ReplicateRequest {
            vm: self.vm_path.clone(),
            path: if self.rename { PathPolicy::Rename } else { PathPolicy::Keep },
            verify: self.verify.into(),
            trust: self.trust_changes.into(),
            provisioning: self.provisioning,
            points: (points != KeepPoints::default()).then_some(points),
            mode: if self.push.is_some() { CopyMode::Push } else { CopyMode::Pull },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_the_same() {
        let text = r#"{"vm_path": "/DC/vm/web01", "verify": "sample=10/1000", "keep_points": 3, "priority": 2,
            "source": {"disks": [{"key": "disk-2000", "source": "nbd://h/web01", "bitmap": "b0"}]}}"#;
        let asked: ReplicationRequest = serde_json::from_str(text).unwrap();
        assert_eq!((asked.priority, asked.keep_points), (2, Some(3)));
        let recorded = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<ReplicationRequest>(&recorded).unwrap(), asked);
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        for text in [
            r#"{"vm_path": "/a", "source": {"disk": []}}"#,
            r#"{"vm_path": "/a", "source": {}, "verify": "all"}"#,
            r#"{"vm_path": "/a", "source": {"disks": [{"key": "k", "source": "s", "bitmaps": "b"}]}}"#,
        ] {
            assert!(serde_json::from_str::<ReplicationRequest>(text).is_err(), "{text}");
        }
    }
}
