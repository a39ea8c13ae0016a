//! A volume with what is attached beside it. Of two volumes of one serial nobody can tell whose disk is whose
//! ([`Serial::of_volume_among`]), so the disk of a volume is looked for only with all at hand that the cloud says are here.
//!
//! ```text
//!  thought to be here     list of this machine ─▶ it is in it: both by one request
//!                                              └▶ it is not: by its id, and no further
//!  thought to be away     by its id ─▶ it is away: its disk is not looked for
//!                                    └▶ it is here: list of this machine
//! ```

use std::sync::Arc;

use oma_core::VolumeId;

use super::api::{self, CloudVolume, State};
use super::error::CloudError;
use super::volumes::{Cloud, Result};
use crate::discovery::Serial;

/// Where a volume is thought to be: what is asked first, nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) enum Thought {
    Here,
    Away,
}

/// A volume as the cloud tells of it.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) volume: CloudVolume,
    /// The ids of all that is attached to this machine, when the volume is.
    beside: Arc<[String]>,
}

impl Placed {
    /// The serial of its disk.
    ///
    /// # Errors
    /// `Conflict` when another volume that is attached here has the same.
    pub(super) fn serial(&self) -> Result<Serial> {
        Ok(Serial::of_volume_among(&self.volume.id, self.beside.iter().map(String::as_str))?)
    }
}

/// The serial of the disk of a volume, one of all that are attached here.
///
/// # Errors
/// `Conflict` when another one of them has the same.
pub(super) fn serial_among(volume: &CloudVolume, here: &[CloudVolume]) -> Result<Serial> {
    Ok(Serial::of_volume_among(&volume.id, here.iter().map(|other| other.id.as_str()))?)
}

fn ids(rows: &[CloudVolume]) -> Arc<[String]> {
    rows.iter().map(|row| row.id.clone()).collect()
}

impl Cloud {
    /// `None` when it is known that there is no such volume, or that it was destroyed.
    pub(super) async fn place(&self, id: &VolumeId, thought: Thought) -> Result<Option<Placed>> {
        if let Thought::Here = thought {
            let here = self.here().await?;
            let is_it = |row: &&CloudVolume| row.id.eq_ignore_ascii_case(id.as_str());
            if let Some(volume) = here.iter().find(is_it).filter(|volume| volume.state != State::Gone) {
                return Ok(Some(Placed { volume: volume.clone(), beside: ids(&here) }));
            }
        }
        match self.look(id.as_str()).await? {
            Some(volume) => self.placed(volume).await.map(Some),
            None => Ok(None),
        }
    }

    /// A volume that the cloud has told of, with what is beside it.
    pub(super) async fn placed(&self, volume: CloudVolume) -> Result<Placed> {
        let beside = self.beside(std::slice::from_ref(&volume)).await?;
        Ok(Placed { volume, beside })
    }

    /// The same of many.
    pub(super) async fn all_placed(&self, volumes: Vec<CloudVolume>) -> Result<Vec<Placed>> {
        let beside = self.beside(&volumes).await?;
        Ok(volumes.into_iter().map(|volume| Placed { volume, beside: beside.clone() }).collect())
    }

    async fn beside(&self, volumes: &[CloudVolume]) -> Result<Arc<[String]>> {
        let is_any_here = volumes.iter().any(|volume| self.is_here(volume));
        Ok(if is_any_here { ids(&self.here().await?) } else { Arc::default() })
    }

    /// That no other volume which is attached here has the serial of this one.
    pub(super) async fn prove_alone(&self, volume: &CloudVolume) -> Result<()> {
        serial_among(volume, &self.here().await?).map(drop)
    }

    /// What the cloud says is attached to this machine, its system among it.
    pub(super) async fn here(&self) -> Result<Vec<CloudVolume>> {
        let id = &self.config.appliance_vm_id;
        let request = self.list_all("listVolumes").with("virtualmachineid", id);
        match api::all(&self.client, &request, "volume").await {
            Err(CloudError::Refused { refusal, .. }) if refusal.is_unknown_id() => Ok(Vec::new()),
            here => here,
        }
    }
}
