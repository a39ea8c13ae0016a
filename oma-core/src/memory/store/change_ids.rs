use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{Job, MemoryStore, State, listed};
use crate::record::{
    CbtRecord, CommittedChange, DiskAttempt, DiskCommit, EpochCommit, Lease, ReplicationJob, VolumeContent,
};
use crate::state::{ContextEvent, DiskStatus, JobEvent, JobKind};
use crate::traits::ChangeIdRepo;
use crate::{ByteSize, DiskKey, DiskRef, Endpoint, Generation, JobId, Result, Timestamp};

#[async_trait]
impl ChangeIdRepo for MemoryStore {
    async fn current(
        &self,
        disk: &DiskRef,
        generation: Generation,
        endpoint: &Endpoint,
    ) -> Result<Option<CommittedChange>> {
        let state = self.state();
        let committed = state.disks.get(disk).and_then(|disk| disk.committed.as_ref());
        Ok(committed.filter(|c| c.generation == generation && c.endpoint == *endpoint).cloned())
    }

    async fn begin(&self, lease: &Lease, attempt: &DiskAttempt) -> Result<()> {
        self.change("begin disk", &attempt.key, |state, now| {
            let disk = state.guard_disk(lease, &attempt.key)?;
            state.history.retain(|record| record.job != lease.job || record.disk != disk);
            state.history.push(CbtRecord {
                job: lease.job.clone(),
                disk,
                change_id: attempt.change_id.clone(),
                previous: attempt.previous.clone(),
                sync_type: attempt.sync_type,
                extents: 0,
                bytes_transferred: ByteSize::ZERO,
                success: false,
                created_at: now,
            });
            Ok(())
        })
    }

    async fn commit_epoch(&self, lease: &Lease, commit: &EpochCommit) -> Result<()> {
        self.change("commit epoch", &lease.job, |state, now| state.commit_epoch(lease, commit, now))
    }

    fn history(&self, disk: &DiskRef) -> BoxStream<'_, Result<CbtRecord>> {
        let state = self.state();
        listed(state.history.iter().rev().filter(|record| record.disk == *disk).cloned().collect())
    }
}

impl State {
    fn commit_epoch(&mut self, lease: &Lease, commit: &EpochCommit, now: Timestamp) -> Result<(), Refusal> {
        let is_done = |job: &Job| {
            job.record.fence == lease.fence && job.committed.as_ref().is_some_and(|c| c == commit)
        };
        if self.jobs.get(&lease.job).is_some_and(is_done) {
            return Ok(());
        }
        let job = self.guard(lease)?.record.clone();
        Refusal::unless_same(&job.kind, &JobKind::Replicate)?;
        let next = job.status.next(JobEvent::Committed)?;
        self.check_commit(&job, commit)?;
        self.close_vm(lease, Some(ContextEvent::Committed), now)?;
        let context = self.contexts.get_mut(&job.context).expect("the commit names it");
        context.epoch = commit.epoch;
        let endpoint = context.identity.endpoint.clone();
        for part in &commit.disks {
            self.commit_disk(&job, part, &endpoint, now);
        }
        self.commit_point(&lease.job, now);
        let row = self.guard_mut(lease)?;
        row.committed = Some(commit.clone());
        row.record.error = None;
        row.record.close(next, now);
        Ok(())
    }

    /// Everything that can speak against a commit; nothing is changed yet.
    fn check_commit(&self, job: &ReplicationJob, commit: &EpochCommit) -> Result<(), Refusal> {
        Refusal::unless_same(&job.context, &commit.context)?;
        Refusal::unless_same(&job.epoch, &commit.epoch)?;
        let mut missing: BTreeSet<&DiskKey> = job.disks.iter().collect();
        for part in &commit.disks {
            if !missing.remove(&part.key) {
                return Err(Refusal::differs(
                    "each disk of the job once",
                    format!("disk {} beside them", part.key),
                ));
            }
            let disk = DiskRef { context: job.context.clone(), key: part.key.clone() };
            self.check_disk(&job.id, &disk, part)?;
        }
        match missing.first() {
            Some(key) => Err(Refusal::differs("each disk of the job once", format!("all but disk {key}"))),
            None => Ok(()),
        }
    }

    fn check_disk(&self, job: &JobId, disk: &DiskRef, part: &DiskCommit) -> Result<(), Refusal> {
        let Some(volume) = self.volume_of(disk).filter(|volume| volume.id == part.volume) else {
            return Err(Refusal::differs("another volume or none", &part.volume));
        };
        Refusal::unless_same(&volume.generation, &part.generation)?;
        let attempt = self.history.iter().find(|record| record.job == *job && record.disk == *disk);
        match attempt {
            Some(attempt) => Refusal::unless_same(&attempt.change_id, &part.change_id),
            None => Err(Refusal::differs("no attempt", &part.change_id)),
        }
    }

    fn commit_disk(&mut self, job: &ReplicationJob, part: &DiskCommit, endpoint: &Endpoint, now: Timestamp) {
        let disk = DiskRef { context: job.context.clone(), key: part.key.clone() };
        let row = self.disk_mut(&disk);
        row.record.change_id = Some(part.change_id.clone());
        row.record.epoch = job.epoch;
        row.record.status = DiskStatus::Completed;
        row.record.updated_at = now;
        row.committed = Some(CommittedChange {
            disk: disk.clone(),
            change_id: part.change_id.clone(),
            generation: part.generation,
            endpoint: endpoint.clone(),
            epoch: job.epoch,
            capacity: Some(part.capacity),
        });
        if let Some(volume) = self.volumes.get_mut(&part.volume) {
            volume.content = VolumeContent::Epoch(job.epoch);
            volume.held_epoch = true;
            volume.stamp.clone_from(&part.stamp);
            volume.updated_at = now;
        }
        for attempt in self.history.iter_mut().filter(|record| record.job == job.id && record.disk == disk) {
            attempt.success = true;
            attempt.extents = part.extents;
            attempt.bytes_transferred = part.bytes_transferred;
        }
        self.journals.remove(&disk);
    }
}
