//! Detaching, so that no detach of ours takes a volume from whoever has it later (apache/cloudstack#14214).
//!
//! ```text
//!  attached since T ─▶ job id of (volume, machine, T, 0) ─▶ taken and over? of (volume, machine, T, 1) …
//! ```
//!
//! The id of the job follows from the attachment that it is to end, so all processes, also those that know nothing of each other,
//! ask for the same job: of requests that were lost on the way and arrive late the cloud refuses all but one. A job that is under way
//! is shown with its volume, whoever asked for it, and waited for before anything else is done ([`Cloud::prove`]).
//!
//! What neither covers is a request that has not arrived. It is good for [`VALID_CHANGE`]: as long as this process knows of one,
//! nothing is said to be detached, attached or opened. Of one that a process sent which was killed, no other one knows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oma_core::VolumeId;
use oma_core::record::VolumeTag;
use oma_core::traits::Volume;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::api::CloudVolume;
use super::error::CloudError;
use super::jobs::JobName;
use super::placed::Thought;
use super::request::Request;
use super::signature::VALID_CHANGE;
use super::tries::Tries;
use super::volumes::{Cloud, Result, with_device};

const COMMAND: &str = "detachVolume";
/// So many ids are asked for one after the other. A job has one as long as its record is kept, for a day.
const MOST: usize = 100;

/// By volume, the jobs of detaches whose end is not known.
#[derive(Debug, Default)]
pub(super) struct Detaches(Mutex<HashMap<String, Sent>>);

#[derive(Clone, Copy, Debug)]
struct Sent {
    job: Uuid,
    /// Until when its last request can be let in; not known of one that is being sent.
    until: Option<Instant>,
}

impl Detaches {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of a job that ends this attachment and no other one.
fn job_of(volume: &CloudVolume, number: usize) -> JobName {
    if number >= MOST {
        return JobName::Fresh;
    }
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().to_ascii_lowercase();
    let (machine, since) = (text(&volume.machine), text(&volume.attached));
    let text = format!("{COMMAND} {} {machine} {since} {number}", volume.id.to_ascii_lowercase());
    JobName::Kept(Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()))
}

impl Cloud {
    /// Until the cloud says so and the disk has left this machine: only then may it be attached elsewhere. A guest that was slow
    /// makes the cloud fail the job and believe that the volume is attached; asked again, it finds the disk gone.
    pub(super) async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let (mut tries, mut thought) = (Tries::new(self.jobs.pauses()), Thought::Here);
        let (mut number, mut is_over) = (0, false);
        loop {
            let placed = self.prove(id, tag, thought).await?;
            let volume = &placed.volume;
            self.prove_machine().await?;
            if !self.is_here_or_nowhere(volume)? {
                if self.settle_detach(id).await? {
                    continue;
                }
                self.vanished(volume).await?;
                return with_device(volume, None);
            }
            // What an earlier process asked for is no try of this one.
            if !is_over {
                tries.begin()?;
            }
            let _nobody_else = self.closed(&placed).await?;
            let outcome = self.detach_once(volume, job_of(volume, number)).await;
            number += usize::from(outcome.as_ref().err().is_none_or(CloudError::has_ended));
            is_over = matches!(outcome, Err(CloudError::JobOver { .. }));
            if !is_over {
                tries.ended(outcome).await?;
            }
            thought = Thought::Away;
        }
    }

    async fn detach_once(&self, volume: &CloudVolume, name: JobName) -> Result<()> {
        let key = volume.id.to_ascii_lowercase();
        if let JobName::Kept(job) = name {
            self.detaches.all().insert(key.clone(), Sent { job, until: None });
        }
        let request = Request::new(COMMAND).with("id", &volume.id);
        let outcome = self.jobs.run(request, name).await.map(drop);
        let has_ended = outcome.as_ref().err().is_none_or(CloudError::has_ended);
        let mut all = self.detaches.all();
        if has_ended {
            all.remove(&key);
        } else if let Some(sent) = all.get_mut(&key) {
            sent.until = Some(Instant::now() + VALID_CHANGE);
        }
        drop(all);
        outcome
    }

    /// Waits until nothing can come any more of a detach that this process asked for; whether there was one.
    pub(super) async fn settle_detach(&self, id: &VolumeId) -> Result<bool> {
        let key = id.as_str().to_ascii_lowercase();
        let sent = self.detaches.all().get(&key).copied();
        let Some(Sent { job, until }) = sent else { return Ok(false) };
        if !self.jobs.settle(COMMAND, job).await? {
            sleep_until(until.unwrap_or_else(|| Instant::now() + VALID_CHANGE)).await;
            self.jobs.settle(COMMAND, job).await?;
        }
        self.detaches.all().remove(&key);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use oma_core::{DiskRef, Generation, InstanceId, OperationId};
    use serde_json::{Value, json};

    use super::super::config::CloudStackConfig;
    use super::super::marks::Marks;
    use super::super::script::{Script, client, config};
    use super::*;

    const ID: &str = "38400000-8cf0-11bd-b24e-10b96e4ef00d";
    const SYSTEM: &str = "11111111-1111-4111-8111-111111111111";

    fn tag() -> VolumeTag {
        let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
        VolumeTag { instance: InstanceId::mint(), disk, generation: Generation::FIRST }
    }

    fn row(tag: &VolumeTag, machine: Option<&str>) -> Value {
        let (operation, name) = (OperationId::mint(), "n".to_owned());
        let marks = Marks { operation, made: Generation::FIRST, tag: tag.clone(), name };
        let tags: Vec<_> =
            marks.tags().into_iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        json!({"count": 1, "volume": [{"id": ID, "state": "Ready", "size": 1 << 30, "virtualmachineid": machine, "tags": tags}]})
    }

    /// A machine with its system's disk and no other.
    fn machine() -> (tempfile::TempDir, CloudStackConfig) {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("sys/block/vda");
        std::fs::create_dir_all(&disk).unwrap();
        for (file, text) in [("dev", "254:0"), ("size", "8"), ("serial", "11111111111141118111")] {
            std::fs::write(disk.join(file), text).unwrap();
        }
        std::fs::create_dir_all(folder.path().join("dev")).unwrap();
        std::fs::write(folder.path().join("dev/vda"), [0; 4096]).unwrap();
        let config = CloudStackConfig { device_root: folder.path().to_owned(), ..config() };
        (folder, config)
    }

    /// Lost on the way, and then somebody detaches the volume by hand: the request can still come.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_detached_attached_or_opened_while_a_request_may_be_on_its_way() {
        for what in ["detach", "attach", "open"] {
            let (tag, (_folder, here)) = (tag(), machine());
            let system = json!({"count": 1, "volume": [{"id": SYSTEM, "state": "Ready"}]});
            let script = Script::new()
                .answers("listVolumes", row(&tag, Some("vm")))
                .answers("listVolumes", system)
                .answers("listVolumes", row(&tag, Some("vm")))
                .answers("listVolumes", row(&tag, Some("vm")))
                .answers("listVolumes", row(&tag, Some("vm")))
                .answers("listVolumes", row(&tag, Some("vm")))
                .answers("listVolumes", row(&tag, Some("vm")))
                .answers("listVolumes", row(&tag, None))
                .loses("detachVolume")
                .unknown_id("queryAsyncJobResult")
                .refuses("attachVolume", 535, Some(4370), "full");
            let (cloud, id) = (Cloud::new(client(&script), here), ID.parse().unwrap());
            let error = cloud.detach(&id, &tag).await.unwrap_err();
            assert!(matches!(error, CloudError::NeverAccepted { .. }), "{error}");
            let lost = Instant::now();
            match what {
                "detach" => drop(cloud.detach(&id, &tag).await.unwrap()),
                "attach" => drop(cloud.attach(&id, &tag).await.unwrap_err()),
                _ => drop(cloud.open(&id, &tag, oma_core::traits::Access::ReadOnly).await.unwrap_err()),
            }
            // Its last request was sent a pause before.
            let waited = lost.elapsed() + config().longest_pause;
            assert!(waited >= VALID_CHANGE, "{what}: after {waited:?}");
            let settled = Instant::now();
            assert!(!cloud.settle_detach(&id).await.unwrap());
            assert_eq!(settled.elapsed(), std::time::Duration::ZERO, "it is waited for once");
        }
    }

    #[test]
    fn each_attachment_has_ids_of_its_own_for_its_detach() {
        let row = |since: &str| -> CloudVolume {
            serde_json::from_value(json!({"id": ID, "virtualmachineid": "vm", "attached": since})).unwrap()
        };
        let id = |volume: &CloudVolume, number| match job_of(volume, number) {
            JobName::Kept(id) => id,
            name => panic!("{name:?}"),
        };
        let (first, second) = (row("2026-01-02T03:04:05+0000"), row("2026-01-02T03:04:06+0000"));
        let all = [id(&first, 0), id(&first, 1), id(&second, 0), id(&second, MOST - 1)];
        assert!((1..all.len()).all(|number| !all[..number].contains(&all[number])), "{all:?}");
        assert_eq!(id(&first, 0), id(&first.clone(), 0), "every process asks for the same");
        assert!(matches!(job_of(&first, MOST), JobName::Fresh));
    }
}
