use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{MemoryStore, State, listed};
use crate::record::{ContentStamp, Lease, Needless, RecoveryPoint, RecoveryPointSpec, VolumeContent};
use crate::state::{JobKind, PointEvent, PointStatus};
use crate::traits::RecoveryPoints;
use crate::{ContextId, JobId, RecoveryPointId, Result, Timestamp, VolumeId};

#[async_trait]
impl RecoveryPoints for MemoryStore {
    async fn begin_point(&self, lease: &Lease, spec: &RecoveryPointSpec) -> Result<RecoveryPoint> {
        self.change("record recovery point", &spec.id, |state, now| state.begin_point(lease, spec, now))
    }

    async fn take_point(&self, lease: &Lease, id: &RecoveryPointId) -> Result<()> {
        self.change("record the snapshots of recovery point", id, |state, now| {
            state.guard(lease)?;
            let point = state.points.get_mut(id).filter(|point| point.job == lease.job);
            let point = point.ok_or_else(|| Refusal::unknown("recovery point of this job", id))?;
            point.status = point.status.next(PointEvent::Take)?;
            point.updated_at = now;
            Ok(())
        })
    }

    async fn condemn_point(&self, id: &RecoveryPointId, needless: Needless, reason: &str) -> Result<()> {
        self.change("condemn recovery point", id, |state, now| {
            let point = state.points.get(id).ok_or_else(|| Refusal::unknown("recovery point", id))?;
            if point.status == PointStatus::Deleting {
                return Ok(());
            }
            state.check_needless(point, needless)?;
            state.condemn(id, reason, now)
        })
    }

    async fn remove_point(&self, id: &RecoveryPointId) -> Result<()> {
        self.change("remove recovery point", id, |state, _| {
            if let Some(point) = state.points.get(id) {
                Refusal::unless_same(&point.status, &PointStatus::Deleting)?;
                state.points.remove(id);
            }
            Ok(())
        })
    }

    async fn point(&self, id: &RecoveryPointId) -> Result<Option<RecoveryPoint>> {
        Ok(self.state().points.get(id).cloned())
    }

    fn points(&self, context: &ContextId) -> BoxStream<'_, Result<RecoveryPoint>> {
        listed(self.state().points_of(context).into_iter().cloned().collect())
    }

    async fn reverted_to(
        &self,
        lease: &Lease,
        id: &RecoveryPointId,
        stamps: &[(VolumeId, Option<ContentStamp>)],
    ) -> Result<()> {
        self.change("record a revert to recovery point", id, |state, now| {
            state.reverted_to(lease, id, stamps, now)
        })
    }
}

impl State {
    /// Newest first: by epoch, for ids are minted by clocks, which differ.
    fn points_of(&self, context: &ContextId) -> Vec<&RecoveryPoint> {
        let mut points: Vec<_> = self.points.values().filter(|point| point.context == *context).collect();
        points.sort_by_key(|point| std::cmp::Reverse((point.epoch, &point.id)));
        points
    }

    fn begin_point(
        &mut self,
        lease: &Lease,
        spec: &RecoveryPointSpec,
        now: Timestamp,
    ) -> Result<RecoveryPoint, Refusal> {
        let job = self.guard(lease)?.record.clone();
        Refusal::unless_same(&job.kind, &JobKind::Replicate)?;
        if let Some(known) = self.points.get(&spec.id) {
            let same = known.is_of(spec) && known.job == job.id;
            return same.then(|| known.clone()).ok_or(Refusal::OtherSpec);
        }
        let disks: BTreeSet<_> = spec.volumes.iter().map(|volume| volume.snapshot.tag.disk.clone()).collect();
        if disks.len() != spec.volumes.len() || disks != job.disk_refs().collect() {
            return Err(Refusal::Input("its volumes are not those of the job's disks, each once"));
        }
        if spec.volumes.iter().any(|volume| volume.snapshot.job != job.id) {
            return Err(Refusal::Input("a snapshot names another job than the lease"));
        }
        self.give_up_points(&job.id, now);
        let point = RecoveryPoint {
            id: spec.id.clone(),
            context: job.context,
            job: job.id,
            epoch: job.epoch,
            status: PointStatus::Creating,
            volumes: spec.volumes.clone(),
            reason: None,
            created_at: now,
            updated_at: now,
        };
        self.points.insert(point.id.clone(), point.clone());
        Ok(point)
    }

    /// The points that a job began and that are not ready hold something else than what it will commit.
    pub(super) fn give_up_points(&mut self, job: &JobId, now: Timestamp) {
        let unready = |point: &&mut RecoveryPoint| {
            point.job == *job && matches!(point.status, PointStatus::Creating | PointStatus::Taken)
        };
        for point in self.points.values_mut().filter(unready) {
            point.status = PointStatus::Deleting;
            point.reason = Some("the job went on writing, or began another one".to_owned());
            point.updated_at = now;
        }
    }

    fn condemn(&mut self, id: &RecoveryPointId, reason: &str, now: Timestamp) -> Result<(), Refusal> {
        let point = self.points.get_mut(id).ok_or_else(|| Refusal::unknown("recovery point", id))?;
        point.status = point.status.next(PointEvent::Condemn)?;
        point.reason = Some(reason.to_owned());
        point.updated_at = now;
        Ok(())
    }

    /// Nobody may need this point.
    fn check_needless(&self, point: &RecoveryPoint, needless: Needless) -> Result<(), Refusal> {
        let is_ready = point.status == PointStatus::Ready;
        let points = self.points_of(&point.context).into_iter();
        let newer = points.take_while(|other| other.id != point.id);
        let newer = newer.filter(|other| other.status == PointStatus::Ready).count();
        match needless {
            Needless::Unfinished if is_ready => {
                return Err(Refusal::differs(point.status, "an unfinished one"));
            }
            Needless::Behind(_) if !is_ready => return Err(Refusal::differs(point.status, "a ready one")),
            Needless::Behind(wanted) if u32::try_from(newer).is_ok_and(|newer| newer < wanted.max(1)) => {
                return Err(Refusal::differs(format!("{newer} newer ones are ready"), wanted.max(1)));
            }
            Needless::Unfinished | Needless::Behind(_) | Needless::Unwanted => {}
        }
        let live = self.contexts.get(&point.context).and_then(|context| context.current_job.clone());
        if !is_ready {
            let own = live.filter(|live| *live == point.job);
            return own.map_or(Ok(()), |live| Err(Refusal::LiveJob(live)));
        }
        let reverts = |job: &JobId| self.jobs.get(job).is_some_and(|job| job.record.kind == JobKind::Revert);
        match live {
            Some(live) if newer == 0 || reverts(&live) => return Err(Refusal::LiveJob(live)),
            _ if newer > 0 => return Ok(()),
            _ => {}
        }
        let disks = self.disks.values().filter(|disk| disk.record.disk.context == point.context);
        let volumes = disks.filter_map(|disk| self.volumes.get(disk.record.volume.as_ref()?));
        let torn = volumes.into_iter().find(|volume| !matches!(volume.content, VolumeContent::Epoch(_)));
        torn.map_or(Ok(()), |volume| Err(Refusal::LastConsistent(volume.id.clone())))
    }

    /// The job's taken point is of a committed epoch now.
    pub(super) fn commit_point(&mut self, job: &JobId, now: Timestamp) {
        let taken = |point: &&mut RecoveryPoint| point.job == *job && point.status == PointStatus::Taken;
        for point in self.points.values_mut().filter(taken) {
            point.status = PointStatus::Ready;
            point.updated_at = now;
        }
    }

    fn reverted_to(
        &mut self,
        lease: &Lease,
        id: &RecoveryPointId,
        stamps: &[(VolumeId, Option<ContentStamp>)],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let job = &self.guard(lease)?.record;
        Refusal::unless_same(&job.kind, &JobKind::Revert)?;
        let point = self.points.get(id).filter(|point| point.context == job.context);
        let point = point.ok_or_else(|| Refusal::unknown("recovery point of this VM", id))?.clone();
        Refusal::unless_same(&point.status, &PointStatus::Ready)?;
        let disks: BTreeSet<_> =
            point.volumes.iter().map(|volume| volume.snapshot.tag.disk.clone()).collect();
        if disks != job.disk_refs().collect() {
            return Err(Refusal::differs("the disks of the job", "those of the point"));
        }
        for volume in &point.volumes {
            let linked = self.volume_of(&volume.snapshot.tag.disk).map(|linked| &linked.id);
            if linked != Some(&volume.snapshot.volume) {
                return Err(Refusal::differs("another volume or none", &volume.snapshot.volume));
            }
        }
        for part in &point.volumes {
            let Some(volume) = self.volumes.get_mut(&part.snapshot.volume) else { continue };
            volume.content = VolumeContent::Epoch(point.epoch);
            volume.held_epoch = true;
            let stamp = stamps.iter().find(|(id, _)| *id == volume.id);
            volume.stamp = stamp.and_then(|(_, stamp)| stamp.clone());
            volume.updated_at = now;
        }
        Ok(())
    }
}
