//! Virtual machines: list, start, stop.

use serde_json::{Value, json};

use super::super::clock;
use super::super::error::ApiError;
use super::super::model::{Kind, Machine, MachineState};
use super::super::world::World;
use super::listing::{is_asked_for, is_equal, is_like, is_shown, paged};
use super::tags::{is_tagged, tags_of};
use super::{Answered, Body, Call, Command, Outcome, Target, Type, param, text, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "listVirtualMachines",
        "user.vm.ListVMsCmd",
        Body::Sync(list),
        &[
            uuid("id", Kind::Machine),
            param("ids", Type::Uuids(Kind::Machine)).since("4.4"),
            text("name"),
            text("state"),
            uuid("zoneid", Kind::Zone),
            param("details", Type::List),
            param("tags", Type::Map),
            param("listall", Type::Boolean),
            param("projectid", Type::Project),
        ],
    ),
    Command::new(
        "startVirtualMachine",
        "user.vm.StartVMCmd",
        Body::Async { target: to_start, run: start },
        &[uuid("id", Kind::Machine).required()],
    ),
    Command::new(
        "stopVirtualMachine",
        "user.vm.StopVMCmd",
        Body::Async { target, run: stop },
        &[uuid("id", Kind::Machine).required(), param("forced", Type::Boolean)],
    ),
];

fn view(world: &World, row: &Machine) -> Value {
    let zone = world.zones.iter().find(|zone| zone.id == row.zone).map(|zone| zone.name);
    json!({
        "id": row.id, "name": row.name, "displayname": row.name, "state": format!("{:?}", row.state),
        "account": world.account_name(row.account),
        "projectid": world.project_of(row.account).map(|project| project.id), "domainid": world.domain, "domain": "ROOT",
        "zoneid": row.zone, "zonename": zone, "hypervisor": "KVM", "created": clock::text(row.created),
        "rootdeviceid": 0, "rootdevicetype": "ROOT", "haenable": false, "nic": [],
        "tags": tags_of(world, row.id),
    })
}

fn list(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    let is_wanted = |world: &World, row: &Machine| {
        is_shown(world, call, row.account)
            && is_asked_for(params, row.id)
            && is_equal(params, "name", &row.name)
            && is_like(params, &row.name)
            && is_equal(params, "zoneid", &row.zone.to_string())
            && (is_equal(params, "state", &format!("{:?}", row.state))
                || params.text("state") == Some("Present"))
            && is_tagged(world, call, row.id)
    };
    let ids: Vec<_> = world.machines.iter().filter(|row| is_wanted(world, row)).map(|row| row.id).collect();
    world.ask_about(&ids);
    let seen = world.machines.iter().rev().filter(|row| is_wanted(world, row));
    let rows = seen.map(|row| view(world, row)).collect();
    paged(world, call, "virtualmachine", rows)
}

fn target(world: &World, call: &Call) -> Result<Target, ApiError> {
    let row = world.machine(&call.caller, call.params.id("id"))?;
    Ok(Target::new("VirtualMachine", row.id, Some(row.id)))
}

fn to_start(world: &World, call: &Call) -> Result<Target, ApiError> {
    let row = world.machine(&call.caller, call.params.id("id"))?;
    if row.state == MachineState::Running {
        return Err(ApiError::parameter(format!("The virtual machine {} is already running", row.name)));
    }
    if !world.volumes_at(row.id).any(|(volume, _)| volume.root) {
        return Err(ApiError::runtime(format!("ROOT volume is missing for VM {}", row.name)));
    }
    target(world, call)
}

fn start(world: &mut World, call: &Call) -> Outcome {
    to_start(world, call)?;
    turn(world, call, MachineState::Running)
}

fn stop(world: &mut World, call: &Call) -> Outcome {
    target(world, call)?;
    turn(world, call, MachineState::Stopped)
}

fn turn(world: &mut World, call: &Call, state: MachineState) -> Outcome {
    let id = call.params.id("id");
    let index = world.machines.iter().position(|row| row.id == id).expect("it was found");
    world.machines[index].state = state;
    Ok(json!({"virtualmachine": view(world, &world.machines[index])}))
}
