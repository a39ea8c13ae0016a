//! What the cloud shows to these keys, and what it only does not show (L21).
//!
//! ```text
//!  listVolumes id ─▶ refused as unknown ─▶ is the appliance shown? ─ no ▶ another cloud, or other keys: an error
//!                 │                                               └ yes ─▶ there never was one
//!                 ├▶ a row ───────────────────────────────────────────▶ that one
//!                 └▶ an empty list ─▶ in a project? another account's? ─▶ hidden: an error
//!                                     is the appliance shown? ─ no ───▶ hidden: an error
//!                                                              └ yes ─▶ it was removed
//! ```
//!
//! The server looks ids up among removed rows and those of others, and then leaves out of its list what the account may not see. Of
//! a volume of another account it refuses to list snapshots (`checkAccess`); of a removed one it does not.

use super::api::{self, CloudVolume, Machine, State};
use super::error::CloudError;
use super::request::Request;
use super::volumes::{Cloud, Result, serial};

/// What became of an id.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// A row, whatever its state.
    Volume(Box<CloudVolume>),
    /// There was a volume once.
    Removed,
    /// No volume of the cloud that was asked ever had it.
    Never,
}

impl Cloud {
    /// A volume as the cloud tells of it; `None` when it is known that there is none, or that it was destroyed.
    pub(super) async fn look(&self, id: &str) -> Result<Option<CloudVolume>> {
        match self.look_also_gone(id).await? {
            Seen::Volume(volume) if volume.state != State::Gone => Ok(Some(*volume)),
            // Any other cloud says the same of it: what is asked has to be the one that has the appliance.
            Seen::Never if !self.shows_appliance().await? => Err(CloudError::NoAppliance),
            Seen::Volume(_) | Seen::Removed | Seen::Never => Ok(None),
        }
    }

    pub(super) async fn look_also_gone(&self, id: &str) -> Result<Seen> {
        let request = self.list_all("listVolumes").with("id", id);
        match self.volume_of(&request, id).await {
            Ok(Some(volume)) => Ok(Seen::Volume(Box::new(volume))),
            Ok(None) => self.not_listed(id).await,
            Err(CloudError::Refused { refusal, .. }) if refusal.is_unknown_id() => Ok(Seen::Never),
            Err(error) => Err(error),
        }
    }

    async fn volume_of(&self, request: &Request, id: &str) -> Result<Option<CloudVolume>> {
        let rows: Vec<CloudVolume> = api::one_page(&self.client, request, "volume").await?;
        Ok(rows.into_iter().find(|volume| volume.id.eq_ignore_ascii_case(id)))
    }

    /// The id names a volume that is not in the list: it was removed, unless it is only not shown.
    async fn not_listed(&self, id: &str) -> Result<Seen> {
        let everywhere = Request::list_all("listVolumes").with("id", id);
        let in_projects = everywhere.clone().with("projectid", "-1");
        if let Some(project) = &self.config.project_id {
            for places in [everywhere, in_projects] {
                if self.volume_of(&places, id).await?.is_some() {
                    return Err(CloudError::OutsideProject(project.clone()));
                }
            }
        } else if self.volume_of(&in_projects, id).await?.is_some() {
            return Err(CloudError::InProject);
        }
        let snapshots = Request::list_all("listSnapshots").with("volumeid", id);
        match self.client.call(&snapshots).await {
            Ok(_) => {}
            Err(error) if error.is_refused_with(&[531]) => return Err(CloudError::Hidden),
            // A role without this command: the appliance has to do.
            Err(CloudError::Refused { refusal, .. })
                if refusal.is_unknown_command() || refusal.is_unknown_id() => {}
            Err(error) => return Err(error),
        }
        if self.shows_appliance().await? { Ok(Seen::Removed) } else { Err(CloudError::NoAppliance) }
    }

    async fn shows_appliance(&self) -> Result<bool> {
        let id = &self.config.appliance_vm_id;
        let request = self.list_all("listVirtualMachines").with("id", id).with("details", "min");
        match api::one_page::<Machine>(&self.client, &request, "virtualmachine").await {
            Ok(rows) => Ok(!rows.is_empty()),
            Err(CloudError::Refused { refusal, .. }) if refusal.is_unknown_id() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Proves, once, that the appliance is the machine that this runs in: its system's disk is here. A clone of the appliance has
    /// another one, however alike its configuration and its database are.
    pub(super) async fn prove_machine(&self) -> Result<()> {
        self.machine.get_or_try_init(|| self.find_system_disk()).await.copied()
    }

    async fn find_system_disk(&self) -> Result<()> {
        let id = &self.config.appliance_vm_id;
        let request = self.list_all("listVolumes").with("virtualmachineid", id).with("type", "ROOT");
        let roots: Vec<CloudVolume> = match api::one_page(&self.client, &request, "volume").await {
            Err(CloudError::Refused { refusal, .. }) if refusal.is_unknown_id() => Vec::new(),
            roots => roots?,
        };
        for root in &roots {
            if self.tree.find(&serial(root)?).await?.is_some() {
                return Ok(());
            }
        }
        Err(CloudError::OtherMachine(id.clone()))
    }
}
