//! What becomes of the volume of a disk, and why.

use super::look::{Look, Stays};
use crate::record::{
    CleanupAction as A, CleanupItemKind as K, CleanupVolume, DiskRecord, KeepVolumes, Presence, VolumeRecord,
    VolumeTag,
};
use crate::state::{JobStatus, OperationKind, OperationStatus, VolumeStatus};
use crate::traits::Snapshots;
use crate::{Result, SnapshotId, VolumeId};

use futures_util::TryStreamExt as _;

impl Look<'_> {
    /// The volume of a disk that the job had.
    pub(super) async fn volume(&mut self, disk: &DiskRecord) -> Result<()> {
        if self.is_under_way(disk).await? {
            return Ok(());
        }
        let volumes = &self.services().volumes;
        if let Some(record) = volumes.volume_of(&disk.disk).await? {
            let why = self.kept(disk, &record).await?;
            let answer =
                self.of.volumes().answered(&record.id, self.services().backend.get(&record.id)).await;
            match answer {
                Err(error) => {
                    self.unasked(
                        &format!("the backend could not be asked about volume {}", record.id),
                        error,
                    );
                }
                Ok(None) => self.missing(&record, why),
                Ok(Some(volume)) => {
                    let foreign = self.foreign(&record, volume.tag.as_ref());
                    self.present(&record, volume.tag, foreign.or(why)).await?;
                }
            }
        }
        Ok(())
    }

    /// What has not ended of the disk's operations.
    async fn is_under_way(&mut self, disk: &DiskRecord) -> Result<bool> {
        let left = self.services().volumes.unfinished(&disk.disk).await?;
        let Some(left) = left.filter(|left| left.status == OperationStatus::Executing) else {
            return Ok(false);
        };
        let (id, kind) = (&left.spec.id, left.spec.kind);
        self.item(K::Operation, id, format!("{kind} of {}", disk.disk), Some("it has not ended".to_owned()));
        self.first(format!(
            "operation {id} ({kind} of {}) has not ended: wait until it is finished, or abandon it, then plan again",
            disk.disk
        ));
        Ok(true)
    }

    /// Why a volume stays, as far as records tell.
    async fn kept(&self, disk: &DiskRecord, record: &VolumeRecord) -> Result<Option<Stays>> {
        if let Some(held) = self.held.as_ref().filter(|held| !held.for_now) {
            return Ok(Some(held.clone()));
        }
        if self.job.as_ref().is_none_or(|job| disk.job.as_ref() != Some(&job.id)) {
            return Ok(Some(Stays::for_good(match &disk.job {
                Some(later) => format!("job {later} has its disk now"),
                None => "its disk is of no job any more".to_owned(),
            })));
        }
        if self.held.is_some() {
            return Ok(self.held.clone());
        }
        if self.job.as_ref().is_some_and(|job| job.status == JobStatus::Completed) {
            return Ok(Some(Stays::for_good("its job is completed")));
        }
        if record.held_epoch && self.request.volumes == KeepVolumes::Keep {
            let why = "it holds or held an epoch: the next replication goes on from it";
            return Ok(Some(Stays::for_good(why)));
        }
        let machine = record.attached_to.as_ref().filter(|worker| *worker != self.of.volumes().worker());
        if let Some(machine) = machine {
            let why = format!("it is attached at the machine of worker {machine}: plan the cleanup there");
            return Ok(Some(Stays::for_now(why)));
        }
        if record.status == VolumeStatus::Condemned {
            return Ok(Some(Stays::for_good(self.condemned(record).await?)));
        }
        Ok(None)
    }

    async fn condemned(&self, record: &VolumeRecord) -> Result<String> {
        let left = self.services().volumes.unfinished(&record.disk).await?;
        let due_at = left.filter(|left| left.spec.kind == OperationKind::Delete).and_then(|left| left.due_at);
        Ok(match due_at {
            Some(due_at) => format!("it is condemned already, and deleted after {due_at}"),
            None => "it is condemned already".to_owned(),
        })
    }

    /// Why a volume is not provably ours (L02).
    fn foreign(&self, record: &VolumeRecord, tag: Option<&VolumeTag>) -> Option<Stays> {
        let Some(tag) = tag else { return Some(Stays::for_good("it bears no mark of ours")) };
        if tag.instance != self.plan.instance {
            Some(Stays::for_good(format!("it bears the mark of another deployment, {tag}")))
        } else if tag.disk != record.disk {
            Some(Stays::for_good(format!("it bears the mark of another disk, {tag}")))
        } else if tag.generation > record.generation {
            let why = format!("it bears {tag}, which is newer than the records: they are an old copy");
            Some(Stays::for_now(why))
        } else {
            None
        }
    }

    /// The backend is sure that it has none of this id. It is asked again in another way before it is believed (L21).
    fn missing(&mut self, record: &VolumeRecord, why: Option<Stays>) {
        let listed = self.listed.as_deref().unwrap_or_default();
        let doubt = if listed.is_empty() {
            Some("the backend has no volume of this deployment at all: this may be another place")
        } else if listed.iter().any(|volume| volume.id == record.id) {
            Some("the backend listed it, then found none")
        } else {
            None
        };
        let why = self.told(record, why.or(doubt.map(Stays::for_now)));
        let (detail, gone) = (detail(record), "missing in the backend");
        self.item(K::Volume, &record.id, format!("{detail}, {gone}"), why.clone());
        if let Some(path) = &record.device_path {
            self.item(K::Device, path, format!("recorded as volume {}", record.id), why.clone());
        }
        if why.is_none() {
            self.forgets.push(A::Forget { volume: CleanupVolume::of(record, Presence::Missing) });
        }
    }

    /// Why it stays; that it does for now is kept in mind.
    fn told(&mut self, record: &VolumeRecord, stays: Option<Stays>) -> Option<String> {
        let Stays { why, for_now } = stays?;
        if for_now {
            self.wait_for(&format_args!("volume {}", record.id), &why);
        }
        Some(why)
    }

    async fn present(
        &mut self,
        record: &VolumeRecord,
        tag: Option<VolumeTag>,
        why: Option<Stays>,
    ) -> Result<()> {
        let why = match why {
            None => self.frozen(&record.id).await?.map(Stays::for_now),
            why => why,
        };
        let why = self.told(record, why);
        self.item(K::Volume, &record.id, detail(record), why.clone());
        if let Some(path) = &record.device_path {
            self.item(K::Device, path, format!("volume {}", record.id), why.clone());
        }
        if why.is_some() {
            return Ok(());
        }
        let volume = CleanupVolume::of(record, Presence::Present { tag });
        if record.status == VolumeStatus::Attached {
            self.detaches.push(A::Detach { volume: volume.clone() });
        }
        self.deletes.push(match record.held_epoch {
            true => A::Condemn { volume },
            false => A::Delete { volume },
        });
        Ok(())
    }

    /// Why its snapshots keep it: those that no step drops.
    async fn frozen(&mut self, id: &VolumeId) -> Result<Option<String>> {
        let services = self.services();
        if services.backend.capabilities().snapshots == Snapshots::None {
            return Ok(None);
        }
        let listing = services.backend.snapshots(id).try_collect::<Vec<_>>();
        let found = match self.of.volumes().answered(id, listing).await {
            Ok(found) => found,
            Err(error) => {
                let why = format!("the snapshots of volume {id} could not be listed by the backend");
                self.unasked(&why, error);
                return Ok(Some(why));
            }
        };
        let mut left: Vec<SnapshotId> = found.into_iter().map(|snapshot| snapshot.spec.id).collect();
        left.retain(|id| !self.dropped.contains(id));
        left.sort();
        Ok(left
            .first()
            .map(|first| format!("it has snapshot {first}: delete its recovery point, or it, first")))
    }
}

fn detail(record: &VolumeRecord) -> String {
    let VolumeRecord { name, disk, capacity, generation, status, held_epoch, .. } = record;
    let held = if *held_epoch { "holds or held an epoch" } else { "never held an epoch" };
    format!("{name:?} of {disk}, {capacity}, generation {generation}, {status}, {held}")
}
