//! Snapshots that came after their recovery point was given up: the job's mark is all that tells of them.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;

use super::CleanupService;
use crate::record::{CleanupAction as A, CleanupFilter, CleanupPlan, RecoveryPoint, VolumeRecord};
use crate::traits::{SnapshotSpec, Snapshots};
use crate::{JobId, Result, VolumeId};

/// What was found of them.
#[derive(Debug, Default)]
pub(super) struct Late {
    pub(super) snapshots: Vec<SnapshotSpec>,
    /// Why none of them is to be deleted: the records are older than the world, as those of a database that was restored, and do not
    /// know which of them are a recovery point.
    pub(super) newer: Option<String>,
}

impl CleanupService {
    /// Those of a plan's job that no recovery point knows, by id. A worker that was fenced off among its snapshots may make one after the
    /// point that it was for is deleted, and after its job is: only the marks of this deployment, of the VM and of the job itself
    /// prove that it is ours (L20).
    ///
    /// Snapshots are listed before points: each was recorded before it was made, so what is there and not recorded was given up, unless
    /// the records are older than the world.
    pub(super) async fn late_snapshots(&self, plan: &CleanupPlan) -> Result<Late> {
        let services = self.volumes().services();
        if services.backend.capabilities().snapshots == Snapshots::None {
            return Ok(Late::default());
        }
        let volumes = self.volumes_of(plan).await?;
        let mut found = Vec::new();
        for volume in &volumes {
            let listing = services.backend.snapshots(volume).try_collect::<Vec<_>>();
            found.extend(self.volumes().answered(volume, listing).await?);
        }
        let points: Vec<RecoveryPoint> = self.0.services.points.points(&plan.context).try_collect().await?;
        let known: BTreeSet<_> =
            points.iter().flat_map(|point| &point.volumes).map(|volume| &volume.snapshot.id).collect();
        let is_ours =
            |spec: &SnapshotSpec| spec.tag.instance == plan.instance && spec.tag.disk.context == plan.context;
        let specs = found.into_iter().map(|snapshot| snapshot.spec);
        let (mut late, others): (Vec<_>, Vec<_>) = specs
            .filter(|spec| is_ours(spec) && !known.contains(&spec.id))
            .partition(|spec| spec.job == plan.job);
        late.sort_by(|one, other| one.id.cmp(&other.id));
        let newer = if late.is_empty() { None } else { self.newer(&volumes, &late, &others).await? };
        Ok(Late { snapshots: late, newer })
    }

    /// What shows that the world went on after the records were made.
    async fn newer(
        &self,
        volumes: &BTreeSet<VolumeId>,
        late: &[SnapshotSpec],
        others: &[SnapshotSpec],
    ) -> Result<Option<String>> {
        let records = &self.volumes().services().volumes;
        for id in volumes {
            let Some(record) = records.volume(id).await? else { continue };
            let of_volume = late.iter().chain(others).filter(|spec| spec.volume == *id);
            if let Some(newer) = of_volume.into_iter().find(|spec| spec.tag.generation > record.generation) {
                let (made, known) = (newer.tag.generation, record.generation);
                return Ok(Some(older(&format!(
                    "snapshot {} is of generation {made} of volume {id}, recorded is {known}",
                    newer.id
                ))));
            }
            if let Some(why) = self.is_newer(&record).await? {
                return Ok(Some(older(&why)));
            }
        }
        for spec in others {
            if !self.is_known(&spec.job).await? {
                return Ok(Some(older(&format!(
                    "snapshot {} is of job {}, which none knows",
                    spec.id, spec.job
                ))));
            }
        }
        Ok(None)
    }

    /// Whether the volume went on: by its mark, and by what it looks like.
    async fn is_newer(&self, record: &VolumeRecord) -> Result<Option<String>> {
        let (id, backend) = (&record.id, &self.volumes().services().backend);
        let Some(found) = self.volumes().answered(id, backend.get(id)).await? else { return Ok(None) };
        if let Some(tag) =
            found.tag.filter(|tag| tag.disk == record.disk && tag.generation > record.generation)
        {
            let (marked, known) = (tag.generation, record.generation);
            return Ok(Some(format!("volume {id} is marked with generation {marked}, recorded is {known}")));
        }
        let Some(stamp) = &record.stamp else { return Ok(None) };
        let now = self.volumes().answered(id, backend.content_stamp(id)).await?;
        let is_same = now.is_none_or(|now| now == *stamp);
        Ok((!is_same).then(|| format!("volume {id} was written to since it was recorded")))
    }

    /// Whether a job is recorded, or was until it was cleaned up.
    async fn is_known(&self, job: &JobId) -> Result<bool> {
        if self.volumes().services().jobs.get(job).await?.is_some() {
            return Ok(true);
        }
        let filter = CleanupFilter { job: Some(job.clone()), ..CleanupFilter::default() };
        Ok(self.records().cleanups(filter).try_next().await?.is_some())
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

fn older(why: &str) -> String {
    format!(
        "the records may be older than it, and it a part of a recovery point that they do not know: {why}"
    )
}
