use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{MemoryStore, State, listed};
use crate::record::{ExportRecord, Lease};
use crate::state::{ExportEvent, ExportStatus, VolumeStatus};
use crate::traits::ExportRegistry;
use crate::{DiskKey, ExportName, Result, Timestamp, VolumeId};

#[async_trait]
impl ExportRegistry for MemoryStore {
    async fn begin(
        &self,
        lease: &Lease,
        name: &ExportName,
        key: &DiskKey,
        volume: &VolumeId,
    ) -> Result<ExportRecord> {
        self.change("record export", name, |state, now| state.begin_export(lease, name, key, volume, now))
    }

    async fn advance(&self, lease: &Lease, name: &ExportName, event: ExportEvent) -> Result<ExportRecord> {
        self.change("advance export", name, |state, now| {
            state.guard(lease)?;
            let export = state.exports.get_mut(name).filter(|export| export.job == lease.job);
            let export = export.ok_or_else(|| Refusal::unknown("export of this job", name))?;
            export.status = export.status.next(event)?;
            export.updated_at = now;
            Ok(export.clone())
        })
    }

    async fn export(&self, name: &ExportName) -> Result<Option<ExportRecord>> {
        Ok(self.state().exports.get(name).cloned())
    }

    fn exports(&self) -> BoxStream<'_, Result<ExportRecord>> {
        listed(self.state().exports.values().cloned().collect())
    }

    async fn remove(&self, name: &ExportName) -> Result<()> {
        self.change("remove export", name, |state, _| {
            if let Some(export) = state.exports.get(name) {
                Refusal::unless_same(&export.status, &ExportStatus::Stopped)?;
                state.exports.remove(name);
            }
            Ok(())
        })
    }
}

impl State {
    fn begin_export(
        &mut self,
        lease: &Lease,
        name: &ExportName,
        key: &DiskKey,
        volume: &VolumeId,
        now: Timestamp,
    ) -> Result<ExportRecord, Refusal> {
        let disk = self.guard_disk(lease, key)?;
        let attached = self.volume_of(&disk).filter(|linked| linked.status == VolumeStatus::Attached);
        if attached.is_none_or(|linked| linked.id != *volume) {
            return Err(Refusal::unknown("attached volume of this disk", volume));
        }
        let other = self.exports.get(name).filter(|taken| taken.disk != disk || taken.volume != *volume);
        if let Some(taken) = other {
            return Err(Refusal::NameTaken { disk: taken.disk.to_string(), volume: taken.volume.clone() });
        }
        let export = ExportRecord {
            name: name.clone(),
            job: lease.job.clone(),
            disk,
            volume: volume.clone(),
            status: ExportStatus::Starting,
            updated_at: now,
        };
        self.exports.insert(name.clone(), export.clone());
        Ok(export)
    }
}
