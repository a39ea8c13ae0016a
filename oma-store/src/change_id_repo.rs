use std::fmt::Write;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use oma_core::record::{
    CbtRecord, CommittedChange, DiskAttempt, DiskCommit, EpochCommit, Lease, ReplicationJob, VolumeContent,
};
use oma_core::state::{ContextEvent, DiskEvent, JobEvent, JobKind};
use oma_core::traits::ChangeIdRepo;
use oma_core::{DiskRef, Endpoint, Fence, Generation, Timestamp};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::job_store::find_context;
use crate::lease::{OwnDisk, check_kind, find_disk, guard, guard_disk};
use crate::migrate::fingerprint;
use crate::page::{PAGE, pages};
use crate::record::{committed, content_columns, history, volume};
use crate::recovery_points::commit_point;
use crate::sql::{changes, jobs, journals, vms, volumes};
use crate::store::SqlStore;

impl SqlStore {
    async fn begin_disk(&self, lease: &Lease, attempt: &DiskAttempt) -> Result<()> {
        let mut tx = self.begin().await?;
        let disk = guard_disk(&mut tx, lease, &attempt.key).await?.record.disk;
        let now = tx.now().await?;
        let DiskAttempt { key, change_id, previous, sync_type } = attempt;
        let values = vals![change_id, previous, sync_type, now, lease.job, key];
        if tx.execute(changes::REPLACE, values).await? == 0 {
            let values = vals![lease.job, disk.context, disk.key, change_id, previous, sync_type, now];
            tx.execute(changes::INSERT, values).await?;
        }
        tx.commit().await
    }

    async fn commit(&self, lease: &Lease, commit: &EpochCommit) -> Result<()> {
        let digest = digest(commit);
        let mut tx = self.begin().await?;
        let job = match guard(&mut tx, lease).await {
            // A commit gives its lease back.
            Err(StoreError::Fenced) if is_done(&mut tx, lease, &digest).await? => return Ok(()),
            guarded => guarded?,
        };
        check_kind(&job, JobKind::Replicate)?;
        let next = job.status.next(JobEvent::Committed)?;
        let vm = find_context(&mut tx, &job.context).await?;
        let disks = check(&mut tx, &job, commit).await?;
        let now = tx.now().await?;
        for (disk, part) in disks {
            commit_disk(&mut tx, &job, &disk, part, &vm.identity.endpoint, now).await?;
        }
        commit_point(&mut tx, &job).await?;
        let status = vm.status.next(ContextEvent::Committed)?;
        tx.execute(vms::JOB_COMMITS, vals![status, commit.epoch, job.id, now, now, vm.id]).await?;
        let values = vals![next, digest, now, now, lease.job, lease.fence, lease.worker];
        tx.execute(jobs::COMMIT, values).await?;
        tx.commit().await
    }

    async fn history_page(&self, disk: &DiskRef, behind: Option<i64>) -> Result<Vec<(i64, CbtRecord)>> {
        let values = vals![disk.context, disk.key, behind.unwrap_or(i64::MAX), PAGE];
        let numbered = |row: &Row| Ok((row.fields("cbt_history", "id").int("id")?, history(row)?));
        self.db.all(changes::PAGE, values, numbered).await
    }
}

/// Names a commit, so that the same one is known again.
fn digest(commit: &EpochCommit) -> String {
    let mut text = format!("{}\n{}\n", commit.context, commit.epoch);
    for part in &commit.disks {
        let DiskCommit {
            key,
            volume,
            generation,
            change_id,
            capacity,
            stamp,
            extents,
            bytes_transferred,
            duration,
        } = part;
        let (bytes, nanos, change) = (bytes_transferred.bytes(), duration.as_nanos(), change_id.as_str());
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{key} {volume} {generation} {change:?} {size} {extents} {bytes} {nanos} {stamp:?}",
            size = capacity.bytes()
        );
    }
    fingerprint(&text)
}

/// Whether this very lease committed this very epoch before.
async fn is_done(tx: &mut Tx, lease: &Lease, digest: &str) -> Result<bool> {
    let ended = |row: &Row| {
        let fields = row.fields("replication_jobs", "id");
        Ok((Fence(fields.count("fence")?), fields.opt_text("commit_digest")?.map(str::to_owned)))
    };
    let found = tx.find(jobs::BY_ID, vals![lease.job], ended).await?;
    Ok(found.is_some_and(|(fence, known)| fence == lease.fence && known.as_deref() == Some(digest)))
}

/// Everything that can speak against a commit; nothing is changed yet.
async fn check<'c>(
    tx: &mut Tx,
    job: &ReplicationJob,
    commit: &'c EpochCommit,
) -> Result<Vec<(OwnDisk, &'c DiskCommit)>> {
    let refused = |reason: String| Err(StoreError::Conflict(reason));
    if (&commit.context, commit.epoch) != (&job.context, job.epoch) {
        let (given, epoch) = (&commit.context, commit.epoch);
        return refused(format!(
            "it is of VM {given} at epoch {epoch}; the job makes epoch {} of VM {}",
            job.epoch, job.context
        ));
    }
    let mut keys: Vec<_> = commit.disks.iter().map(|part| &part.key).collect();
    keys.sort();
    if !keys.iter().copied().eq(&job.disks) {
        return refused("its disks are not exactly those of the job".to_owned());
    }
    let attempts = tx.all(changes::OF_JOB, vals![job.id], history).await?;
    let mut disks = Vec::with_capacity(commit.disks.len());
    for part in &commit.disks {
        let id = DiskRef { context: job.context.clone(), key: part.key.clone() };
        let attempt = attempts.iter().find(|attempt| attempt.disk == id);
        if attempt.is_none_or(|attempt| attempt.change_id != part.change_id) {
            return refused(format!(
                "no attempt of the job on disk {id} aims at change id {}",
                part.change_id
            ));
        }
        let linked = tx.find(volumes::OF_DISK, vals![id.context, id.key], volume).await?;
        if linked.is_none_or(|v| (v.id, v.generation) != (part.volume.clone(), part.generation)) {
            let (volume, generation) = (&part.volume, part.generation);
            return refused(format!("disk {id} does not have volume {volume} at generation {generation}"));
        }
        disks.push((find_disk(tx, &id).await?, part));
    }
    Ok(disks)
}

async fn commit_disk(
    tx: &mut Tx,
    job: &ReplicationJob,
    disk: &OwnDisk,
    part: &DiskCommit,
    endpoint: &Endpoint,
    now: Timestamp,
) -> Result<()> {
    let status = disk.record.status.next(DiskEvent::Committed)?;
    let (change, generation, capacity) = (&part.change_id, part.generation, part.capacity);
    let values = vals![status, change, generation, endpoint, job.epoch, capacity, now, disk.row];
    tx.execute(vms::COMMIT_DISK, values).await?;
    let (content, epoch) = content_columns(VolumeContent::Epoch(job.epoch));
    let stamp = part.stamp.as_ref().map(|stamp| &stamp.0);
    tx.execute(volumes::COMMIT, vals![content, epoch, stamp, now, part.volume]).await?;
    let seconds = part.duration.as_secs();
    let values = vals![part.extents, part.bytes_transferred, seconds, job.id, part.key];
    tx.execute(changes::COMMIT, values).await?;
    tx.execute(journals::DELETE, vals![disk.row]).await.map(|_| ())
}

#[async_trait]
impl ChangeIdRepo for SqlStore {
    async fn current(
        &self,
        disk: &DiskRef,
        generation: Generation,
        endpoint: &Endpoint,
    ) -> oma_core::Result<Option<CommittedChange>> {
        let found = self.db.find(vms::DISK, vals![disk.context, disk.key], committed).await;
        let change = found.map_err(|error| error.at("read the change id of disk", disk))?.flatten();
        Ok(change.filter(|change| change.generation == generation && change.endpoint == *endpoint))
    }

    async fn begin(&self, lease: &Lease, attempt: &DiskAttempt) -> oma_core::Result<()> {
        let begun = self.settled(|| self.begin_disk(lease, attempt)).await;
        begun.map_err(|error| error.at("begin disk", &attempt.key))
    }

    async fn commit_epoch(&self, lease: &Lease, commit: &EpochCommit) -> oma_core::Result<()> {
        let committed = self.settled(|| self.commit(lease, commit)).await;
        committed.map_err(|error| error.at("commit the epoch of job", &lease.job))
    }

    fn history(&self, disk: &DiskRef) -> BoxStream<'_, oma_core::Result<CbtRecord>> {
        let disk = disk.clone();
        let page = move |behind| {
            let disk = disk.clone();
            async move {
                let page = self.history_page(&disk, behind).await;
                page.map_err(|error| error.at("list the history of disk", &disk))
            }
        };
        pages(None, |(id, _)| *id, page).map(|item| item.map(|(_, record)| record)).boxed()
    }
}
