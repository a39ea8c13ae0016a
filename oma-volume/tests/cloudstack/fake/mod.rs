//! A CloudStack of its own in this process, strict on purpose: see the README beside it.
//!
//! ```text
//!  request ─▶ server ─▶ exchange: faults, signature ─▶ commands: parameters, rights ─▶ world
//!                                                       └─▶ jobs: a queue per machine ─┘ └─▶ devices: sys, dev of the appliance
//! ```

mod answer;
mod clock;
mod commands;
mod devices;
mod error;
mod exchange;
pub(crate) mod expiry;
mod faults;
mod jobs;
mod model;
mod options;
pub(crate) mod params;
mod server;
mod setup;
pub(crate) mod signature;
mod world;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use answer::Reply;
use commands::{Call, dispatch, find, root};
pub(crate) use devices::{Backing, Bus, Wrong, serial};
pub(crate) use error::ApiError;
pub(crate) use faults::{Late, What};
pub(crate) use model::{Keys, Tag, Volume, VolumeState};
use model::{Kind, Machine, ProjectState};
pub(crate) use options::{Options, Pace};
use params::Params;
use world::World;

/// A cloud with one zone to use, one appliance, and accounts; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Fake {
    /// `http://127.0.0.1:PORT/client/api`
    pub(crate) url: String,
    /// The root administrator.
    pub(crate) admin: Keys,
    /// An ordinary account, to which the appliance belongs.
    pub(crate) user: Keys,
    /// Another ordinary account.
    pub(crate) other: Keys,
    pub(crate) zone: Uuid,
    /// The disk offering whose size the caller says.
    pub(crate) offering: Uuid,
    /// The running machine whose devices are in `devices`.
    pub(crate) appliance: Uuid,
    /// The root of the appliance's `sys`, `dev` and `proc`.
    pub(crate) devices: PathBuf,
    world: Arc<Mutex<World>>,
    server: JoinHandle<()>,
    folder: TempDir,
}

impl Fake {
    pub(crate) async fn start(options: Options) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await.unwrap();
        let url = format!("http://{}{}", listener.local_addr().unwrap(), server::PATH);
        let mut world = setup::world(options, folder.path());
        let (zone, user, other) = (world.zones[0].id, world.accounts[1].id, world.accounts[2].id);
        let devices = folder.path().join("appliance");
        let appliance = world.add_machine("appliance", user, zone, Some(&devices));
        world.add_machine("web01", user, zone, None);
        world.add_machine("db01", other, zone, None);
        let keys: Vec<_> = world.accounts.iter().map(|account| account.keys.clone()).collect();
        let [admin, user, other] = keys.try_into().expect("three accounts");
        let offering = world.offerings[0].id;
        let world = Arc::new(Mutex::new(world));
        let server = tokio::spawn(server::serve(listener, world.clone()));
        Self { url, admin, user, other, zone, offering, appliance, devices, world, server, folder }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Another appliance of the ordinary account: its machine, and the root of its devices.
    pub(crate) fn add_appliance(&self, name: &str) -> (Uuid, PathBuf) {
        let root = self.folder.path().join(name);
        let mut world = self.world();
        let user = world.accounts[1].id;
        (world.add_machine(name, user, self.zone, Some(&root)), root)
    }

    /// The ordinary account is disabled, or enabled again.
    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.world().accounts[1].enabled = enabled;
    }

    /// A volume comes to belong to the other account, as an administrator's `assignVolume` does it.
    pub(crate) fn give_away(&self, id: Uuid) {
        let mut world = self.world();
        let other = world.accounts[2].id;
        world.volume_mut(id).account = other;
    }

    /// A volume comes to belong to the project of the ordinary account.
    pub(crate) fn move_to_project(&self, id: Uuid) {
        let mut world = self.world();
        let account = world.projects[0].account;
        world.volume_mut(id).account = account;
    }

    /// A volume comes to belong to the ordinary account.
    pub(crate) fn take_from_project(&self, id: Uuid) {
        let mut world = self.world();
        let account = world.accounts[1].id;
        world.volume_mut(id).account = account;
    }

    /// The appliance and its volumes come to belong to the project of the ordinary account.
    pub(crate) fn move_appliance_to_project(&self) {
        let mut world = self.world();
        let account = world.projects[0].account;
        let is_it = |machine: &&mut Machine| machine.id == self.appliance;
        world.machines.iter_mut().filter(is_it).for_each(|machine| machine.account = account);
        let is_there = |volume: &&mut Volume| volume.attached.is_some_and(|at| at.machine == self.appliance);
        world.volumes.iter_mut().filter(is_there).for_each(|volume| volume.account = account);
    }

    /// The project of the ordinary account is suspended.
    pub(crate) fn suspend_project(&self) {
        self.world().projects[0].state = ProjectState::Suspended;
    }

    /// The project of this name, of those in `setup`.
    pub(crate) fn project_of(&self, name: &str) -> Uuid {
        self.world().projects.iter().find(|project| project.name == name).expect("a project").id
    }

    /// A second volume of the same account and size, whose id begins with the same 20 digits and differs in the last one.
    pub(crate) fn add_twin(&self, of: Uuid) -> Uuid {
        let mut world = self.world();
        let first = world.volume_mut(of).clone();
        let id = Uuid::from_u128(of.as_u128() ^ 1);
        assert!(!world.has(Kind::Volume, id), "it has one already");
        let state = VolumeState::Allocated;
        world.volumes.push(Volume {
            id,
            name: "twin".to_owned(),
            state,
            attached: None,
            pooled: false,
            ..first
        });
        id
    }

    /// Volumes that are not removed, the oldest first, those of machines' systems among them.
    pub(crate) fn volumes(&self) -> Vec<Volume> {
        self.world().volumes.iter().filter(|volume| !volume.removed).cloned().collect()
    }

    /// Volumes that are not removed and are no machine's system.
    pub(crate) fn data_volumes(&self) -> Vec<Volume> {
        self.volumes().into_iter().filter(|volume| !volume.root).collect()
    }

    pub(crate) fn volume(&self, id: Uuid) -> Option<Volume> {
        self.volumes().into_iter().find(|volume| volume.id == id)
    }

    /// The disk offering of this name, of those in `setup`.
    pub(crate) fn offering_of(&self, name: &str) -> Uuid {
        let world = self.world();
        world.offerings.iter().find(|offering| offering.name == name).expect("an offering").id
    }

    /// The machine of this name.
    pub(crate) fn machine_of(&self, name: &str) -> Uuid {
        self.world().machines.iter().find(|machine| machine.name == name).expect("a machine").id
    }

    pub(crate) fn tags(&self) -> Vec<Tag> {
        self.world().tags.clone()
    }

    /// What is at a machine: the volume and its device number.
    pub(crate) fn attached(&self, machine: Uuid) -> Vec<(Uuid, u32)> {
        self.world().volumes_at(machine).map(|(volume, device)| (volume.id, device)).collect()
    }

    /// The name of a volume's device at the appliance, such as `vdb`.
    pub(crate) fn device(&self, volume: Uuid) -> Option<String> {
        self.world().devices[&self.appliance].name(volume)
    }

    /// The file of a volume's content.
    pub(crate) fn content(&self, volume: Uuid) -> PathBuf {
        self.world().image(volume)
    }

    /// How many requests of a command arrived since the counts were last taken.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        self.world().calls.get(command).copied().unwrap_or_default()
    }

    /// All requests since the counts were last taken.
    pub(crate) fn all_calls(&self) -> u64 {
        self.world().calls.values().sum()
    }

    /// All requests since the counts were last taken, which starts them anew.
    pub(crate) fn take_calls(&self) -> u64 {
        std::mem::take(&mut self.world().calls).into_values().sum()
    }

    /// The next `times` calls of the command go wrong, after `skip` that do not.
    pub(crate) fn fault(&self, command: &'static str, skip: u32, times: u32, what: What) {
        self.world().faults.plan(Some(command), skip, times, what);
    }

    /// The next `times` calls of any command go wrong.
    pub(crate) fn fault_any(&self, times: u32, what: What) {
        self.world().faults.plan(None, 0, times, what);
    }

    /// Of a thousand answers so many are lost, after their commands were done; 0 ends it.
    pub(crate) fn lose_per_mille(&self, rate: u64, seed: u64) {
        self.world().faults.lose_per_mille(rate, seed);
    }

    /// Time goes by.
    pub(crate) fn advance(&self, by: Duration) {
        self.world().advance(by);
    }

    /// The oldest job at work comes to its end; its id.
    pub(crate) fn step(&self) -> Option<Uuid> {
        self.world().step()
    }

    /// Requests that were held up arrive at last, in their order: whether each one was let in.
    pub(crate) fn deliver(&self) -> Vec<bool> {
        self.world().deliver()
    }

    /// The management server restarts: jobs fail without a result; `done` says whether they were carried out all the same.
    pub(crate) fn restart(&self, done: bool) {
        self.world().restart(done);
    }

    /// The oldest job at work comes to its end and its record expires, before anybody could ask about it.
    pub(crate) fn step_and_expire(&self) {
        let mut world = self.world();
        world.step().expect("one is at work");
        world.purge_jobs();
    }

    /// Records of jobs that ended expire.
    pub(crate) fn expire_jobs(&self) {
        self.world().purge_jobs();
    }

    /// What an administrator does by hand: past signatures, faults and counts, jobs to their end. The result, or that of the job.
    pub(crate) fn operate(&self, command: &str, params: &[(&str, &str)]) -> Result<Value, ApiError> {
        let mut world = self.world();
        let call = Call { caller: root(&world), params: Params::of(params) };
        let reply = dispatch(&mut world, find(command).expect("a command"), call)?;
        let job = match &reply {
            Reply::Job(job) | Reply::Created { job, .. } => *job,
            Reply::List { .. } | Reply::Object(..) | Reply::Bare(_) | Reply::Success => {
                return Ok(reply.body());
            }
        };
        world.complete(job)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
        // Before the folder goes: a task that ends later may be the last to have the world.
        self.world.lock().unwrap_or_else(PoisonError::into_inner).devices.clear();
    }
}
