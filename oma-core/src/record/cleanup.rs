use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Order, Orphans, VolumeRecord, VolumeTag};
use crate::state::{CleanupStatus, CleanupStepStatus, FailoverKind, FailoverStatus, JobStatus};
use crate::traits::{SnapshotSpec, Volume};
use crate::{
    CleanupId, ContextId, DiskRef, ExportName, FailoverJobId, Generation, InstanceId, JobId, OperationId,
    RecoveryPointId, Timestamp, VmPath, VolumeId, WorkerId,
};

/// What becomes of volumes that hold or held an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepVolumes {
    /// They stay: the next replication goes on from them.
    #[default]
    Keep,
    /// They are condemned: deleted after a while, in which that can be called off.
    Condemn,
}

/// What an item of a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanupItemKind {
    /// The job's record, with what goes with it: its steps, its verification report, its part of the history.
    Job,
    /// A recorded export.
    Export,
    /// An export that is served and that no record knows.
    ServedExport,
    /// A recovery point of the job.
    RecoveryPoint,
    /// A snapshot that the job made and that no recovery point knows: it came late.
    Snapshot,
    /// A recorded volume of a disk of the job.
    Volume,
    /// The local device of a volume.
    Device,
    /// A volume in the backend that bears the mark of a disk of the job and that no record knows.
    Orphan,
    /// A recorded volume that a disk of the job had before.
    FormerVolume,
    /// An operation that has not ended.
    Operation,
    /// A failover job.
    Failover,
}

/// One thing that a plan found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanupItem {
    /// What it is.
    pub kind: CleanupItemKind,
    /// Its id or name.
    pub id: String,
    /// What was found of it, for readers.
    pub detail: String,
    /// Why it stays; `None`: a step removes it.
    pub protected: Option<String>,
}

/// What the backend has of a volume. One without a mark is there all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Presence {
    /// The backend is sure that it has none of this id.
    Missing,
    /// It is there.
    Present {
        /// Its mark; `None`: it bears none of ours.
        tag: Option<VolumeTag>,
    },
}

impl Presence {
    /// What the backend answered.
    #[must_use]
    pub fn of(found: Option<Volume>) -> Self {
        found.map_or(Self::Missing, |volume| Self::Present { tag: volume.tag })
    }
}

/// A volume as a plan saw it. A step is done only while it still is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanupVolume {
    /// The volume.
    pub id: VolumeId,
    /// The disk that it is the volume of.
    pub disk: DiskRef,
    /// Its recorded generation.
    pub generation: Generation,
    /// Whether it ever held an epoch.
    pub held_epoch: bool,
    /// What the backend had of it.
    #[serde(alias = "tag", deserialize_with = "found")]
    pub found: Presence,
}

/// As it is recorded now; plans of before have the mark alone, `null` when the volume was missing.
fn found<'de, D: Deserializer<'de>>(found: D) -> Result<Presence, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Recorded {
        Now(Presence),
        Before(Option<VolumeTag>),
    }
    Ok(match Recorded::deserialize(found)? {
        Recorded::Now(found) => found,
        Recorded::Before(None) => Presence::Missing,
        Recorded::Before(tag) => Presence::Present { tag },
    })
}

impl CleanupVolume {
    /// What is recorded and what the backend has.
    #[must_use]
    pub fn of(record: &VolumeRecord, found: Presence) -> Self {
        let VolumeRecord { id, disk, generation, held_epoch, .. } = record.clone();
        Self { id, disk, generation, held_epoch, found }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub enum CleanupAction {
    /// Drain an export, take it from the server, then from the records (L23, L24).
    Withdraw {
        /// The export.
        export: ExportName,
        /// The disk whose volume it serves.
        disk: DiskRef,
    },
    /// Delete the snapshots of a recovery point that was never ready, then its record.
    DropPoint {
        /// The point.
        point: RecoveryPointId,
    },
    /// Delete a snapshot that the job made and that no recovery point knows.
    DropSnapshot {
        /// The snapshot.
        snapshot: SnapshotSpec,
    },
    /// Take the local device of a volume away.
    Detach {
        /// The volume.
        volume: CleanupVolume,
    },
    /// Destroy a volume that never held an epoch.
    Delete {
        /// The volume.
        volume: CleanupVolume,
    },
    /// Plan the deletion of a volume that held an epoch; it can be called off for a while.
    Condemn {
        /// The volume.
        volume: CleanupVolume,
    },
    /// Take a volume out of the records that the backend does not have any more.
    Forget {
        /// The volume.
        volume: CleanupVolume,
    },
    /// Remove the record of a failover job.
    DeleteFailover {
        /// The failover job.
        failover_job: FailoverJobId,
    },
    /// Remove the record of the job.
    DeleteJob {
        /// The job.
        job: JobId,
    },
    /// Count what is left.
    Check,
}

impl CleanupAction {
    /// The label that databases and logs carry.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Withdraw { .. } => "withdraw",
            Self::DropPoint { .. } => "drop_point",
            Self::DropSnapshot { .. } => "drop_snapshot",
            Self::Detach { .. } => "detach",
            Self::Delete { .. } => "delete",
            Self::Condemn { .. } => "condemn",
            Self::Forget { .. } => "forget",
            Self::DeleteFailover { .. } => "delete_failover",
            Self::DeleteJob { .. } => "delete_job",
            Self::Check => "check",
        }
    }
}

impl fmt::Display for CleanupAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Withdraw { export, .. } => write!(f, "withdraw export {export}"),
            Self::DropPoint { point } => write!(f, "delete recovery point {point}"),
            Self::DropSnapshot { snapshot } => {
                write!(f, "delete snapshot {} of volume {}", snapshot.id, snapshot.volume)
            }
            Self::Detach { volume } => write!(f, "detach volume {} of {}", volume.id, volume.disk),
            Self::Delete { volume } => write!(f, "delete volume {} of {}", volume.id, volume.disk),
            Self::Condemn { volume } => write!(f, "condemn volume {} of {}", volume.id, volume.disk),
            Self::Forget { volume } => write!(f, "forget volume {} of {}", volume.id, volume.disk),
            Self::DeleteFailover { failover_job } => write!(f, "delete failover job {failover_job}"),
            Self::DeleteJob { job } => write!(f, "delete job {job}"),
            Self::Check => f.write_str("count what is left"),
        }
    }
}

/// What is to be cleaned up, and how: to be read first. It holds no time, so that two plans of one world are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanupPlan {
    /// The deployment.
    pub instance: InstanceId,
    /// The job.
    pub job: JobId,
    /// How it stands; `None` when only leftovers of it are recorded.
    pub job_status: Option<JobStatus>,
    /// Its VM.
    pub context: ContextId,
    /// Where the VM is found at its source, for readers.
    pub vm: VmPath,
    /// The failover job that is cleaned up with it.
    pub failover_job: Option<FailoverJobId>,
    /// What was wished for volumes that held an epoch.
    pub volumes: KeepVolumes,
    /// What an operator does first. While there is any, the plan cannot be executed.
    pub first: Vec<String>,
    /// What there is, and what of it stays.
    pub items: Vec<CleanupItem>,
    /// What is done, in this order.
    pub steps: Vec<CleanupAction>,
}

impl CleanupPlan {
    /// Whether there is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| *step == CleanupAction::Check)
    }

    /// The same for equal plans and no others.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("OMA 2026-11-22 cleanup plan v1");
        // A plan of ids, texts and labels is always JSON.
        hasher.update(&serde_json::to_vec(self).unwrap_or_default());
        hasher.finalize().to_hex().to_string()
    }
}

/// A cleanup to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupSpec {
    /// Minted by the caller.
    pub id: CleanupId,
    /// Who carries it out: devices and exports are of its machine.
    pub worker: WorkerId,
    /// What is to be done.
    pub plan: CleanupPlan,
}

/// A recorded step (`cleanup_steps`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupStep {
    /// What it does.
    pub action: CleanupAction,
    /// How it stands.
    pub status: CleanupStepStatus,
    /// Why it failed or was refused.
    pub error: Option<String>,
    /// How often it failed.
    pub failures: u32,
    /// The operation that carries it out, recorded before it is begun.
    pub operation: Option<OperationId>,
    /// When it was last told of.
    pub updated_at: Timestamp,
}

/// What is told of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupNews {
    /// How it stands now. One that failed counts as failed once more.
    pub status: CleanupStepStatus,
    /// Why it failed or was refused.
    pub error: Option<String>,
    /// The operation that carries it out; `None` leaves what was told before.
    pub operation: Option<OperationId>,
}

/// A recorded cleanup (`cleanups`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// What was recorded.
    pub spec: CleanupSpec,
    /// How it stands.
    pub status: CleanupStatus,
    /// Its steps, in the order of the plan.
    pub steps: Vec<CleanupStep>,
    /// What was found left, once it is completed.
    pub left: Option<Orphans>,
    /// Why it was refused.
    pub error: Option<String>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

impl Cleanup {
    /// Why one that is said to be completed is not.
    pub const NOT_DONE: &'static str = "a step is not done yet";
    /// The same, of one after which something is left.
    pub const NOT_CLEAN: &'static str = "something is left";

    /// Why one is refused in whose place another one of its job was begun: every store says it alike.
    #[must_use]
    pub fn superseded(by: &CleanupId) -> String {
        format!("cleanup {by} of the same job was begun in its place")
    }

    /// Whether every step is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|step| step.status == CleanupStepStatus::Done)
    }

    /// Whether it has ended just so.
    #[must_use]
    pub fn is_ended_so(&self, end: &CleanupEnd) -> bool {
        match end {
            CleanupEnd::Completed(left) => {
                self.status == CleanupStatus::Completed && self.left == Some(*left)
            }
            CleanupEnd::Refused(why) => {
                self.status == CleanupStatus::Refused && self.error.as_ref() == Some(why)
            }
        }
    }
}

/// How a cleanup ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CleanupEnd {
    /// Every step is done; this was found left: nothing, else no store takes it.
    Completed(Orphans),
    /// It is not done, or not to its end: why.
    Refused(String),
}

/// Which cleanups to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanupFilter {
    /// Only those of this job.
    pub job: Option<JobId>,
    /// Only those that stand so.
    pub status: Option<CleanupStatus>,
    /// Which way the list goes.
    pub order: Order,
    /// Only those behind this one in the list, which must be recorded still.
    pub after: Option<CleanupId>,
}

/// A failover job (`failover_jobs`), as far as a cleanup has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverRecord {
    /// Its id.
    pub id: FailoverJobId,
    /// Its VM.
    pub context: ContextId,
    /// The replication job whose volumes it takes, if that is recorded still.
    pub replication_job: Option<JobId>,
    /// Whether for good.
    pub kind: FailoverKind,
    /// How it stands.
    pub status: FailoverStatus,
    /// The VM that it made in the cloud, if it made one.
    pub destination_vm: Option<String>,
}

impl FailoverRecord {
    /// Why its record must stay, if it must.
    #[must_use]
    pub fn needed(&self) -> Option<String> {
        match &self.destination_vm {
            _ if !self.status.is_over() => Some(format!("it is {}", self.status)),
            Some(vm) => Some(format!("it made VM {vm} in the cloud: destroy that first")),
            None => None,
        }
    }

    /// Why the record of its VM must stay, if it must: also the one hint that there may be a VM in the cloud.
    #[must_use]
    pub fn stays(&self) -> Option<String> {
        let may_run = || {
            "it failed, and may have made a VM in the cloud: look there, then clean it up by name".to_owned()
        };
        self.needed().or_else(|| self.protects(None).then(may_run))
    }

    /// Whether a VM may run from the volumes of its VM (L07). One for good that failed may have made a VM and not known it: it says so
    /// until somebody who looked [names](CleanupPlan::failover_job) it.
    #[must_use]
    pub fn protects(&self, named: Option<&FailoverJobId>) -> bool {
        let may_run = self.kind == FailoverKind::Live && self.status == FailoverStatus::Failed;
        self.needed().is_some() || may_run && named != Some(&self.id)
    }

    /// Which of these protects the volumes of its VM, beyond those that somebody who looked names: one for good first.
    #[must_use]
    pub fn protecting<'f>(failovers: &'f [Self], named: &[FailoverJobId]) -> Option<&'f Self> {
        let name = |failover: &Self| named.iter().find(|named| **named == failover.id);
        let mut protecting = failovers.iter().filter(|failover| failover.protects(name(failover)));
        let first = protecting.clone().find(|failover| failover.kind == FailoverKind::Live);
        first.or_else(|| protecting.next())
    }

    /// Why the volumes of its VM stay as they are, while it [protects](Self::protects) them.
    #[must_use]
    pub fn protection(&self) -> String {
        let Self { id, kind, status, .. } = self;
        let is = format!("{kind} failover {id} of its VM is {status}");
        match self.needed() {
            Some(_) => is,
            None => format!(
                "{is} and may have made a VM: see that none runs in the cloud, then name it with its job in a cleanup"
            ),
        }
    }

    /// Why nothing is begun at the volumes of its VM, and what an operator does about it: every store says it alike.
    #[must_use]
    pub fn refusal(&self) -> String {
        match self.needed() {
            Some(_) => {
                format!("{}: its volumes stay as they are until that is taken back", self.protection())
            }
            None => self.protection(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_before_tells_by_the_mark_alone_whether_its_volume_was_there() {
        let volume = |found: &str| {
            let disk = r#"{"context":"ctx-1","key":"disk-2000"}"#;
            format!(
                r#"{{"do":"forget","volume":{{"id":"vol-1","disk":{disk},"generation":1,"held_epoch":false,{found}}}}}"#
            )
        };
        let read = |found: &str| match serde_json::from_str::<CleanupAction>(&volume(found)).unwrap() {
            CleanupAction::Forget { volume } => volume.found,
            other => panic!("{other}"),
        };
        let mark = r#"{"instance":"904e6e97-8f51-4f3e-a305-d080935df56c","disk":{"context":"ctx-1","key":"disk-2000"},"generation":1}"#;
        assert_eq!(read(r#""tag":null"#), Presence::Missing);
        assert_eq!(read(r#""found":"missing""#), Presence::Missing);
        assert_eq!(read(r#""found":{"present":{"tag":null}}"#), Presence::Present { tag: None });
        let marked = read(&format!(r#""tag":{mark}"#));
        assert!(matches!(&marked, Presence::Present { tag: Some(_) }), "{marked:?}");
        assert_eq!(read(&format!(r#""found":{{"present":{{"tag":{mark}}}}}"#)), marked);
        serde_json::from_str::<CleanupAction>(&volume(r#""found":"lost""#)).unwrap_err();
        let left = r#"{"disks":0,"exports":0,"export_mappings":0,"served":0,"device_mappings":0,"operations":0,"points":0,"volumes":0,"failovers":0,"jobs":0}"#;
        assert_eq!(serde_json::from_str::<Orphans>(left).unwrap(), Orphans::default());
    }
}
