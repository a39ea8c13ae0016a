//! What two sides of one volume tell, without asking anybody.

use super::class::FindingClass as C;
use super::report::{LocalDevice, Repair, SeenRecord, SeenVolume};
use crate::record::VolumeTag;
use crate::state::VolumeStatus;
use crate::{InstanceId, VolumeId, WorkerId};

/// Who looks, and what he has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewer<'a> {
    pub(super) instance: &'a InstanceId,
    pub(super) worker: &'a WorkerId,
    pub(super) devices: Option<&'a [LocalDevice]>,
}

/// A class, what was found, and what can be done about it.
pub(super) type Judged = (C, String, Option<Repair>);

impl Viewer<'_> {
    /// What is wrong with a volume that both sides have. One that cannot be proven ours is judged by nothing else.
    pub(super) fn judge(&self, id: &VolumeId, record: &SeenRecord, volume: &SeenVolume) -> Vec<Judged> {
        let mut judged = match self.mark(record, volume.tag.as_ref()) {
            Some(taken) if matches!(taken.0, C::OtherDisk | C::OtherInstance | C::NoMark) => {
                return vec![taken];
            }
            judged => Vec::from_iter(judged),
        };
        if !record.linked {
            judged.push((C::Superseded, format!("disk {} has another volume", record.disk), None));
            return judged;
        }
        judged.extend(size(record, volume));
        judged.extend(self.contradiction(id, volume));
        judged.extend(self.attachment(record, volume));
        judged
    }

    fn mark(&self, record: &SeenRecord, tag: Option<&VolumeTag>) -> Option<Judged> {
        let Some(tag) = tag else {
            return Some((C::NoMark, "it bears no mark of ours".to_owned(), None));
        };
        let bears = format!("it bears {tag}, recorded is generation {}", record.generation);
        if tag.instance != *self.instance {
            Some((C::OtherInstance, bears, None))
        } else if tag.disk != record.disk {
            Some((C::OtherDisk, bears, None))
        } else if tag.generation > record.generation {
            Some((C::NewerGeneration, bears, None))
        } else if tag.generation < record.generation {
            let tag = VolumeTag { generation: record.generation, ..tag.clone() };
            Some((C::OlderGeneration, bears, Some(Repair::Retag { tag })))
        } else {
            None
        }
    }

    /// The machine itself is believed more than what a backend tells of it.
    fn contradiction(&self, id: &VolumeId, volume: &SeenVolume) -> Option<Judged> {
        let here: Vec<&str> = self
            .devices?
            .iter()
            .filter(|device| device.volume.as_ref() == Some(id))
            .map(|device| device.path.as_str())
            .collect();
        let told: Vec<&str> = volume.device_path.as_deref().into_iter().collect();
        if here == told {
            return None;
        }
        let or_none = |paths: &[&str]| if paths.is_empty() { "none".to_owned() } else { paths.join(", ") };
        let detail =
            format!("the backend tells device {}, this machine has {}", or_none(&told), or_none(&here));
        Some((C::DeviceContradicts, detail, None))
    }

    fn attachment(&self, record: &SeenRecord, volume: &SeenVolume) -> Option<Judged> {
        let recorded = record.device_path.as_deref().unwrap_or("none");
        match (&record.attached_to, &volume.device_path) {
            (Some(other), Some(path)) if other != self.worker => {
                let detail = format!("recorded at {recorded} of worker {other}, here it is {path}");
                Some((C::AttachedElsewhere, detail, None))
            }
            // Its device on another machine cannot be seen from here.
            (Some(other), None) if other != self.worker => None,
            (_, Some(path)) if record.device_path.as_ref() != Some(path) => {
                let stands = matches!(
                    record.status,
                    VolumeStatus::Created | VolumeStatus::Detached | VolumeStatus::Attached
                );
                let repair = stands.then(|| Repair::RecordDevice { path: path.clone() });
                Some((C::DeviceDiffers, format!("recorded device is {recorded}, it is {path}"), repair))
            }
            (Some(_), None) => {
                let detail = format!("recorded at {recorded}, and not attached here");
                let stands = record.status == VolumeStatus::Attached;
                Some((C::NotAttached, detail, stands.then_some(Repair::RecordDetached)))
            }
            _ => None,
        }
    }
}

fn size(record: &SeenRecord, volume: &SeenVolume) -> Option<Judged> {
    let detail =
        format!("recorded are {} bytes, it has {}", record.capacity.bytes(), volume.capacity.bytes());
    match volume.capacity.cmp(&record.capacity) {
        std::cmp::Ordering::Less => Some((C::Smaller, detail, None)),
        std::cmp::Ordering::Greater => Some((C::Larger, detail, None)),
        std::cmp::Ordering::Equal => None,
    }
}
