use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{
    ContentStamp, Lease, Needless, RecoveryPoint, RecoveryPointSpec, ReplicationJob, VolumeContent,
};
use oma_core::state::{JobKind, PointEvent, PointStatus};
use oma_core::traits::RecoveryPoints;
use oma_core::{ContextId, DiskKey, Epoch, JobId, RecoveryPointId, Timestamp, VolumeId};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::lease::{check_kind, guard};
use crate::page::{PAGE, pages};
use crate::record::{content_columns, disk, job as job_of, volume};
use crate::sql::{jobs, points, vms, volumes};
use crate::store::SqlStore;

/// Behind every id.
const LAST: &str = "\u{10ffff}";

impl SqlStore {
    async fn record_point(&self, lease: &Lease, spec: &RecoveryPointSpec) -> Result<RecoveryPoint> {
        let mut tx = self.begin().await?;
        let job = guard(&mut tx, lease).await?;
        check_kind(&job, JobKind::Replicate)?;
        if let Some(known) = find(&mut tx, &spec.id).await? {
            let same = known.is_of(spec) && known.job == job.id;
            return if same { Ok(known) } else { Err(StoreError::exists("recovery point", &spec.id)) };
        }
        if !is_of_all_disks(spec, &job) {
            let reason = "its volumes are not those of the job's disks, each once";
            return Err(StoreError::Invalid(reason.to_owned()));
        }
        if spec.volumes.iter().any(|volume| volume.snapshot.job != job.id) {
            return Err(StoreError::Invalid("a snapshot names another job than the lease".to_owned()));
        }
        let now = tx.now().await?;
        give_up_points(&mut tx, &job.id, now).await?;
        let (status, text) = (PointStatus::Creating, serde_json::to_string(&spec.volumes)?);
        let values = vals![spec.id, job.context, job.id, job.epoch, status, text, now, now];
        tx.execute(points::INSERT, values).await?;
        tx.commit().await?;
        Ok(RecoveryPoint {
            id: spec.id.clone(),
            context: job.context,
            job: job.id,
            epoch: job.epoch,
            status,
            volumes: spec.volumes.clone(),
            reason: None,
            created_at: now,
            updated_at: now,
        })
    }

    async fn take(&self, lease: &Lease, id: &RecoveryPointId) -> Result<()> {
        let mut tx = self.begin().await?;
        guard(&mut tx, lease).await?;
        let known = find(&mut tx, id).await?.filter(|point| point.job == lease.job);
        let known = known.ok_or_else(|| StoreError::missing("recovery point of this job", id))?;
        let (status, now) = (known.status.next(PointEvent::Take)?, tx.now().await?);
        tx.execute(points::SET_STATUS, vals![status, known.reason, now, id]).await?;
        tx.commit().await
    }

    async fn condemn(&self, id: &RecoveryPointId, needless: Needless, reason: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        let missing = || StoreError::missing("recovery point", id);
        let context = find(&mut tx, id).await?.ok_or_else(missing)?.context;
        // No job of the VM begins meanwhile, so no volume of it becomes inconsistent.
        tx.execute(vms::LOCK, vals![context]).await?;
        let known = find(&mut tx, id).await?.ok_or_else(missing)?;
        if known.status == PointStatus::Deleting {
            return Ok(());
        }
        check_needless(&mut tx, &known, needless).await?;
        let (status, now) = (known.status.next(PointEvent::Condemn)?, tx.now().await?);
        tx.execute(points::SET_STATUS, vals![status, reason, now, id]).await?;
        tx.commit().await
    }

    async fn remove(&self, id: &RecoveryPointId) -> Result<()> {
        let mut tx = self.begin().await?;
        let Some(known) = find(&mut tx, id).await? else { return Ok(()) };
        if known.status != PointStatus::Deleting {
            return Err(StoreError::Conflict(format!("it is {}; condemn it first", known.status)));
        }
        tx.execute(points::DELETE, vals![id]).await?;
        tx.commit().await
    }

    async fn record_revert(
        &self,
        lease: &Lease,
        id: &RecoveryPointId,
        stamps: &[(VolumeId, Option<ContentStamp>)],
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        let job = guard(&mut tx, lease).await?;
        check_kind(&job, JobKind::Revert)?;
        let known = find(&mut tx, id).await?.filter(|point| point.context == job.context);
        let known = known.ok_or_else(|| StoreError::missing("recovery point of this VM", id))?;
        if known.status != PointStatus::Ready {
            return Err(StoreError::Conflict(format!("it is {}, not ready", known.status)));
        }
        let keys: BTreeSet<&DiskKey> = known.volumes.iter().map(|volume| volume.key()).collect();
        if keys != job.disks.iter().collect() {
            return Err(StoreError::Conflict("its disks are not exactly those of the job".to_owned()));
        }
        let now = tx.now().await?;
        let (content, epoch) = content_columns(VolumeContent::Epoch(known.epoch));
        for part in &known.volumes {
            let (disk, id) = (&part.snapshot.tag.disk, &part.snapshot.volume);
            let linked = tx.find(volumes::OF_DISK, vals![disk.context, disk.key], volume).await?;
            if linked.is_none_or(|linked| linked.id != *id) {
                return Err(StoreError::Conflict(format!("disk {disk} does not have volume {id} any more")));
            }
            let stamp = stamps.iter().find(|(of, _)| of == id).and_then(|(_, stamp)| stamp.as_ref());
            let stamp = stamp.map(|stamp| &stamp.0);
            tx.execute(volumes::COMMIT, vals![content, epoch, stamp, now, id]).await?;
        }
        tx.commit().await
    }

    async fn point_page(
        &self,
        context: &ContextId,
        behind: Option<(Epoch, RecoveryPointId)>,
    ) -> Result<Vec<RecoveryPoint>> {
        let (epoch, id) = match behind {
            Some((epoch, id)) => (i64::try_from(epoch.0).unwrap_or(i64::MAX), id.into()),
            None => (i64::MAX, LAST.to_owned()),
        };
        self.db.all(points::PAGE, vals![context, epoch, epoch, id, PAGE], point).await
    }
}

/// The points that a job began and that are not ready hold something else than what it will commit.
pub(crate) async fn give_up_points(tx: &mut Tx, job: &JobId, now: Timestamp) -> Result<()> {
    let values = vals![PointStatus::Deleting, "the job went on writing, or began another one", now, job];
    tx.execute(points::GIVE_UP, values).await.map(|_| ())
}

/// The job's taken point is of a committed epoch now.
pub(crate) async fn commit_point(tx: &mut Tx, job: &ReplicationJob) -> Result<()> {
    let now = tx.now().await?;
    tx.execute(points::COMMIT, vals![PointStatus::Ready, now, job.id]).await.map(|_| ())
}

async fn find(tx: &mut Tx, id: &RecoveryPointId) -> Result<Option<RecoveryPoint>> {
    tx.find(points::BY_ID, vals![id], point).await
}

fn is_of_all_disks(spec: &RecoveryPointSpec, job: &ReplicationJob) -> bool {
    let keys: BTreeSet<&DiskKey> = spec.volumes.iter().map(|volume| volume.key()).collect();
    keys.len() == spec.volumes.len()
        && keys == job.disks.iter().collect()
        && spec.volumes.iter().all(|volume| volume.snapshot.tag.disk.context == job.context)
}

/// Nobody may need this point. The VM is locked, so no job of it begins meanwhile, and none commits.
async fn check_needless(tx: &mut Tx, known: &RecoveryPoint, needless: Needless) -> Result<()> {
    let is_ready = known.status == PointStatus::Ready;
    let values = vals![known.context, known.epoch, known.epoch, known.id];
    let count = |row: &Row| row.fields("recovery_points", "newer").count("newer");
    let newer = tx.find(points::NEWER_READY, values, count).await?.unwrap_or_default();
    match needless {
        Needless::Unfinished if is_ready => {
            return Err(StoreError::Conflict("it was finished meanwhile: it is ready".to_owned()));
        }
        Needless::Behind(_) if !is_ready => {
            return Err(StoreError::Conflict(format!("it is {}, not ready", known.status)));
        }
        Needless::Behind(wanted) if newer < u64::from(wanted.max(1)) => {
            return Err(StoreError::Conflict(format!("only {newer} newer ones are ready by now")));
        }
        Needless::Unfinished | Needless::Behind(_) | Needless::Unwanted => {}
    }
    let live = tx.find(jobs::LIVE, vals![known.context], job_of).await?;
    if !is_ready {
        let own = live.filter(|live| live.id == known.job);
        return own.map_or(Ok(()), |live| Err(StoreError::LiveJob(live.id)));
    }
    match live {
        Some(live) if newer == 0 || live.kind == JobKind::Revert => return Err(StoreError::LiveJob(live.id)),
        _ if newer > 0 => return Ok(()),
        _ => {}
    }
    for disk in tx.all(vms::DISKS, vals![known.context], disk).await? {
        let values = vals![disk.disk.context, disk.disk.key];
        let linked = tx.find(volumes::OF_DISK, values, volume).await?;
        if let Some(torn) = linked.filter(|linked| !matches!(linked.content, VolumeContent::Epoch(_))) {
            return Err(StoreError::Conflict(format!(
                "it may be the only consistent one while volume {} holds no epoch; replicate, or revert to it first",
                torn.id
            )));
        }
    }
    Ok(())
}

/// A row of `recovery_points`.
pub(crate) fn point(row: &Row) -> Result<RecoveryPoint> {
    let fields = row.fields("recovery_points", "id");
    Ok(RecoveryPoint {
        id: fields.parse("id")?,
        context: fields.parse("vm_context_id")?,
        job: fields.parse("job_id")?,
        epoch: Epoch(fields.count("epoch")?),
        status: fields.parse("status")?,
        volumes: fields.json("volumes")?,
        reason: fields.opt_text("reason")?.map(str::to_owned),
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

#[async_trait]
impl RecoveryPoints for SqlStore {
    async fn begin_point(&self, lease: &Lease, spec: &RecoveryPointSpec) -> oma_core::Result<RecoveryPoint> {
        let begun = self.settled(|| self.record_point(lease, spec)).await;
        begun.map_err(|error| error.at("record recovery point", &spec.id))
    }

    async fn take_point(&self, lease: &Lease, id: &RecoveryPointId) -> oma_core::Result<()> {
        let taken = self.settled(|| self.take(lease, id)).await;
        taken.map_err(|error| error.at("record the snapshots of recovery point", id))
    }

    async fn condemn_point(
        &self,
        id: &RecoveryPointId,
        needless: Needless,
        reason: &str,
    ) -> oma_core::Result<()> {
        let condemned = self.settled(|| self.condemn(id, needless, reason)).await;
        condemned.map_err(|error| error.at("condemn recovery point", id))
    }

    async fn remove_point(&self, id: &RecoveryPointId) -> oma_core::Result<()> {
        let removed = self.settled(|| self.remove(id)).await;
        removed.map_err(|error| error.at("remove recovery point", id))
    }

    async fn point(&self, id: &RecoveryPointId) -> oma_core::Result<Option<RecoveryPoint>> {
        let found = self.db.find(points::BY_ID, vals![id], point).await;
        found.map_err(|error| error.at("read recovery point", id))
    }

    fn points(&self, context: &ContextId) -> BoxStream<'_, oma_core::Result<RecoveryPoint>> {
        let context = context.clone();
        let page = move |behind| {
            let context = context.clone();
            async move {
                let page = self.point_page(&context, behind).await;
                page.map_err(|error| error.at("list the recovery points of VM", &context))
            }
        };
        pages(None, |last: &RecoveryPoint| (last.epoch, last.id.clone()), page)
    }

    async fn reverted_to(
        &self,
        lease: &Lease,
        id: &RecoveryPointId,
        stamps: &[(VolumeId, Option<ContentStamp>)],
    ) -> oma_core::Result<()> {
        let recorded = self.settled(|| self.record_revert(lease, id, stamps)).await;
        recorded.map_err(|error| error.at("record a revert to recovery point", id))
    }
}
