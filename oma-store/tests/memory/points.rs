//! Recovery points of one store.

use oma_core::record::{ContentStamp, Lease, PointVolume, RecoveryPointSpec, VolumeTag};
use oma_core::traits::SnapshotSpec;
use oma_core::{ContextId, DiskRef, Generation};

use futures_util::TryStreamExt;

use super::step::Point;
use super::world::{Stores, World, key, named, told};

impl<S: Stores> World<S> {
    pub(crate) async fn with_point(&self, step: Point) -> String {
        match step {
            Point::Begin { lease, point, disks } => self.begin_point(&self.lease(lease), point, disks).await,
            Point::Take { lease, point } => {
                told(self.store.take_point(&self.lease(lease), &named("point", point)).await)
            }
            Point::Condemn { point, needless } => {
                told(self.store.condemn_point(&named("point", point), needless, "because").await)
            }
            Point::Remove(point) => told(self.store.remove_point(&named("point", point)).await),
            Point::Revert { lease, point } => {
                let stamps = [(named("volume", 0), Some(ContentStamp("reverted".to_owned())))];
                told(self.store.reverted_to(&self.lease(lease), &named("point", point), &stamps).await)
            }
        }
    }

    /// A point of so many disks; a job has one or two.
    pub(crate) async fn begin_point(&self, lease: &Lease, number: usize, disks: usize) -> String {
        let job = self.store.get(&lease.job).await.unwrap();
        let context: ContextId = job.map_or(named("ctx", 0), |job| job.context);
        let mut volumes = Vec::new();
        for disk in 0..disks {
            let disk = DiskRef { context: context.clone(), key: key(disk) };
            let linked = self.store.volume_of(&disk).await.unwrap();
            let tag = VolumeTag { instance: named("instance", 0), disk, generation: Generation::FIRST };
            let snapshot = SnapshotSpec {
                id: named("snap", number),
                volume: linked.map_or(named("volume", 0), |volume| volume.id),
                tag,
                job: lease.job.clone(),
            };
            volumes.push(PointVolume { change_id: named("change", 0), snapshot });
        }
        told(self.store.begin_point(lease, &RecoveryPointSpec { id: named("point", number), volumes }).await)
    }

    pub(crate) async fn points_state(&self, context: &ContextId) -> String {
        let points: Vec<_> = self.store.points(context).try_collect().await.unwrap();
        format!("{points:?}")
    }
}
