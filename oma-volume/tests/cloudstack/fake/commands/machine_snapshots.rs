//! Snapshots of machines, whose existence keeps volumes where they are.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::clock;
use super::super::error::ApiError;
use super::super::model::{Kind, MachineSnapshot};
use super::super::world::World;
use super::jobs::success;
use super::listing::{is_equal, is_shown, paged};
use super::{Answered, Body, Call, Command, Outcome, Target, Type, param, text, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "listVMSnapshot",
        "user.vmsnapshot.ListVMSnapshotCmd",
        Body::Sync(list),
        &[
            uuid("vmsnapshotid", Kind::MachineSnapshot),
            uuid("virtualmachineid", Kind::Machine),
            text("name"),
            text("state"),
            param("listall", Type::Boolean),
            param("projectid", Type::Project),
        ],
    ),
    Command::new(
        "createVMSnapshot",
        "user.vmsnapshot.CreateVMSnapshotCmd",
        Body::Create { make, run: take },
        &[
            uuid("virtualmachineid", Kind::Machine).required(),
            text("name"),
            text("description"),
            param("snapshotmemory", Type::Boolean),
            param("quiescevm", Type::Boolean),
        ],
    ),
    Command::new(
        "deleteVMSnapshot",
        "user.vmsnapshot.DeleteVMSnapshotCmd",
        Body::Async { target, run: delete },
        &[uuid("vmsnapshotid", Kind::MachineSnapshot).required()],
    ),
];

/// `vmsnapshot.max`.
const MOST: usize = 10;

fn view(row: &MachineSnapshot) -> Value {
    json!({
        "id": row.id, "name": row.name, "displayname": row.name, "state": row.state,
        "virtualmachineid": row.machine, "type": if row.memory { "DiskAndMemory" } else { "Disk" },
        "created": clock::text(row.created), "current": true,
    })
}

fn list(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    let seen = world.machine_snapshots.iter().rev().filter(|row| {
        !row.removed
            && is_shown(world, call, row.account)
            && is_equal(params, "vmsnapshotid", &row.id.to_string())
            && is_equal(params, "virtualmachineid", &row.machine.to_string())
            && is_equal(params, "name", &row.name)
            && is_equal(params, "state", row.state)
    });
    let rows = seen.map(view).collect();
    paged(world, call, "vmSnapshot", rows)
}

fn make(world: &mut World, call: &Call) -> Result<Target, ApiError> {
    let machine = world.machine(&call.caller, call.params.id("virtualmachineid"))?;
    let (machine, account) = (machine.id, machine.account);
    let has: Vec<_> =
        world.machine_snapshots.iter().filter(|row| row.machine == machine && !row.removed).collect();
    let id = Uuid::new_v4();
    let name = call.params.text("name").map_or_else(|| format!("i-{}", id.simple()), str::to_owned);
    if has.iter().any(|row| row.name == name) {
        return Err(ApiError::parameter(format!(
            "Creating VM snapshot failed due to VM snapshot with name {name} already exists"
        )));
    }
    if has.len() >= MOST {
        return Err(ApiError::runtime(format!(
            "Creating Instance Snapshot failed due to a Instance can just have : {MOST} Instance Snapshots. Please delete old ones"
        )));
    }
    let memory = call.params.flag("snapshotmemory");
    let created = world.clock.now();
    world.machine_snapshots.push(MachineSnapshot {
        id,
        account,
        machine,
        name,
        memory,
        state: "Allocated",
        created,
        removed: false,
    });
    Ok(Target::new("VMSnapshot", id, Some(machine)))
}

fn take(world: &mut World, _: &Call, id: Uuid) -> Outcome {
    let row = world.machine_snapshots.iter_mut().find(|row| row.id == id).expect("its row was made");
    row.state = "Ready";
    Ok(json!({"vmsnapshot": view(row)}))
}

fn target(world: &World, call: &Call) -> Result<Target, ApiError> {
    let row = world.machine_snapshot(&call.caller, call.params.id("vmsnapshotid"))?;
    Ok(Target::new("VMSnapshot", row.id, Some(row.machine)))
}

fn delete(world: &mut World, call: &Call) -> Outcome {
    let id = target(world, call)?.id;
    let row = world.machine_snapshots.iter_mut().find(|row| row.id == id).expect("it was found");
    row.removed = true;
    success()
}
