//! What must hold of a world whatever happened to processes.

use futures_util::TryStreamExt as _;

use super::world::{World, paused};
use crate::record::{
    JobFilter, OperationFilter, OperationSpec, ReplicationJob, VolumeFilter, VolumeRecord, VolumeTag,
};
use crate::state::OperationStatus;
use crate::traits::{JobStore, Volume, VolumeBackend as _, VolumeRegistry as _};

impl World {
    /// What is to be the same however often processes died: volumes and snapshots of the backend, without what is minted.
    pub(in crate::engine) fn left(&self) -> Vec<String> {
        let instance = paused().block_on(self.store.instance()).unwrap();
        let listed = self.backend.list(&instance).try_collect::<Vec<Volume>>();
        let mut left: Vec<_> = paused()
            .block_on(listed)
            .unwrap()
            .into_iter()
            .map(|volume| {
                let attached = volume.device_path.is_some();
                let generation = volume.tag.map(|tag| tag.generation);
                format!("{} {} attached={attached} {generation:?}", volume.name, volume.capacity)
            })
            .collect();
        left.extend(self.backend.frozen().iter().map(|id| format!("snapshot {id}")));
        left.sort();
        left
    }

    /// Nothing is under way.
    pub(in crate::engine) fn assert_idle(&self) {
        paused().block_on(async {
            let jobs: Vec<ReplicationJob> =
                JobStore::list(&*self.store, JobFilter { live_only: true, ..JobFilter::default() })
                    .try_collect()
                    .await
                    .unwrap();
            assert!(jobs.is_empty(), "still live: {jobs:?}");
            let operations = self.store.operations(OperationFilter::default());
            for operation in operations.try_collect::<Vec<_>>().await.unwrap() {
                assert_ne!(operation.status, OperationStatus::Executing, "{operation:?}");
            }
        });
    }

    /// Records and backend tell the same, nothing is under way and no volume is without a record.
    pub(in crate::engine) fn assert_whole(&self) {
        self.assert_explained(&[]);
    }

    /// The same, but for what operations that were abandoned may have made different.
    pub(in crate::engine) fn assert_explained(&self, abandoned: &[OperationSpec]) {
        use crate::state::OperationKind as K;
        self.assert_idle();
        paused().block_on(async {
            let records: Vec<VolumeRecord> =
                self.store.volumes(VolumeFilter::default()).try_collect().await.unwrap();
            let instance = self.store.instance().await.unwrap();
            for record in &records {
                let explained = |kinds: &[K]| {
                    abandoned
                        .iter()
                        .any(|spec| spec.volume.as_ref() == Some(&record.id) && kinds.contains(&spec.kind))
                };
                let Some(volume) = self.backend.get(&record.id).await.unwrap() else {
                    assert!(explained(&[K::Delete]), "recorded and gone: {record:?}");
                    continue;
                };
                let is_resized = volume.capacity != record.capacity;
                assert!(!is_resized || explained(&[K::Resize]), "{volume:?} {record:?}");
                let is_moved = volume.device_path != record.device_path;
                assert!(!is_moved || explained(&[K::Attach, K::Detach]), "{volume:?} {record:?}");
                let found = volume.tag.unwrap();
                let tag = VolumeTag {
                    instance: instance.clone(),
                    disk: record.disk.clone(),
                    generation: record.generation,
                };
                assert_eq!(VolumeTag { generation: tag.generation, ..found.clone() }, tag);
                let is_unmarked = found.generation < tag.generation;
                assert!(
                    found == tag || is_unmarked && explained(&[K::Resize, K::Revert, K::Delete]),
                    "{found} {tag}"
                );
            }
            let found: Vec<Volume> = self.backend.list(&instance).try_collect().await.unwrap();
            for volume in found {
                let disk = volume.tag.as_ref().map(|tag| &tag.disk);
                let explained =
                    abandoned.iter().any(|spec| spec.kind == K::Create && Some(&spec.disk) == disk);
                let is_recorded = records.iter().any(|record| record.id == volume.id);
                assert!(is_recorded || explained, "nobody's: {volume:?}");
            }
        });
    }
}
