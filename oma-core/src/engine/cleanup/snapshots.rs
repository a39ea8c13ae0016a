//! Snapshots that came after their recovery point was given up: the job's mark is all that tells of them.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;

use super::CleanupService;
use crate::record::{CleanupAction as A, CleanupPlan, RecoveryPoint};
use crate::traits::{SnapshotSpec, Snapshots};
use crate::{Result, VolumeId};

impl CleanupService {
    /// Those of a plan's job that no recovery point knows, by id. A worker that was fenced off among its snapshots may make one after the
    /// point that it was for is deleted, and after its job is: only the marks of this deployment, of the VM and of the job itself
    /// prove that it is ours (L20).
    ///
    /// Snapshots are listed before points: each was recorded before it was made, so what is there and not recorded was given up.
    pub(super) async fn late_snapshots(&self, plan: &CleanupPlan) -> Result<Vec<SnapshotSpec>> {
        let services = self.volumes().services();
        if services.backend.capabilities().snapshots == Snapshots::None {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for volume in self.volumes_of(plan).await? {
            let listing = services.backend.snapshots(&volume).try_collect::<Vec<_>>();
            found.extend(self.volumes().answered(&volume, listing).await?);
        }
        let points: Vec<RecoveryPoint> = self.0.services.points.points(&plan.context).try_collect().await?;
        let known: BTreeSet<_> =
            points.iter().flat_map(|point| &point.volumes).map(|volume| &volume.snapshot.id).collect();
        let is_ours = |spec: &SnapshotSpec| {
            spec.job == plan.job
                && spec.tag.instance == plan.instance
                && spec.tag.disk.context == plan.context
        };
        let specs = found.into_iter().map(|snapshot| snapshot.spec);
        let mut late: Vec<_> = specs.filter(|spec| is_ours(spec) && !known.contains(&spec.id)).collect();
        late.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(late)
    }

    /// The volumes of the VM's disks, and those that the plan removes.
    async fn volumes_of(&self, plan: &CleanupPlan) -> Result<BTreeSet<VolumeId>> {
        let removed = plan.steps.iter().filter_map(|step| match step {
            A::Detach { volume } | A::Delete { volume } | A::Condemn { volume } | A::Forget { volume } => {
                Some(volume.id.clone())
            }
            _ => None,
        });
        let mut volumes: BTreeSet<VolumeId> = removed.collect();
        for disk in self.0.services.inventory.disks(&plan.context).await? {
            let volume = self.volumes().services().volumes.volume_of(&disk.disk).await?;
            volumes.extend(volume.map(|volume| volume.id));
        }
        Ok(volumes)
    }
}
