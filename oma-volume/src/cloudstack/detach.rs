//! Detaching, so that no detach of ours takes a volume from whoever has it later (apache/cloudstack#14214).
//!
//! ```text
//!  attached since T ─▶ job id of (volume, machine, T, 0) ─▶ taken and over? of (volume, machine, T, 1), 2, 4, 8 …
//!                                                                   └▶ halved between the last that is and the first that is not
//! ```
//!
//! The id of the job follows from the attachment that it is to end, so all processes, also those that know nothing of each other,
//! ask for the same job: of requests that were lost on the way and arrive late the cloud refuses all but one. A job that is under way
//! is shown with its volume, whoever asked for it, and waited for before anything else is done ([`Cloud::prove`]).
//!
//! Each request follows a proof of where the volume is, and is sent once for it: sent again without one, it would take the volume from
//! the machine that it was given to meanwhile. What neither covers is a request that has not arrived. It is good for [`VALID_CHANGE`]: as long as this process knows of one,
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
/// So many ids there are for the detaches of one attachment. A job has one as long as its record is kept, for a day; asked for three
/// times in ten seconds, which is more than the engine does, there are fewer in a day.
const MOST: usize = 1 << 15;

/// What this process knows of detaches, by volume.
#[derive(Debug, Default)]
pub(super) struct Detaches(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Jobs whose end is not known.
    sent: HashMap<String, Sent>,
    /// An attachment, and the number of its first job that is not known to be over.
    next: HashMap<String, (Attachment, usize)>,
}

/// The machine, and since when.
type Attachment = (String, String);

#[derive(Clone, Copy, Debug)]
struct Sent {
    job: Uuid,
    /// Until when its last request can be let in; not known of one that is being sent.
    until: Option<Instant>,
}

impl Detaches {
    fn all(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the job to ask for.
    ///
    /// # Errors
    /// When there is none left. The next call begins with the first one again: the cloud may have forgotten it by then.
    fn next(&self, volume: &CloudVolume) -> Result<usize> {
        let mut all = self.all();
        let known = all.next.get(&key(volume)).filter(|(of, _)| *of == attachment(volume));
        let number = known.map_or(0, |(_, number)| *number);
        if number >= MOST {
            all.next.remove(&key(volume));
            return Err(CloudError::AskedTooOften(MOST));
        }
        Ok(number)
    }

    fn go_on_at(&self, volume: &CloudVolume, number: usize) {
        self.all().next.insert(key(volume), (attachment(volume), number));
    }

    fn forget_numbers(&self, volume: &CloudVolume) {
        self.all().next.remove(&key(volume));
    }
}

fn key(volume: &CloudVolume) -> String {
    volume.id.to_ascii_lowercase()
}

fn attachment(volume: &CloudVolume) -> Attachment {
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().to_ascii_lowercase();
    (text(&volume.machine), text(&volume.attached))
}

/// The id of a job that ends this attachment and no other one.
fn job_of(volume: &CloudVolume, number: usize) -> Uuid {
    let (machine, since) = attachment(volume);
    let text = format!("{COMMAND} {} {machine} {since} {number}", key(volume));
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}

impl Cloud {
    /// Until the cloud says so and the disk has left this machine: only then may it be attached elsewhere. A guest that was slow
    /// makes the cloud fail the job and believe that the volume is attached; asked again, it finds the disk gone.
    pub(super) async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.prove_machine().await?;
        let (mut tries, mut thought) = (Tries::new(self.jobs.pauses()), Thought::Here);
        let mut is_over = false;
        loop {
            let placed = self.prove(id, tag, thought).await?;
            let volume = &placed.volume;
            if !self.is_here_or_nowhere(volume)? {
                if self.settle_detach(id).await? {
                    continue;
                }
                self.vanished(volume).await?;
                self.detaches.forget_numbers(volume);
                return with_device(volume, None);
            }
            // What an earlier process asked for is no try of this one.
            if !is_over {
                tries.begin()?;
            }
            let _nobody_else = self.closed(&placed).await?;
            is_over = self.end_attachment(volume, &mut tries).await?;
            thought = Thought::Away;
        }
    }

    /// Ends the attachment of another appliance of ours. Its disk is seen on that machine only, so the cloud's word is all that there is:
    /// a job that is done is a guest that has let go.
    /// Where it is then has to be looked at.
    pub(super) async fn take_from_peer(
        &self,
        volume: &CloudVolume,
        tries: &mut Tries,
        is_over: &mut bool,
    ) -> Result<()> {
        let peer = volume.machine.as_deref().unwrap_or_default();
        tracing::warn!(volume = %volume.id, peer, "taken from another appliance");
        if !*is_over {
            tries.begin()?;
        }
        *is_over = self.end_attachment(volume, tries).await?;
        Ok(())
    }

    /// Asks for one job that ends this attachment; whether the id that was tried was used up by another process.
    async fn end_attachment(&self, volume: &CloudVolume, tries: &mut Tries) -> Result<bool> {
        let number = self.detaches.next(volume)?;
        let outcome = self.detach_once(volume, job_of(volume, number)).await;
        if is_taken(&outcome) {
            self.detaches.go_on_at(volume, number + 1);
        }
        let is_over = matches!(outcome, Err(CloudError::JobOver { .. }));
        if is_over {
            let free = self.free_after(volume, number).await?;
            self.detaches.go_on_at(volume, free);
        } else {
            tries.ended(outcome).await?;
        }
        Ok(is_over)
    }

    /// The number of a job that is not over, behind one that is; [`MOST`] when there is none. Found by doubling, then by halving: those
    /// before may have asked for many. One that is under way is such a job: it is followed.
    async fn free_after(&self, volume: &CloudVolume, over: usize) -> Result<usize> {
        let (mut over, mut free, mut step) = (over, MOST, 1);
        while over + 1 < free {
            let number = (over + step).min(MOST - 1);
            if !self.jobs.is_over(job_of(volume, number)).await? {
                free = number;
                break;
            }
            (over, step) = (number, step * 2);
        }
        while over + 1 < free {
            let middle = over.midpoint(free);
            match self.jobs.is_over(job_of(volume, middle)).await? {
                true => over = middle,
                false => free = middle,
            }
        }
        Ok(free)
    }

    async fn detach_once(&self, volume: &CloudVolume, job: Uuid) -> Result<()> {
        let key = key(volume);
        let before = self.detaches.all().sent.insert(key.clone(), Sent { job, until: None });
        let outcome =
            self.jobs.run(Request::on_proof(COMMAND, &volume.id), JobName::Kept(job)).await.map(drop);
        let until = Some(Instant::now() + VALID_CHANGE);
        let left = match &outcome {
            _ if is_taken(&outcome) => None,
            // An earlier one of the same job may still be on its way.
            Err(CloudError::Refused { .. } | CloudError::PutOff { .. }) => {
                before.filter(|sent| sent.job == job)
            }
            _ => Some(Sent { job, until }),
        };
        let mut all = self.detaches.all();
        match left {
            Some(sent) => drop(all.sent.insert(key, sent)),
            None => drop(all.sent.remove(&key)),
        }
        drop(all);
        outcome
    }

    /// Waits until nothing can come any more of a detach that this process asked for; whether there was one.
    pub(super) async fn settle_detach(&self, id: &VolumeId) -> Result<bool> {
        let key = id.as_str().to_ascii_lowercase();
        let sent = self.detaches.all().sent.get(&key).copied();
        let Some(Sent { job, until }) = sent else { return Ok(false) };
        if !self.jobs.settle(COMMAND, job).await? {
            sleep_until(until.unwrap_or_else(|| Instant::now() + VALID_CHANGE)).await;
            self.jobs.settle(COMMAND, job).await?;
        }
        self.detaches.all().sent.remove(&key);
        Ok(true)
    }
}

/// Whether the id of a job was used up: no request comes in with it any more. One that was refused made no job.
fn is_taken(outcome: &Result<()>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) => error.has_ended() && !matches!(error, CloudError::Refused { .. }),
    }
}

#[cfg(test)]
mod tests {
    use oma_core::{DiskRef, ErrorKind, Generation, InstanceId, OperationId, Retry};
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
                .answers("listVolumes", system)
                .answers("listVolumes", row(&tag, Some("vm")))
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

    /// Of two requests of one job the first is lost and the second refused: the first can still come.
    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_refused_says_nothing_of_one_that_was_lost_before() {
        let tag = tag();
        let volume: CloudVolume = serde_json::from_value(row(&tag, Some("vm"))["volume"][0].clone()).unwrap();
        let script = Script::new()
            .loses("detachVolume")
            .busy("detachVolume", 429, None)
            .refuses("detachVolume", 431, Some(4350), "not attached")
            .unknown_id("queryAsyncJobResult");
        let (cloud, job) = (Cloud::new(client(&script), config()), job_of(&volume, 0));
        for _ in 0..3 {
            cloud.detach_once(&volume, job).await.unwrap_err();
        }
        assert_eq!(script.count("detachVolume"), 3);
        assert!(cloud.settle_detach(&ID.parse().unwrap()).await.unwrap(), "it is waited for");
    }

    #[test]
    fn each_attachment_has_ids_of_its_own_for_its_detach() {
        let row = |since: &str| -> CloudVolume {
            serde_json::from_value(json!({"id": ID, "virtualmachineid": "vm", "attached": since})).unwrap()
        };
        let (first, second) = (row("2026-01-02T03:04:05+0000"), row("2026-01-02T03:04:06+0000"));
        let all = [job_of(&first, 0), job_of(&first, 1), job_of(&second, 0), job_of(&second, MOST - 1)];
        assert!((1..all.len()).all(|number| !all[..number].contains(&all[number])), "{all:?}");
        assert_eq!(job_of(&first, 0), job_of(&first.clone(), 0), "every process asks for the same");
    }

    /// Never under an id that others do not know.
    #[tokio::test(start_paused = true)]
    async fn a_detach_whose_ids_are_all_used_up_is_refused_with_advice() {
        let (tag, (_folder, here)) = (tag(), machine());
        let system = json!({"count": 1, "volume": [{"id": SYSTEM, "state": "Ready"}]});
        let script = Script::new()
            .answers("listVolumes", system)
            .answers("listVolumes", row(&tag, Some("vm")))
            .answers("listVolumes", row(&tag, Some("vm")))
            .refuses("detachVolume", 431, Some(4350), "already exists")
            .answers("queryAsyncJobResult", json!({"jobstatus": 2, "jobresultcode": 530, "jobresult": "no"}));
        let (cloud, id) = (Cloud::new(client(&script), here), ID.parse().unwrap());
        for time in 1..=2 {
            let error = cloud.detach(&id, &tag).await.unwrap_err();
            assert!(matches!(error, CloudError::AskedTooOften(MOST)), "{error}");
            assert_eq!(script.count("detachVolume"), time, "its first id, which may be forgotten by now");
            assert!(script.sent().len() <= time * 25, "{} requests", script.sent().len());
            let error = error.about("detach", ID);
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later));
            assert!(error.chain().contains("by hand"), "{}", error.chain());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_refused_uses_no_id_up() {
        let (tag, (_folder, here)) = (tag(), machine());
        let system = json!({"count": 1, "volume": [{"id": SYSTEM, "state": "Ready"}]});
        let script = Script::new()
            .answers("listVolumes", system)
            .answers("listVolumes", row(&tag, Some("vm")))
            .answers("listVolumes", row(&tag, Some("vm")))
            .refuses("detachVolume", 530, None, "no agent")
            .unknown_id("queryAsyncJobResult");
        let (cloud, id) = (Cloud::new(client(&script), here), ID.parse().unwrap());
        for _ in 0..2 {
            cloud.detach(&id, &tag).await.unwrap_err();
        }
        let sent: Vec<_> = script.sent().into_iter().filter(|sent| sent.command == "detachVolume").collect();
        assert_eq!(sent.len(), 6);
        assert!(sent.iter().all(|one| one.value("customjobid") == sent[0].value("customjobid")));
    }
}
