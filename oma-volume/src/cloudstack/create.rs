//! One operation makes one volume, whatever is lost on the way.
//!
//! ```text
//!  root administrator  look for customid ─▶ createVolume customid ─▶ refused as known? ─▶ look ─▶ mark
//!  any other           look for name     ─▶ createVolume name     ─▶ job's id taken? ask that job whose volume won
//!                                           ─▶ look: take the others away that nobody marked ─▶ mark
//! ```
//!
//! Custom id, name and the id of the job follow from the operation. An unmarked volume with them is one whose maker was killed, or
//! whose answer was lost; one with marks of somebody else is never taken.

use oma_core::traits::{Volume, VolumeSpec};
use oma_core::{OperationId, Retry};
use uuid::Uuid;

use super::api::{self, CloudVolume, State, create_tags};
use super::config::Account;
use super::error::CloudError;
use super::jobs::JobName;
use super::marks::{self, Marks};
use super::request::Request;
use super::seen::Seen;
use super::tries::Tries;
use super::volumes::{Cloud, Result};

/// What an operation's volume and its job are known by.
#[derive(Clone, Copy, Debug)]
struct Known(Uuid);

impl Known {
    fn by(operation: &OperationId) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, operation.as_str().as_bytes()))
    }

    /// A version 5 UUID: the digits that become the serial of the disk are those of a hash.
    fn custom_id(self) -> String {
        self.0.to_string()
    }

    fn name(self) -> String {
        format!("oma-{}", self.0)
    }

    /// A job that failed keeps its id, so each try has one.
    fn job(self, attempt: usize) -> Uuid {
        Uuid::new_v5(&self.0, format!("createVolume {attempt}").as_bytes())
    }
}

impl Cloud {
    pub(super) async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        let (known, mut tries) = (Known::by(&spec.operation), Tries::new(self.jobs.pauses()));
        let gib = whole_gib(spec)?;
        let (mut attempt, mut winner) = (0, None);
        loop {
            if let Some(volume) = self.made(known, spec, winner.as_deref()).await? {
                match self.claim(volume.clone(), spec).await {
                    Ok(Some(claimed)) => return Ok(claimed),
                    Ok(None) => {}
                    Err(error) => return Err(self.give_up(&volume, error).await),
                }
            }
            tries.begin()?;
            let outcome =
                self.jobs.run(self.create_command(known, gib), JobName::Derived(known.job(attempt))).await;
            if let Ok(result) = &outcome {
                winner = result.pointer("/volume/id").and_then(|id| id.as_str()).map(str::to_owned);
            } else if let Err(CloudError::JobFailed { .. } | CloudError::JobCut { .. }) = &outcome {
                attempt += 1;
            }
            tries.ended(outcome).await?;
        }
    }

    fn create_command(&self, known: Known, gib: u64) -> Request {
        let request = Request::new("createVolume")
            .with("name", &known.name())
            .with("zoneid", &self.config.zone_id)
            .with("diskofferingid", &self.config.disk_offering_id)
            .with("size", &gib);
        let request = self.within(request);
        match self.config.account {
            Account::RootAdmin => request.with("customid", &known.custom_id()),
            Account::Ordinary => request,
        }
    }

    /// The volume that an operation made before, marked or not.
    async fn made(
        &self,
        known: Known,
        spec: &VolumeSpec,
        winner: Option<&str>,
    ) -> Result<Option<CloudVolume>> {
        match self.config.account {
            Account::RootAdmin => match self.look_also_gone(&known.custom_id()).await? {
                Seen::Volume(volume) if volume.state != State::Gone => Ok(Some(*volume)),
                Seen::Volume(_) | Seen::Removed => Err(CloudError::Destroyed(spec.operation.clone())),
                Seen::Never => Ok(None),
            },
            Account::Ordinary => self.named(known, spec, winner).await,
        }
    }

    async fn named(
        &self,
        known: Known,
        spec: &VolumeSpec,
        winner: Option<&str>,
    ) -> Result<Option<CloudVolume>> {
        let request = self.list_all("listVolumes").with("name", &known.name());
        let mut found: Vec<CloudVolume> = api::one_page(&self.client, &request, "volume").await?;
        found.retain(|volume| volume.name == known.name());
        let is_destroyed = |volume: &CloudVolume| {
            let marks = Marks::read(&volume.tags);
            volume.state == State::Gone && marks.is_some_and(|marks| marks.is_made_by(spec))
        };
        if found.iter().any(is_destroyed) {
            return Err(CloudError::Destroyed(spec.operation.clone()));
        }
        found.retain(|volume| volume.state != State::Gone);
        if found.len() < 2 {
            return Ok(found.pop());
        }
        let asked = match winner {
            Some(id) => Some(id.to_owned()),
            None => self.maker(known).await?,
        };
        let rank = |volume: &CloudVolume| {
            let is_marked = Marks::read(&volume.tags).is_some_and(|marks| marks.operation == spec.operation);
            let has_won = asked.as_ref() == Some(&volume.id);
            (!is_marked, !has_won, volume.created.clone(), volume.id.clone())
        };
        found.sort_by_key(rank);
        let surplus = found.split_off(1);
        for volume in &surplus {
            self.remove_surplus(volume).await?;
        }
        Ok(found.pop())
    }

    /// A row that can never be marked is taken away again. Not one with an id of ours: that id could not be used again, and the row
    /// will be found by it.
    async fn give_up(&self, volume: &CloudVolume, error: CloudError) -> CloudError {
        let is_for_good = error.refusal().is_some_and(|refusal| refusal.judgement().1 == Retry::Never);
        if is_for_good
            && self.config.account == Account::Ordinary
            && let Err(error) = self.remove_surplus(volume).await
        {
            tracing::warn!(volume = %volume.id, %error, "an unmarked volume is left");
        }
        error
    }

    /// The volume that the operation's job made: of rivals that all made one, the one whose job was accepted.
    async fn maker(&self, known: Known) -> Result<Option<String>> {
        let job = known.job(0).to_string();
        if self.jobs.find(&job).await?.is_none() {
            return Ok(None);
        }
        match self.jobs.follow("createVolume", &job).await {
            Ok(result) => Ok(result.pointer("/volume/id").and_then(|id| id.as_str()).map(str::to_owned)),
            Err(
                CloudError::JobFailed { .. } | CloudError::JobCut { .. } | CloudError::JobForgotten { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A row of this operation's name that no job works for: nobody has marked, attached or filled it.
    async fn remove_surplus(&self, volume: &CloudVolume) -> Result<()> {
        // Looked at again, for a rival may mark it just now. Should it go all the same, nothing is lost: it has no space yet.
        if !is_nobodys(volume) || !self.look(&volume.id).await?.as_ref().is_some_and(is_nobodys) {
            return Ok(());
        }
        match self.delete_row(&volume.id).await {
            Ok(()) => Ok(()),
            // Whoever else makes the same volume may have taken it away.
            Err(error) if error.is_uncertain() || error.is_refused_with(&[431, 530]) => {
                tracing::debug!(volume = %volume.id, %error, "a surplus volume may be left");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Marks a volume that the operation made, or finds it marked; `None` when somebody took it away meanwhile.
    async fn claim(&self, mut volume: CloudVolume, spec: &VolumeSpec) -> Result<Option<Volume>> {
        let mut tries = Tries::new(self.jobs.pauses());
        loop {
            if volume.capacity() < spec.capacity {
                return Err(CloudError::MadeOtherwise(spec.operation.clone()));
            }
            match Marks::read(&volume.tags) {
                Some(marks) if marks.is_made_by(spec) => {
                    let Some(placed) = self.all_placed(vec![volume]).await?.pop() else { return Ok(None) };
                    return self.describe(&placed).await.map(Some);
                }
                // Its maker is the only one who may have touched it: with a place on storage or at a machine it is somebody's.
                None if is_nobodys(&volume) => {}
                _ => return Err(CloudError::MadeOtherwise(spec.operation.clone())),
            }
            tries.begin()?;
            let tags = Marks::of(spec).tags();
            let outcome = self.jobs.run(create_tags(&volume.id, &tags), JobName::Fresh).await;
            tries.ended(outcome).await?;
            match self.look(&volume.id).await? {
                Some(seen) => volume = seen,
                None => return Ok(None),
            }
        }
    }
}

/// A row and nothing else: nobody has marked, attached or filled it.
fn is_nobodys(volume: &CloudVolume) -> bool {
    volume.state == State::Allocated && volume.machine.is_none() && !marks::are_any(&volume.tags)
}

/// The size to ask for: whole GiB, rounded up (L13).
fn whole_gib(spec: &VolumeSpec) -> Result<u64> {
    match spec.capacity.bytes() {
        0 => Err(CloudError::NoBytes),
        bytes if bytes > i64::MAX.unsigned_abs() => Err(CloudError::TooLarge(bytes)),
        _ => Ok(spec.capacity.gib_ceiling()),
    }
}

#[cfg(test)]
mod tests {
    use oma_core::record::VolumeTag;
    use oma_core::traits::Provisioning;
    use oma_core::{ByteSize, DiskRef, Generation, InstanceId};
    use serde_json::json;

    use super::super::config::CloudStackConfig;
    use super::super::script::{Script, client, config};
    use super::*;

    fn spec() -> VolumeSpec {
        let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
        VolumeSpec {
            operation: OperationId::mint(),
            tag: VolumeTag { instance: InstanceId::mint(), disk, generation: Generation::FIRST },
            name: "n".to_owned(),
            capacity: ByteSize::gib(1),
            provisioning: Provisioning::Thin,
        }
    }

    /// The role may make volumes and not mark them.
    #[tokio::test(start_paused = true)]
    async fn a_row_that_may_not_be_marked_is_taken_away() {
        for (account, deleted) in [(Account::Ordinary, 1), (Account::RootAdmin, 0)] {
            let (spec, config) = (spec(), CloudStackConfig { account, ..config() });
            let known = Known::by(&spec.operation);
            let row =
                json!({"id": known.custom_id(), "name": known.name(), "state": "Allocated", "size": 1 << 30});
            let script = Script::new()
                .answers("listVolumes", json!({"count": 1, "volume": [row]}))
                .refuses("createTags", 531, Some(4365), "no")
                .answers("deleteVolume", json!({"success": true}));
            let cloud = Cloud::new(client(&script), config);
            let error = cloud.create(&spec).await.unwrap_err();
            assert!(error.is_refused_with(&[531]), "{error}");
            assert_eq!(script.count("deleteVolume"), deleted, "{account:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_that_was_not_done_is_not_told_as_done() {
        for no in [json!(false), json!("false")] {
            let script = Script::new().answers("deleteVolume", json!({ "success": no }));
            let error = Cloud::new(client(&script), config()).delete_row("v").await.unwrap_err();
            assert_eq!(error.about("delete", "v").kind(), oma_core::ErrorKind::Unavailable);
        }
        let script = Script::new().answers("deleteVolume", json!({"success": true}));
        Cloud::new(client(&script), config()).delete_row("v").await.unwrap();
    }

    /// Somebody deletes the row between its marks and the answer.
    #[tokio::test(start_paused = true)]
    async fn a_row_that_went_while_it_was_marked_is_no_volume() {
        let spec = spec();
        let row = json!({"id": "v", "name": Known::by(&spec.operation).name(), "state": "Allocated", "size": 1 << 30});
        let script = Script::new()
            .answers("listVolumes", json!({"count": 1, "volume": [row]}))
            .answers("listVolumes", json!({}))
            .answers("listSnapshots", json!({}))
            .answers("listVirtualMachines", json!({"count": 1, "virtualmachine": [{"name": "oma1"}]}))
            .answers("createTags", json!({"jobid": "j"}))
            .answers("queryAsyncJobResult", json!({"jobstatus": 1, "jobresult": {"success": true}}))
            .refuses("createVolume", 535, Some(4370), "full");
        let cloud = Cloud::new(client(&script), config());
        let error = cloud.create(&spec).await.unwrap_err();
        assert!(error.is_refused_with(&[535]), "another one was asked for: {error}");
        assert_eq!((script.count("createTags"), script.count("createVolume")), (1, 1));
    }
}
