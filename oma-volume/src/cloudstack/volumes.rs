//! Volumes as the cloud and this machine tell of them: found, proven to be ours, marked.

use std::sync::Arc;

use oma_core::record::VolumeTag;
use oma_core::traits::Volume;
use oma_core::{InstanceId, VolumeId};
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::api::{self, CloudVolume, State, create_tags, delete_tags};
use super::client::Client;
use super::config::CloudStackConfig;
use super::detach::Detaches;
use super::error::CloudError;
use super::jobs::{JobName, Jobs};
use super::kept::{Kept, keep};
use super::marks::{self, Marks};
use super::placed::{Placed, Thought};
use super::request::Request;
use crate::discovery::{DeviceTree, FoundDevice, Serial};

pub(super) type Result<T, E = CloudError> = std::result::Result<T, E>;

/// The cloud and the machine that its volumes are attached to.
#[derive(Debug)]
pub(super) struct Cloud {
    pub(super) client: Arc<Client>,
    pub(super) jobs: Jobs,
    pub(super) tree: DeviceTree,
    /// That the appliance is this machine, once that is proven.
    pub(super) machine: OnceCell<()>,
    pub(super) detaches: Detaches,
    pub(super) config: CloudStackConfig,
}

impl Cloud {
    pub(super) fn new(client: Client, config: CloudStackConfig) -> Self {
        let client = Arc::new(client);
        let jobs = Jobs::new(client.clone(), &config);
        let tree = DeviceTree::new(config.device_root.clone()).with_rescan();
        let (machine, detaches) = (OnceCell::new(), Detaches::default());
        Self { client, jobs, tree, machine, detaches, config }
    }

    /// Asks for all that the account may see, of the project where one is configured.
    pub(super) fn list_all(&self, command: &'static str) -> Request {
        self.within(Request::list_all(command))
    }

    /// In the project, where one is configured.
    pub(super) fn within(&self, request: Request) -> Request {
        match &self.config.project_id {
            Some(project) => request.with("projectid", project),
            None => request,
        }
    }

    pub(super) async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        match self.place(id, Thought::Away).await? {
            Some(placed) => self.describe(&placed).await.map(Some),
            None => Ok(None),
        }
    }

    /// What bears the instance's tag. The filter folds cases, so each one is looked at again.
    pub(super) async fn list(&self, instance: &InstanceId) -> Result<Vec<Placed>> {
        let value = marks::of_instance(instance);
        let request = self.list_all("listVolumes").with_tags([(marks::INSTANCE, value.as_str())]);
        let mut all: Vec<CloudVolume> = api::all(&self.client, &request, "volume").await?;
        let is_ours = |volume: &CloudVolume| {
            volume.tags.iter().any(|tag| tag.key == marks::INSTANCE && tag.value == value)
        };
        all.retain(|volume| is_ours(volume) && volume.state != State::Gone);
        self.all_placed(all).await
    }

    pub(super) async fn describe(&self, placed: &Placed) -> Result<Volume> {
        let volume = &placed.volume;
        let device = if self.is_here(volume) { self.tree.find(&placed.serial()?).await? } else { None };
        with_device(volume, device.as_ref())
    }

    /// The volume, once its tags proved whose it is (L02), and no job of the cloud is at work on it.
    pub(super) async fn prove(&self, id: &VolumeId, tag: &VolumeTag, mut thought: Thought) -> Result<Placed> {
        let mut pauses = self.jobs.pauses();
        let ends = tokio::time::Instant::now() + self.config.job_limit;
        loop {
            let placed = self.place(id, thought).await?.ok_or(CloudError::Unknown)?;
            let volume = &placed.volume;
            let found = Marks::read(&volume.tags).map(|marks| marks.tag);
            if found.as_ref() != Some(tag) {
                let (found, given) = (found.map(Box::new), tag.clone().into());
                return Err(CloudError::Tag { found, given });
            }
            let is_over = tokio::time::Instant::now() >= ends;
            match (&volume.state, volume.job_at_work()) {
                (State::Other(state), _) => return Err(CloudError::State(state.clone())),
                (_, Some(job)) if is_over => {
                    return Err(CloudError::AtWork { job: job.to_owned(), waited: self.config.job_limit });
                }
                (State::Moving, None) if is_over => return Err(CloudError::Moving(self.config.job_limit)),
                (State::Moving, _) | (_, Some(_)) => sleep(pauses.next_pause()).await,
                (State::Allocated | State::Ready | State::Gone, None) => return Ok(placed),
            }
            thought = Thought::Away;
        }
    }

    pub(super) async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let mut last = None;
        for _ in 0..2 {
            let volume = self.look(id.as_str()).await?.ok_or(CloudError::Unknown)?;
            let now = Marks::read(&volume.tags).map(|marks| marks.tag);
            let follows = |now: &VolumeTag| {
                (&now.instance, &now.disk) == (&tag.instance, &tag.disk) && now.generation <= tag.generation
            };
            match now {
                Some(now) if now == *tag => return self.tidy(&volume, tag).await,
                Some(now) if follows(&now) => {}
                now => {
                    let (found, given) = (now.map(Box::new), tag.clone().into());
                    return Err(CloudError::Retag { found, given });
                }
            }
            match self
                .jobs
                .run(create_tags(&volume.id, &[marks::reached(tag.generation)]), JobName::Fresh)
                .await
            {
                Ok(_) => return self.tidy(&volume, tag).await,
                // It may bear the tag by now: somebody else set it, or it was done and its job is gone.
                Err(error) => last = Some(last_look(error)?),
            }
        }
        Err(last.unwrap_or(CloudError::NoEffect(2)))
    }

    /// Takes marks of smaller generations away. They mislead nobody: the largest counts.
    async fn tidy(&self, volume: &CloudVolume, tag: &VolumeTag) -> Result<()> {
        let outdated = marks::outdated(&volume.tags, tag.generation);
        if !outdated.is_empty()
            && let Err(error) = self.jobs.run(delete_tags(&volume.id, &outdated), JobName::Fresh).await
        {
            tracing::debug!(volume = %volume.id, %error, "marks of earlier generations stay");
        }
        Ok(())
    }

    /// Whether it is attached to the machine that this process runs in.
    pub(super) fn is_here(&self, volume: &CloudVolume) -> bool {
        volume
            .machine
            .as_ref()
            .is_some_and(|machine| machine.eq_ignore_ascii_case(&self.config.appliance_vm_id))
    }

    /// The same, where it is attached to another one: that one's owner decides.
    pub(super) fn is_here_or_nowhere(&self, volume: &CloudVolume) -> Result<bool> {
        match &volume.machine {
            Some(machine) if !self.is_here(volume) => Err(CloudError::AttachedElsewhere(machine.clone())),
            machine => Ok(machine.is_some()),
        }
    }

    /// Whether it is attached to another appliance of ours.
    pub(super) fn is_at_peer(&self, volume: &CloudVolume) -> bool {
        let is_peer =
            |machine: &str| self.config.peer_vm_ids.iter().any(|id| id.eq_ignore_ascii_case(machine));
        !self.is_here(volume) && volume.machine.as_deref().is_some_and(is_peer)
    }

    /// The disk of an attached volume, for nobody else as long as it is kept; `None` when there is no disk to keep.
    ///
    /// # Errors
    /// `Busy` while it is open.
    pub(super) async fn closed(&self, placed: &Placed) -> Result<Option<Kept>> {
        if !self.is_here(&placed.volume) {
            return Ok(None);
        }
        let Some(device) = self.tree.find(&placed.serial()?).await? else { return Ok(None) };
        Ok(keep(&device.path).await?)
    }
}

/// Whether a command that was refused may be done all the same, by a rival or by itself: then it is worth a look.
fn last_look(error: CloudError) -> Result<CloudError> {
    match error.is_told_by_the_thing() || error.is_refused_with(&[431, 530]) {
        true => Ok(error),
        false => Err(error),
    }
}

/// A volume as callers know it, with its disk where it has one.
pub(super) fn with_device(volume: &CloudVolume, device: Option<&FoundDevice>) -> Result<Volume> {
    let marks = Marks::read(&volume.tags);
    Ok(Volume {
        id: VolumeId::parse(&volume.id).map_err(CloudError::OddId)?,
        name: marks.as_ref().map_or_else(|| volume.name.clone(), |marks| marks.name.clone()),
        capacity: volume.capacity(),
        tag: marks.map(|marks| marks.tag),
        device_path: device.map(|device| device.path.display().to_string()),
    })
}

/// What its disk says, whoever else's says the same.
pub(super) fn serial(volume: &CloudVolume) -> Result<Serial> {
    Ok(Serial::of_volume(&volume.id)?)
}
