//! What a job that replicates or reverts does with the volumes of its disks, under its lease.

use std::sync::Arc;

use crate::record::{Lease, Operation, OperationSpec, VolumeContent, VolumeRecord, VolumeTag};
use crate::state::{OperationKind, OperationStatus, VolumeStatus};
use crate::traits::{Access, BlockDevice, Provisioning, SnapshotSpec, Volume, VolumeRegistry, VolumeSpec};
use crate::{ByteSize, DiskRef, Error, ErrorKind, Extent, Generation, OperationId, Result, Retry, VolumeId};

use crate::engine::services::Services;

/// A volume that a disk needs.
#[derive(Clone, Debug)]
pub(in crate::engine) struct VolumeNeed {
    /// The disk.
    pub(in crate::engine) disk: DiskRef,
    /// A name for readers.
    pub(in crate::engine) name: String,
    /// Its size at the source (L13).
    pub(in crate::engine) capacity: ByteSize,
    /// When its space is allocated.
    pub(in crate::engine) provisioning: Provisioning,
}

/// A volume that a disk has: of its own, large enough, attached.
#[derive(Clone, Debug)]
pub(in crate::engine) struct ReadyVolume {
    /// Its record.
    pub(in crate::engine) record: VolumeRecord,
    /// Its mark of ownership.
    pub(in crate::engine) tag: VolumeTag,
    /// Whether it is known to be as the last writer of ours left it, flushed.
    pub(in crate::engine) untouched: bool,
    /// What it was made larger by just now, while it held an epoch: no change id tells of that part.
    pub(in crate::engine) grown: Option<Extent>,
    /// Why its generation was advanced just now.
    pub(in crate::engine) note: Option<String>,
}

/// Provisions volumes under one lease.
#[derive(Debug)]
pub(in crate::engine) struct LeasedVolumes<'a> {
    services: &'a Services,
    lease: &'a Lease,
}

impl<'a> LeasedVolumes<'a> {
    pub(in crate::engine) const fn new(services: &'a Services, lease: &'a Lease) -> Self {
        Self { services, lease }
    }

    /// The volume of a disk: found by its recorded link (L03) or made, resized and attached as needed. Idempotent.
    pub(in crate::engine) async fn ensure(&self, need: &VolumeNeed) -> Result<ReadyVolume> {
        self.finish_left_over(need).await?;
        let mut note = None;
        let mut untouched = true;
        let mut record = match self.services.volumes.volume_of(&need.disk).await? {
            None => self.create(need).await?,
            Some(record) => match self.find(&record.id).await? {
                Some(volume) => {
                    let record = self.known(record, &volume, &mut note).await?;
                    // Of one that a killed run left, or somebody else wrote to, nothing is known.
                    untouched = record.stamp.is_some();
                    record
                }
                None => {
                    note =
                        Some(format!("volume {} was gone from the backend: a new one is filled", record.id));
                    self.services.volumes.forget(self.lease, &record.id).await?;
                    self.create(need).await?
                }
            },
        };
        let tag = self.tag(&need.disk, record.generation).await?;
        self.services.backend.retag(&record.id, &tag).await?;
        let mut grown = None;
        if record.capacity < need.capacity {
            (record, grown) = self.enlarge(record, &tag, need.capacity).await?;
            // What it looks like is no foreign write.
            record.stamp = self.services.backend.content_stamp(&record.id).await?.filter(|_| untouched);
        }
        let (stamp, content) = (record.stamp.take(), record.content);
        let record = VolumeRecord { stamp, content, ..self.attach(record, &tag).await? };
        Ok(ReadyVolume { record, tag, untouched, grown, note })
    }

    /// Ends the generation of a volume that is to be reverted, in the records and on the volume: nothing that was recorded of
    /// its content holds any more, and nobody who knows the old mark changes it.
    pub(in crate::engine) async fn end_content(&self, snapshot: &SnapshotSpec) -> Result<()> {
        let generation = self.services.volumes.advance_generation(self.lease, &snapshot.volume).await?;
        let tag = self.tag(&snapshot.tag.disk, generation).await?;
        self.services.backend.retag(&snapshot.volume, &tag).await
    }

    /// Reverts a volume whose generation was ended ([`LeasedVolumes::end_content`]), which ends that one too.
    pub(in crate::engine) async fn revert(&self, snapshot: &SnapshotSpec) -> Result<VolumeRecord> {
        let (disk, id) = (&snapshot.tag.disk, &snapshot.volume);
        let record = self.services.volumes.volume(id).await?;
        let record = record.ok_or_else(|| Error::new(ErrorKind::NotFound, "revert volume", id))?;
        let tag = self.tag(disk, record.generation).await?;
        self.fail_left_over(disk).await?;
        let spec = OperationSpec {
            snapshot: Some(snapshot.id.clone()),
            ..self.intent(OperationKind::Revert, disk, Some(id), None)
        };
        let record = self.call(&spec, || self.services.backend.revert(id, &tag, snapshot)).await?;
        self.services.backend.retag(id, &self.tag(disk, record.generation).await?).await?;
        Ok(record)
    }

    /// Opens a volume of a disk for reading, marked as its record says and attached if it was not.
    pub(in crate::engine) async fn open(
        &self,
        record: VolumeRecord,
        disk: &DiskRef,
    ) -> Result<Arc<dyn BlockDevice>> {
        let tag = self.tag(disk, record.generation).await?;
        self.services.backend.retag(&record.id, &tag).await?;
        let record = self.attach(record, &tag).await?;
        self.services.backend.open(&record.id, &tag, Access::ReadOnly).await
    }

    /// What an interrupted job left of a disk's operations is not done any more. A volume that is being made is left to
    /// the next replication, which finishes it.
    async fn fail_left_over(&self, disk: &DiskRef) -> Result<()> {
        match self.services.volumes.unfinished(disk).await? {
            None => Ok(()),
            Some(left) if left.spec.kind == OperationKind::Create => {
                let reason = format!("operation {} makes another volume; replicate first", left.spec.id);
                Err(Error::new(ErrorKind::Conflict, "revert the volume of", disk).because(reason))
            }
            Some(left) if left.status == OperationStatus::Pending => Err(condemned(&left.spec)),
            Some(left) if left.spec.kind == OperationKind::Delete => self.delete(&left.spec).await,
            Some(left) => {
                let reason = "interrupted, and reverted since";
                self.services.volumes.fail(self.lease, &left.spec.id, reason).await
            }
        }
    }

    /// The volume as the backend has it. Of a damaged one nothing holds that was recorded of its content, whoever mends it (L09).
    async fn find(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let found = self.services.backend.get(id).await;
        if found.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            self.services.volumes.advance_generation(self.lease, id).await?;
        }
        found
    }

    /// Checks a recorded volume against what the backend finds now; a foreign write ends the generation (L09), whether the
    /// volume holds an epoch or a part of one.
    async fn known(
        &self,
        mut record: VolumeRecord,
        volume: &Volume,
        note: &mut Option<String>,
    ) -> Result<VolumeRecord> {
        self.prove_ours(&record, volume).await?;
        if was_written(self.services, &record).await? {
            record.generation = self.services.volumes.advance_generation(self.lease, &record.id).await?;
            *note = Some(foreign(&record));
            (record.content, record.stamp) = (VolumeContent::Inconsistent, None);
        }
        Ok(record)
    }

    async fn prove_ours(&self, record: &VolumeRecord, volume: &Volume) -> Result<()> {
        let instance = self.services.volumes.instance().await?;
        let reason = match &volume.tag {
            Some(tag) if tag.instance == instance && tag.disk == record.disk => match newer(tag, record) {
                None => return Ok(()),
                Some(reason) => reason,
            },
            Some(tag) => {
                format!(
                    "it bears the mark of another owner, {tag}; nothing was changed; find out who took it before running again"
                )
            }
            None => {
                "it bears no mark of ours; nothing was changed; find out who took it before running again"
                    .to_owned()
            }
        };
        Err(Error::new(ErrorKind::PermissionDenied, "use volume", &volume.id).because(reason))
    }

    async fn tag(&self, disk: &DiskRef, generation: Generation) -> Result<VolumeTag> {
        Ok(VolumeTag { instance: self.services.volumes.instance().await?, disk: disk.clone(), generation })
    }

    async fn create(&self, need: &VolumeNeed) -> Result<VolumeRecord> {
        let spec = OperationSpec {
            name: Some(need.name.clone()),
            provisioning: Some(need.provisioning),
            ..self.intent(OperationKind::Create, &need.disk, None, Some(need.capacity))
        };
        self.carry_out(&spec, need).await
    }

    /// Makes a volume larger. One that held an epoch is in mid-epoch from now on: the part that is new to it was never copied,
    /// and whether the source counts it as changed is not relied on. Only this run knows which part that is; one after a crash
    /// compares all.
    async fn enlarge(
        &self,
        record: VolumeRecord,
        tag: &VolumeTag,
        capacity: ByteSize,
    ) -> Result<(VolumeRecord, Option<Extent>)> {
        let (content, old) = (record.content, record.capacity);
        let mut grown = None;
        if let VolumeContent::Epoch(_) = content {
            self.services.volumes.mark_inconsistent(self.lease, &record.id).await?;
            grown = Extent::between(old.bytes(), capacity.bytes());
        }
        let larger = self.grow(record, tag, capacity).await?;
        Ok((VolumeRecord { content, ..larger }, grown))
    }

    async fn grow(&self, record: VolumeRecord, tag: &VolumeTag, capacity: ByteSize) -> Result<VolumeRecord> {
        let spec = self.intent(OperationKind::Resize, &tag.disk, Some(&record.id), Some(capacity));
        self.call(&spec, || self.services.backend.resize(&record.id, tag, capacity)).await
    }

    async fn attach(&self, record: VolumeRecord, tag: &VolumeTag) -> Result<VolumeRecord> {
        let now = self.services.backend.get(&record.id).await?.and_then(|volume| volume.device_path);
        let ours = record.attached_to.as_ref() == Some(&self.lease.worker);
        if record.status == VolumeStatus::Attached && ours && now.is_some() && record.device_path == now {
            return Ok(record);
        }
        let spec = self.intent(OperationKind::Attach, &tag.disk, Some(&record.id), None);
        self.call(&spec, || self.services.backend.attach(&record.id, tag)).await
    }

    /// An operation that a crash left behind is finished: each backend call is idempotent by its id or by its effect.
    async fn finish_left_over(&self, need: &VolumeNeed) -> Result<()> {
        let Some(Operation { spec, status, .. }) = self.services.volumes.unfinished(&need.disk).await? else {
            return Ok(());
        };
        tracing::info!(operation = %spec.id, kind = %spec.kind, "finish what was left over");
        match (spec.kind, status) {
            (OperationKind::Delete, OperationStatus::Pending) => return Err(condemned(&spec)),
            // Beyond recall: it may be done yet by who began it, to whichever volume the disk goes on with.
            (OperationKind::Delete, _) => return self.delete(&spec).await,
            _ => {}
        }
        if spec.kind == OperationKind::Create {
            let need = VolumeNeed { capacity: spec.capacity.unwrap_or(need.capacity), ..need.clone() };
            self.carry_out(&spec, &need).await?;
            return Ok(());
        }
        if let (OperationKind::Revert, Some(volume)) = (spec.kind, &spec.volume) {
            // It may have been done, or be done yet by who began it: neither the content nor his mark is worth anything.
            match self.services.volumes.advance_generation(self.lease, volume).await {
                // The disk has another volume by now.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                advanced => drop(advanced?),
            }
        }
        // Resize and attach are asked for again below, if they are still needed.
        self.services.volumes.fail(self.lease, &spec.id, "interrupted; asked for again").await
    }

    /// Finishes the deletion of a volume that an operator wanted gone.
    async fn delete(&self, spec: &OperationSpec) -> Result<()> {
        let Some(id) = &spec.volume else { return Ok(()) };
        let Some(record) = self.services.volumes.volume(id).await? else {
            return self
                .services
                .volumes
                .fail(self.lease, &spec.id, "its volume is in no record any more")
                .await;
        };
        let tag = self.tag(&spec.disk, record.generation).await?;
        let gone = Volume {
            id: id.clone(),
            name: record.name,
            capacity: record.capacity,
            tag: None,
            device_path: None,
        };
        let act = || async { self.services.backend.delete(id, &tag).await.map(|()| gone) };
        self.call(spec, act).await.map(drop)
    }

    async fn carry_out(&self, spec: &OperationSpec, need: &VolumeNeed) -> Result<VolumeRecord> {
        let volume = VolumeSpec {
            operation: spec.id.clone(),
            tag: self.tag(&need.disk, Generation::FIRST).await?,
            name: need.name.clone(),
            capacity: need.capacity,
            provisioning: need.provisioning,
        };
        self.call(spec, || self.services.backend.create(&volume)).await
    }

    fn intent(
        &self,
        kind: OperationKind,
        disk: &DiskRef,
        volume: Option<&VolumeId>,
        capacity: Option<ByteSize>,
    ) -> OperationSpec {
        let id = OperationId::mint();
        let spec = OperationSpec::new(id, kind, disk.clone(), self.lease.job.clone());
        OperationSpec { volume: volume.cloned(), capacity, ..spec }
    }

    /// Intent, act, result. An answer that could not be had leaves the intent: the next run asks again (L19).
    async fn call<Fut>(&self, spec: &OperationSpec, act: impl FnOnce() -> Fut) -> Result<VolumeRecord>
    where
        Fut: Future<Output = Result<Volume>>,
    {
        let volumes = &self.services.volumes;
        if volumes.operation(&spec.id).await?.is_none() {
            volumes.begin(self.lease, spec).await?;
        }
        match act().await {
            Ok(volume) => {
                let zeroed = spec.kind == OperationKind::Create
                    && self.services.backend.capabilities().zeroed_on_create;
                volumes.complete(self.lease, &spec.id, &volume, zeroed).await
            }
            Err(error) => {
                if error.retry() == Retry::Never {
                    leave_old_intent(&**volumes, self.lease, spec, &error).await?;
                    volumes.fail(self.lease, &spec.id, &error.chain()).await?;
                }
                Err(error)
            }
        }
    }
}

/// Why a volume that bears this mark is none to change by this record: a generation that was only counted up in an old copy of the
/// records must never pass for the one that the volume has come to since.
pub(in crate::engine) fn newer(tag: &VolumeTag, record: &VolumeRecord) -> Option<String> {
    (tag.generation > record.generation).then(|| {
        let known = record.generation;
        format!(
            "it bears {tag}, and the records know generation {known}: they are an old copy; nothing was changed; restore the newest database there is, and compare (`oma reconcile`)"
        )
    })
}

fn condemned(spec: &OperationSpec) -> Error {
    let volume = spec.volume.as_ref().map(|volume| format!(" {volume}")).unwrap_or_default();
    let reason = format!(
        "its volume{volume} is condemned by operation {}; pardon it (`oma volumes pardon`), or wait until it is deleted",
        spec.id
    );
    Error::new(ErrorKind::Conflict, "use the volume of", &spec.disk).because(reason)
}

/// A deletion that is not done leaves the volume to be used on: the records that still have it under way prove nothing of it from now
/// on (L02). Of a volume that never held an epoch none need to: its first one does the same. A mark that was refused is none of
/// ours to leave.
pub(in crate::engine) async fn leave_old_intent(
    volumes: &dyn VolumeRegistry,
    lease: &Lease,
    spec: &OperationSpec,
    refused: &Error,
) -> Result<()> {
    let Some(id) = spec.volume.as_ref().filter(|_| spec.kind == OperationKind::Delete) else { return Ok(()) };
    let held = volumes.volume(id).await?.is_some_and(|volume| volume.held_epoch);
    if !held || refused.kind() == ErrorKind::PermissionDenied {
        return Ok(());
    }
    match volumes.renew_generation(lease, id).await {
        // The disk has another volume by now, or none.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        renewed => renewed.map(drop),
    }
}

/// Whether a volume does not look any more as its last writer left it. Of one that a writer could not leave in good order,
/// as when it was killed, nobody can tell.
pub(in crate::engine) async fn was_written(services: &Services, record: &VolumeRecord) -> Result<bool> {
    match &record.stamp {
        Some(stamp) => Ok(services.backend.content_stamp(&record.id).await?.as_ref() != Some(stamp)),
        None => Ok(false),
    }
}

/// Tells an operator of a foreign write.
pub(in crate::engine) fn foreign(record: &VolumeRecord) -> String {
    let since = match record.content {
        VolumeContent::Epoch(_) => "since its last epoch",
        VolumeContent::Blank | VolumeContent::Inconsistent => "since the last run",
    };
    format!("volume {} was written by somebody else {since}", record.id)
}
