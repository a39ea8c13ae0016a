use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::sample;
use crate::engine::compare::{Comparison, Doubt};
use crate::engine::config::ReplicateConfig;
use crate::engine::copier::Admission;
use crate::engine::tally::Tally;
use crate::record::{DiskVerification, VerificationScope, VolumeRecord};
use crate::traits::{BlockDevice, PointDisk};
use crate::{ByteSize, Clock as _, Extent, ExtentSet, Result, SystemClock};

/// A disk and its volume, both open.
#[derive(Debug)]
pub(in crate::engine) struct DiskPair<'a> {
    pub(in crate::engine) point: &'a PointDisk,
    pub(in crate::engine) volume: &'a VolumeRecord,
    pub(in crate::engine) source: Arc<dyn BlockDevice>,
    pub(in crate::engine) target: Arc<dyn BlockDevice>,
    /// What the epoch copied, for [`VerificationScope::Changed`].
    pub(in crate::engine) changed: &'a ExtentSet,
    /// What reads of the source pass through.
    pub(in crate::engine) admission: &'a Admission,
}

/// What a comparison of a disk and its volume found.
#[derive(Debug)]
pub(in crate::engine) struct VerifiedDisk {
    pub(in crate::engine) record: DiskVerification,
    /// Where a promise of zeroes was found broken.
    pub(in crate::engine) broken: Option<Extent>,
}

impl DiskPair<'_> {
    /// Compares as much as the scope says.
    pub(in crate::engine) async fn verify(
        self,
        scope: &VerificationScope,
        config: &ReplicateConfig,
        tally: &mut Tally<'_>,
        stop: &CancellationToken,
    ) -> Result<VerifiedDisk> {
        let begun = SystemClock.now();
        let capacity = self.point.capacity;
        let whole: ExtentSet = Extent::between(0, capacity.bytes()).into_iter().collect();
        let wanted = match scope {
            VerificationScope::Full => whole.clone(),
            VerificationScope::Changed => self.changed.intersection(&whole),
            VerificationScope::Sample { size, seed } => sample::leaves(*size, *seed, capacity),
        };
        let held: ExtentSet = Extent::between(0, self.target.info().capacity.bytes()).into_iter().collect();
        let Self { point, volume, source, target, admission, .. } = self;
        // Few leaves are looked at, so what is there is looked at.
        let doubt = match scope {
            VerificationScope::Sample { .. } => Doubt::All,
            VerificationScope::Full | VerificationScope::Changed => Doubt::Some,
        };
        let comparison = Comparison { source, target, doubt, admission, config, stop };
        let mut found = comparison.run_told(&wanted.intersection(&held), tally, None).await?;
        // What the source has beyond the volume's end differs, whatever it holds.
        found.differences.extend(wanted.difference(&held).iter());
        let roots = found.roots.filter(|_| wanted == whole && found.compared + found.promised == capacity);
        let record = DiskVerification {
            key: point.key.clone(),
            volume: volume.id.clone(),
            generation: volume.generation,
            change_id: point.change_id.clone(),
            capacity,
            // What lies beyond the volume's end is known to differ.
            compared: ByteSize::new(wanted.bytes().bytes() - found.promised.bytes()),
            promised_zero: Some(found.promised),
            source_root: roots.map(|roots| roots.source),
            target_root: roots.map(|roots| roots.target),
            read_back: found.manner,
            differences: found.differences,
            begun,
            ended: SystemClock.now(),
        };
        Ok(VerifiedDisk { record, broken: found.broken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDevice;
    use crate::record::VolumeContent;
    use crate::state::VolumeStatus;
    use crate::{ChangeId, ContextId, DiskKey, DiskRef, Generation, PointId, VolumeId};

    #[tokio::test]
    async fn l14_what_the_disk_has_beyond_its_volume_differs_even_where_it_is_zero() {
        let (large, small) = (ByteSize::kib(256), ByteSize::kib(192));
        let key = DiskKey::parse("disk-2000").unwrap();
        let point = PointDisk {
            key: key.clone(),
            capacity: large,
            change_id: ChangeId::parse("c1").unwrap(),
            content: PointId::parse("content-1").unwrap(),
        };
        let volume = VolumeRecord {
            id: VolumeId::parse("vol-1").unwrap(),
            name: "volume".to_owned(),
            disk: DiskRef { context: ContextId::parse("ctx-1").unwrap(), key },
            capacity: small,
            generation: Generation::FIRST,
            content: VolumeContent::Inconsistent,
            held_epoch: false,
            stamp: None,
            status: VolumeStatus::Attached,
            device_path: None,
            attached_to: None,
            updated_at: SystemClock.now(),
        };
        let config = ReplicateConfig::default();
        let pair = DiskPair {
            point: &point,
            volume: &volume,
            source: Arc::new(MemoryDevice::new("disk", large)),
            target: Arc::new(MemoryDevice::new("volume", small)),
            changed: &ExtentSet::new(),
            admission: &Admission::without_limits(config.memory),
        };
        let stop = CancellationToken::new();
        let found = pair.verify(&VerificationScope::Full, &config, &mut Tally::silent(), &stop).await;
        let found = found.unwrap().record;
        let beyond: ExtentSet = Extent::between(small.bytes(), large.bytes()).into_iter().collect();
        assert_eq!((found.differences, found.source_root), (beyond, None));
    }
}
