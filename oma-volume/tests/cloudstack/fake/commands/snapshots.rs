//! Snapshots of volumes.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::clock;
use super::super::devices;
use super::super::error::ApiError;
use super::super::model::{Kind, MachineState, Snapshot, VolumeState};
use super::super::world::World;
use super::jobs::success;
use super::listing::{is_asked_for, is_equal, is_like, is_shown, paged};
use super::tags::{is_tagged, tags_of};
use super::{Answered, Body, Call, Command, Outcome, Target, Type, param, text, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "listSnapshots",
        "user.snapshot.ListSnapshotsCmd",
        Body::Sync(list),
        &[
            uuid("id", Kind::Snapshot),
            param("ids", Type::Uuids(Kind::Snapshot)).since("4.9"),
            uuid("volumeid", Kind::Volume),
            text("name"),
            param("tags", Type::Map),
            param("listall", Type::Boolean),
            param("projectid", Type::Project),
        ],
    ),
    Command {
        transition: Some(VolumeState::Snapshotting),
        ..Command::new(
            "createSnapshot",
            "user.snapshot.CreateSnapshotCmd",
            Body::Create { make, run: take },
            &[
                uuid("volumeid", Kind::Volume).required(),
                text("name"),
                param("quiescevm", Type::Boolean),
                param("asyncbackup", Type::Boolean),
                param("tags", Type::Map),
            ],
        )
    },
    Command::new(
        "deleteSnapshot",
        "user.snapshot.DeleteSnapshotCmd",
        Body::Async { target, run: delete },
        &[uuid("id", Kind::Snapshot).required()],
    ),
    Command::new(
        "revertSnapshot",
        "user.snapshot.RevertSnapshotCmd",
        Body::Async { target: to_revert, run: revert },
        &[uuid("id", Kind::Snapshot).required()],
    ),
];

fn view(world: &World, row: &Snapshot) -> Value {
    json!({
        "id": row.id, "name": row.name, "volumeid": row.volume, "state": row.state, "snapshottype": "MANUAL",
        "intervaltype": "MANUAL", "account": world.account_name(row.account), "domainid": world.domain,
        "created": clock::text(row.created), "virtualsize": row.bytes, "physicalsize": row.bytes,
        "locationtype": "SECONDARY", "revertable": true, "tags": tags_of(world, row.id),
    })
}

fn list(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    // Of a volume that is removed nobody is asked whose it was.
    let volume = params.uuid("volumeid");
    if let Some(volume) = world.volumes.iter().find(|row| Some(row.id) == volume && !row.removed) {
        world.allow(&call.caller, volume.account)?;
    }
    let wanted = |row: &&Snapshot| {
        !row.removed
            && is_shown(world, call, row.account)
            && is_asked_for(params, row.id)
            && is_equal(params, "volumeid", &row.volume.to_string())
            && is_equal(params, "name", &row.name)
            && is_like(params, &row.name)
            && is_tagged(world, call, row.id)
    };
    let ids: Vec<_> = world.snapshots.iter().filter(wanted).map(|row| row.id).collect();
    world.ask_about(&ids);
    let seen = world.snapshots.iter().rev().filter(|row| ids.contains(&row.id) && !row.removed);
    let rows = seen.map(|row| view(world, row)).collect();
    paged(world, call, "snapshot", rows)
}

fn make(world: &mut World, call: &Call) -> Result<Target, ApiError> {
    let volume = world.volume(&call.caller, call.params.id("volumeid"))?.clone();
    if !volume.pooled {
        let text = format!(
            "VolumeId: {} please attach this volume to a VM before create snapshot for it",
            volume.id
        );
        return Err(ApiError::parameter(text));
    }
    if volume.state != VolumeState::Ready {
        let text = format!(
            "VolumeId: {} is not in Ready state but {:?}. Cannot take snapshot.",
            volume.id, volume.state
        );
        return Err(ApiError::parameter(text));
    }
    let running = volume.attached.is_some_and(|attached| {
        world.machines.iter().any(|row| row.id == attached.machine && row.state == MachineState::Running)
    });
    if running && !world.options.kvm_snapshots {
        return Err(ApiError::parameter("KVM Snapshot is not supported: kvm.snapshot.enabled is false"));
    }
    let (id, created) = (Uuid::new_v4(), world.clock.now());
    let stamp = clock::text(created).replace(['-', ':', 'T'], "");
    let name = call.params.text("name").filter(|name| !name.is_empty());
    let name = name.map_or_else(|| format!("{}_{stamp}", volume.name), str::to_owned);
    world.snapshots.push(Snapshot {
        id,
        account: volume.account,
        volume: volume.id,
        name,
        bytes: volume.bytes,
        state: "Allocated",
        created,
        removed: false,
    });
    world.add_tags("Snapshot", &[id], call);
    Ok(Target::new("Snapshot", id, volume.attached.map(|attached| attached.machine)).showing(volume.id))
}

fn take(world: &mut World, call: &Call, id: Uuid) -> Outcome {
    let volume = world.volume(&call.caller, call.params.id("volumeid"))?.id;
    devices::copy(&world.image(volume), &world.image(id));
    let index = world.snapshots.iter().position(|row| row.id == id).expect("its row was made");
    world.snapshots[index].state = "BackedUp";
    Ok(json!({"snapshot": view(world, &world.snapshots[index])}))
}

fn target(world: &World, call: &Call) -> Result<Target, ApiError> {
    let row = world.snapshot(&call.caller, call.params.id("id"))?;
    Ok(Target::new("Snapshot", row.id, None))
}

fn delete(world: &mut World, call: &Call) -> Outcome {
    let id = target(world, call)?.id;
    let row = world.snapshots.iter_mut().find(|row| row.id == id).expect("it was found");
    row.removed = true;
    row.state = "Destroyed";
    world.tags.retain(|tag| tag.resource != id);
    let _ = std::fs::remove_file(world.image(id));
    success()
}

fn to_revert(world: &World, call: &Call) -> Result<Target, ApiError> {
    let row = world.snapshot(&call.caller, call.params.id("id"))?;
    let volume = world.volume(&call.caller, row.volume)?;
    if row.state != "BackedUp" || volume.state != VolumeState::Ready {
        return Err(ApiError::parameter("Snapshot and volume must be ready to revert"));
    }
    if let Some(attached) = volume.attached {
        let machine = world.machine(&call.caller, attached.machine)?;
        if machine.state != MachineState::Stopped {
            let text = "The VM the specified disk is attached to is not in the shutdown state.";
            return Err(ApiError::parameter(text));
        }
        if world.has_machine_snapshots(machine.id) {
            return Err(ApiError::parameter("Unable to revert: the VM has VM snapshots"));
        }
    }
    Ok(Target::new("Snapshot", row.id, volume.attached.map(|attached| attached.machine)))
}

/// The device of an attached volume keeps its file.
fn revert(world: &mut World, call: &Call) -> Outcome {
    let id = to_revert(world, call)?.id;
    let row = world.snapshot(&call.caller, id)?.clone();
    devices::overwrite(&world.image(id), &world.image(row.volume));
    Ok(json!({"snapshot": view(world, &row)}))
}
