use std::fmt;

use serde::{Deserialize, Serialize};

/// How much is left that names a job and should not (seed 003, phase 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orphans {
    /// Disks of the job, whose record is gone.
    pub disks: u64,
    /// Recorded exports of the job, which has ended.
    pub exports: u64,
    /// Export mappings of the job.
    pub export_mappings: u64,
    /// Exports that are served for its disks and that no record justifies.
    pub served: u64,
    /// Device mappings of volumes that are gone, of disks that the job changed.
    pub device_mappings: u64,
    /// Operations of the job that have not ended.
    pub operations: u64,
    /// Recovery points of the job that were never ready.
    pub points: u64,
    /// Snapshots that the job made and that no recovery point knows.
    #[serde(default)]
    pub snapshots: u64,
    /// Volumes that the plan removes and that are still recorded or in the backend.
    pub volumes: u64,
    /// Failover jobs of the job, whose record is gone.
    pub failovers: u64,
    /// Records of jobs that the plan removes.
    pub jobs: u64,
}

impl Orphans {
    /// Each count with its name.
    #[must_use]
    pub const fn counts(&self) -> [(&'static str, u64); 11] {
        [
            ("disks", self.disks),
            ("exports", self.exports),
            ("export_mappings", self.export_mappings),
            ("served", self.served),
            ("device_mappings", self.device_mappings),
            ("operations", self.operations),
            ("points", self.points),
            ("snapshots", self.snapshots),
            ("volumes", self.volumes),
            ("failovers", self.failovers),
            ("jobs", self.jobs),
        ]
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count == 0)
    }
}

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let left: Vec<_> = left.map(|(name, count)| format!("{count} {name}")).collect();
        if left.is_empty() { f.write_str("nothing") } else { f.write_str(&left.join(", ")) }
    }
}
