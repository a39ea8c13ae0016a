//! The cloud as it is when it starts: two zones, offerings, three accounts, machines.

use std::collections::BTreeMap;
use std::path::Path;

use uuid::Uuid;

use super::clock::Clock;
use super::commands;
use super::devices::Devices;
use super::faults::Faults;
use super::model::{
    Account, Attachment, Keys, Machine, MachineState, Offering, Project, ProjectState, Role, Volume,
    VolumeState, Zone,
};
use super::options::Options;
use super::world::World;

const ROOT_GIB: u64 = 2;

pub(crate) fn world(options: Options, folder: &Path) -> World {
    let images = folder.join("images");
    std::fs::create_dir_all(&images).unwrap();
    let accounts =
        vec![account("admin", Role::RootAdmin), account("user", Role::User), account("other", Role::User)];
    World {
        clock: if options.running_clock { Clock::running() } else { Clock::stopped() },
        options,
        images,
        domain: Uuid::new_v4(),
        projects: vec![project("migration", accounts[1].id), project("finance", accounts[2].id)],
        accounts,
        zones: vec![zone("zone-1", true), zone("zone-2", true), zone("closed", false)],
        offerings: offerings(),
        machines: Vec::new(),
        volumes: Vec::new(),
        snapshots: Vec::new(),
        machine_snapshots: Vec::new(),
        tags: Vec::new(),
        jobs: Vec::new(),
        devices: BTreeMap::new(),
        faults: Faults::default(),
        late: Vec::new(),
        held: Vec::new(),
        calls: BTreeMap::new(),
    }
}

fn account(name: &'static str, role: Role) -> Account {
    // Keys of a real server have 86 characters of this alphabet.
    let random = || format!("{}-{}_x", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let keys = Keys { key: random(), secret: random() };
    Account { id: Uuid::new_v4(), user: Uuid::new_v4(), name, role, keys, enabled: true }
}

fn project(name: &'static str, member: Uuid) -> Project {
    let (id, account) = (Uuid::new_v4(), Uuid::new_v4());
    Project { id, account, name, state: ProjectState::Active, members: vec![member] }
}

fn zone(name: &'static str, enabled: bool) -> Zone {
    Zone { id: Uuid::new_v4(), name, enabled }
}

fn offerings() -> Vec<Offering> {
    let custom = |name| Offering {
        id: Uuid::new_v4(),
        name,
        gib: None,
        active: true,
        strict: false,
        encrypted: false,
    };
    vec![
        custom("Custom"),
        Offering { gib: Some(5), ..custom("Small") },
        Offering { strict: true, ..custom("Strict") },
        Offering { encrypted: true, ..custom("Encrypted") },
        Offering { active: false, ..custom("Retired") },
    ]
}

impl World {
    /// A machine with its root volume; an appliance also with a tree of devices.
    pub(crate) fn add_machine(&mut self, name: &str, account: Uuid, zone: Uuid, tree: Option<&Path>) -> Uuid {
        let (id, created) = (Uuid::new_v4(), self.clock.now());
        let state = MachineState::Running;
        self.machines.push(Machine { id, account, zone, name: name.to_owned(), state, created });
        if let Some(root) = tree {
            self.devices.insert(id, Devices::new(root.to_owned(), self.options.backing, self.options.bus));
        }
        let root = Volume {
            id: Uuid::new_v4(),
            account,
            zone,
            name: format!("ROOT-{name}"),
            root: true,
            bytes: ROOT_GIB << 30,
            offering: self.offerings[0].id,
            state: VolumeState::Allocated,
            attached: None,
            pooled: false,
            protected: false,
            snapshot: None,
            created,
            removed: false,
        };
        let volume = root.id;
        self.volumes.push(root);
        commands::put(self, volume, Attachment { machine: id, device: 0, since: created });
        id
    }
}
