//! A volume with what is attached beside it. Of two volumes of one serial nobody can tell whose disk is whose
//! ([`Serial::of_volume_among`]), so the disk of a volume is looked for only with all at hand that the cloud says are here.
//!
//! ```text
//!  thought to be here     list of this machine ─▶ it is in it: both by one request
//!                                              └▶ it is not: by its id, and no further
//!  thought to be away     by its id ─▶ it is away: its disk is not looked for
//!                                    └▶ it is here: list of this machine ─▶ it is not in it: both once more
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
        let volume = self.look(id.as_str()).await?;
        Ok(self.all_placed(volume.into_iter().collect()).await?.pop())
    }

    /// Volumes that the cloud has told of, with what is beside them. One that is gone by now is left out.
    ///
    /// # Errors
    /// `Unavailable` when the list of what is here lacks a volume that is here: other ones may be missing in it too (L21).
    pub(super) async fn all_placed(&self, volumes: Vec<CloudVolume>) -> Result<Vec<Placed>> {
        let is_any_here = volumes.iter().any(|volume| self.is_here(volume));
        let here = if is_any_here { self.here().await? } else { Vec::new() };
        let mut seen = Vec::with_capacity(volumes.len());
        let mut is_short = false;
        for volume in volumes {
            if !self.is_lacking(&here, &volume) {
                seen.push(volume);
            } else if let Some(volume) = self.look(&volume.id).await? {
                // It may have been detached meanwhile.
                is_short |= self.is_here(&volume);
                seen.push(volume);
            }
        }
        let here = if is_short { self.here().await? } else { here };
        if let Some(volume) = seen.iter().find(|volume| is_short && self.is_lacking(&here, volume)) {
            return Err(CloudError::Unlisted(volume.id.clone()));
        }
        let beside = ids(&here);
        Ok(seen.into_iter().map(|volume| Placed { volume, beside: beside.clone() }).collect())
    }

    fn is_lacking(&self, here: &[CloudVolume], volume: &CloudVolume) -> bool {
        self.is_here(volume) && here.iter().all(|other| !other.id.eq_ignore_ascii_case(&volume.id))
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

#[cfg(test)]
mod tests {
    use oma_core::{ErrorKind, Retry};
    use serde_json::{Value, json};

    use super::super::script::{Script, client, config};
    use super::*;

    const ID: &str = "38400000-8cf0-11bd-b24e-10b96e4ef00d";
    const TWIN: &str = "38400000-8cf0-11bd-b24e-ffffffffffff";
    const SYSTEM: &str = "11111111-1111-4111-8111-111111111111";

    fn rows(rows: &[(&str, Option<&str>)]) -> Value {
        let row = |(id, machine): &(&str, Option<&str>)| json!({"id": id, "state": "Ready", "size": 1 << 30, "virtualmachineid": machine});
        json!({"count": rows.len(), "volume": rows.iter().map(row).collect::<Vec<_>>()})
    }

    /// What `listVolumes` answers, one after the other.
    fn cloud(answers: &[&[(&str, Option<&str>)]]) -> (Cloud, Script) {
        let script =
            answers.iter().fold(Script::new(), |script, answer| script.answers("listVolumes", rows(answer)));
        (Cloud::new(client(&script), config()), script)
    }

    const HERE: (&str, Option<&str>) = (ID, Some("vm"));
    const FIRST: (&str, Option<&str>) = (SYSTEM, Some("vm"));

    #[tokio::test]
    async fn l21_a_list_of_what_is_here_that_lacks_the_volume_is_not_believed() {
        let id = ID.parse().unwrap();
        for (thought, answers, requests) in [
            (Thought::Away, &[&[HERE][..], &[FIRST], &[HERE], &[FIRST]][..], 4),
            (Thought::Here, &[&[FIRST], &[HERE], &[FIRST], &[HERE], &[FIRST]], 5),
        ] {
            let (cloud, script) = cloud(answers);
            let error = cloud.place(&id, thought).await.unwrap_err();
            assert_eq!(script.count("listVolumes"), requests);
            let error = error.about("open", ID);
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later));
            assert!(error.chain().contains("appliance_vm_id"), "{}", error.chain());
        }
    }

    #[tokio::test]
    async fn l05_a_twin_that_only_the_second_list_shows_is_found() {
        let (cloud, _) = cloud(&[&[HERE], &[FIRST], &[HERE], &[FIRST, (TWIN, Some("vm")), HERE]]);
        let placed = cloud.place(&ID.parse().unwrap(), Thought::Away).await.unwrap().unwrap();
        let error = placed.serial().unwrap_err().about("open", ID);
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.chain().contains(TWIN), "{}", error.chain());
    }

    #[tokio::test]
    async fn what_is_detached_or_deleted_between_two_questions_is_told_as_it_is() {
        let (one, script) = cloud(&[&[HERE], &[FIRST], &[(ID, None)]]);
        let placed = one.place(&ID.parse().unwrap(), Thought::Away).await.unwrap().unwrap();
        assert_eq!((placed.volume.machine, script.count("listVolumes")), (None, 3));
        let (many, _) = cloud(&[&[HERE, (TWIN, None)]]);
        let listed: Vec<CloudVolume> =
            api::all(&many.client, &many.list_all("listVolumes"), "volume").await.unwrap();
        let script = Script::new()
            .answers("listVolumes", rows(&[FIRST]))
            .unknown_id("listVolumes")
            .answers("listVirtualMachines", json!({"count": 1, "virtualmachine": [{"name": "oma1"}]}));
        let many = Cloud::new(client(&script), config());
        let placed = many.all_placed(listed).await.unwrap();
        let left: Vec<_> = placed.iter().map(|placed| &placed.volume.id[..]).collect();
        assert_eq!(left, [TWIN], "a list goes on without the one that went");
    }
}
