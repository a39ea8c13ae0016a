//! Everything that exists in the cloud, and how rows are found.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::clock::Clock;
use super::devices::Devices;
use super::error::ApiError;
use super::exchange::Arrived;
use super::faults::{Faults, Late};
use super::jobs::Job;
use super::model::{
    Account, Kind, Machine, MachineSnapshot, Offering, Project, Role, Snapshot, Tag, Volume, VolumeState,
    Zone,
};
use super::options::Options;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    /// Where the content of volumes and snapshots is.
    pub(crate) images: PathBuf,
    pub(crate) domain: Uuid,
    pub(crate) accounts: Vec<Account>,
    pub(crate) projects: Vec<Project>,
    pub(crate) zones: Vec<Zone>,
    pub(crate) offerings: Vec<Offering>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) machine_snapshots: Vec<MachineSnapshot>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) jobs: Vec<Job>,
    /// Trees of machines that are appliances.
    pub(crate) devices: BTreeMap<Uuid, Devices>,
    pub(crate) faults: Faults,
    /// Devices that a guest is about to let go of.
    pub(crate) late: Vec<LateDetach>,
    /// Requests that are still on their way.
    pub(crate) held: Vec<Arrived>,
    /// Requests that arrived, by command.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// A guest that lets go of a device after the detach has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateDetach {
    pub(crate) volume: Uuid,
    pub(crate) machine: Uuid,
    pub(crate) leaves: Late,
    /// The device is gone, the rest is to come.
    pub(crate) is_gone: bool,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) account: Uuid,
    pub(crate) role: Role,
}

impl Caller {
    pub(crate) fn is_admin(&self) -> bool {
        self.role == Role::RootAdmin
    }
}

impl World {
    /// Whether there is, or ever was, such a row.
    pub(crate) fn has(&self, kind: Kind, id: Uuid) -> bool {
        match kind {
            Kind::Account => self.accounts.iter().any(|row| row.id == id),
            Kind::Job => self.jobs.iter().any(|row| row.id == id && !row.purged),
            Kind::Machine => self.machines.iter().any(|row| row.id == id),
            Kind::MachineSnapshot => self.machine_snapshots.iter().any(|row| row.id == id),
            Kind::Offering => self.offerings.iter().any(|row| row.id == id),
            Kind::Project => self.projects.iter().any(|row| row.id == id),
            Kind::Snapshot => self.snapshots.iter().any(|row| row.id == id),
            Kind::Volume => self.volumes.iter().any(|row| row.id == id),
            Kind::Zone => self.zones.iter().any(|row| row.id == id),
        }
    }

    /// A volume that is not removed and that the caller may change.
    pub(crate) fn volume(&self, caller: &Caller, id: Uuid) -> Result<&Volume, ApiError> {
        let found = self.volumes.iter().find(|volume| volume.id == id && !volume.removed);
        let volume = found.ok_or_else(|| {
            ApiError::parameter(format!("Unable to find volume with ID: {id}")).about(id, "volumeId")
        })?;
        self.allow(caller, volume.account)?;
        Ok(volume)
    }

    /// The same, without asking who wants it.
    pub(crate) fn volume_mut(&mut self, id: Uuid) -> &mut Volume {
        self.volumes.iter_mut().find(|volume| volume.id == id).expect("rows are never deleted")
    }

    pub(crate) fn machine(&self, caller: &Caller, id: Uuid) -> Result<&Machine, ApiError> {
        let found = self.machines.iter().find(|machine| machine.id == id);
        let missing = || ApiError::parameter(format!("Unable to find a virtual machine with id {id}"));
        let machine = found.ok_or_else(missing)?;
        self.allow(caller, machine.account)?;
        Ok(machine)
    }

    pub(crate) fn snapshot(&self, caller: &Caller, id: Uuid) -> Result<&Snapshot, ApiError> {
        let found = self.snapshots.iter().find(|snapshot| snapshot.id == id && !snapshot.removed);
        let snapshot = found.ok_or_else(|| {
            ApiError::parameter(format!("unable to find a snapshot with id {id}")).about(id, "snapshotId")
        })?;
        self.allow(caller, snapshot.account)?;
        Ok(snapshot)
    }

    pub(crate) fn machine_snapshot(&self, caller: &Caller, id: Uuid) -> Result<&MachineSnapshot, ApiError> {
        let found = self.machine_snapshots.iter().find(|snapshot| snapshot.id == id && !snapshot.removed);
        let missing = || ApiError::parameter(format!("unable to find the Instance Snapshot with id {id}"));
        let snapshot = found.ok_or_else(missing)?;
        self.allow(caller, snapshot.account)?;
        Ok(snapshot)
    }

    /// An ordinary account sees its own things and those of its projects.
    pub(crate) fn may_see(&self, caller: &Caller, owner: Uuid) -> bool {
        let is_member = |project: &Project| project.members.contains(&caller.account);
        caller.is_admin() || caller.account == owner || self.project_of(owner).is_some_and(is_member)
    }

    /// The project whose account this is.
    pub(crate) fn project_of(&self, account: Uuid) -> Option<&Project> {
        self.projects.iter().find(|project| project.account == account)
    }

    /// `checkAccess`.
    pub(crate) fn allow(&self, caller: &Caller, owner: Uuid) -> Result<(), ApiError> {
        if self.may_see(caller, owner) {
            return Ok(());
        }
        let name = self.account(caller.account).name;
        Err(ApiError::denied(format!("Acct[{name}] does not have permission to operate with resource")))
    }

    /// Name of an account that people log in to; a project's has none.
    pub(crate) fn account_name(&self, id: Uuid) -> Option<&'static str> {
        self.accounts.iter().find(|account| account.id == id).map(|account| account.name)
    }

    pub(crate) fn account(&self, id: Uuid) -> &Account {
        self.accounts.iter().find(|account| account.id == id).expect("accounts are never deleted")
    }

    /// Volumes at a machine.
    pub(crate) fn volumes_at(&self, machine: Uuid) -> impl Iterator<Item = (&Volume, u32)> {
        let at = move |volume: &Volume| {
            volume.attached.filter(|attached| attached.machine == machine).map(|attached| attached.device)
        };
        self.volumes.iter().filter_map(move |volume| Some((volume, at(volume)?)))
    }

    pub(crate) fn has_machine_snapshots(&self, machine: Uuid) -> bool {
        self.machine_snapshots.iter().any(|snapshot| snapshot.machine == machine && !snapshot.removed)
    }

    pub(crate) fn image(&self, id: Uuid) -> PathBuf {
        self.images.join(format!("{id}.raw"))
    }

    /// The volume is gone, its row stays.
    pub(crate) fn expunge(&mut self, id: Uuid) {
        let _ = std::fs::remove_file(self.image(id));
        self.tags.retain(|tag| tag.resource != id);
        let volume = self.volume_mut(id);
        volume.state = VolumeState::Expunged;
        volume.removed = true;
    }

    /// The cloud's records say detached; the device goes from the guest.
    pub(crate) fn detach(&mut self, id: Uuid) {
        let attached = self.volume_mut(id).attached.take();
        self.volume_mut(id).root = false;
        if let Some(devices) = attached.and_then(|attached| self.devices.get_mut(&attached.machine)) {
            devices.remove(id);
        }
    }

    /// What was only late happens.
    pub(crate) fn let_go(&mut self) {
        for late in std::mem::take(&mut self.late) {
            if let Some(devices) = self.devices.get_mut(&late.machine).filter(|_| !late.is_gone) {
                devices.remove(late.volume);
            }
            let volume = self.volume_mut(late.volume);
            let at = volume.attached.map(|attached| attached.machine);
            match late.leaves {
                Late::StillAttached => {}
                Late::Detached => volume.attached = volume.attached.filter(|_| at != Some(late.machine)),
                Late::ForgetsNext if at.is_some_and(|machine| machine != late.machine) => {
                    volume.attached = None;
                }
                Late::ForgetsNext => self.late.push(LateDetach { is_gone: true, ..late }),
            }
        }
    }

    /// Time goes by, and with it the jobs that take time.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.finish_due();
        self.clean_up();
    }
}
