//! Volumes: list, create, update.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::clock;
use super::super::devices;
use super::super::error::ApiError;
use super::super::model::{Kind, Offering, ProjectState, Snapshot, Volume, VolumeState};
use super::super::params::parse_custom;
use super::super::world::World;
use super::capabilities::LARGEST_GIB;
use super::listing::{is_asked_for, is_equal, is_like, is_shown, paged};
use super::tags::{is_tagged, tags_of};
use super::{Answered, Body, Call, Command, Outcome, Target, Type, param, text, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "listVolumes",
        "user.volume.ListVolumesCmd",
        Body::Sync(list),
        &[
            uuid("id", Kind::Volume),
            param("ids", Type::Uuids(Kind::Volume)).since("4.9"),
            text("name"),
            uuid("virtualmachineid", Kind::Machine),
            text("type"),
            uuid("zoneid", Kind::Zone),
            text("state"),
            uuid("diskofferingid", Kind::Offering).since("4.4"),
            param("tags", Type::Map),
            param("listall", Type::Boolean),
            param("projectid", Type::Project),
        ],
    ),
    Command::new(
        "createVolume",
        "user.volume.CreateVolumeCmd",
        Body::Create { make, run: made },
        &[
            uuid("zoneid", Kind::Zone),
            text("name"),
            uuid("diskofferingid", Kind::Offering),
            uuid("snapshotid", Kind::Snapshot),
            param("size", Type::Long),
            text("customid"),
            param("projectid", Type::Project),
        ],
    ),
    Command::new(
        "updateVolume",
        "user.volume.UpdateVolumeCmd",
        Body::Async { target: to_update, run: update },
        &[
            uuid("id", Kind::Volume),
            text("name").since("4.16"),
            param("deleteprotection", Type::Boolean).since("4.20.0"),
        ],
    ),
];

/// The volume of the parameter `id`, in the queue of the machine that it is attached to.
pub(super) fn target_volume(world: &World, call: &Call) -> Result<Target, ApiError> {
    let volume = world.volume(&call.caller, call.params.id("id"))?;
    Ok(Target::new("Volume", volume.id, volume.attached.map(|attached| attached.machine)))
}

/// A volume as answers show it.
pub(super) fn view(world: &World, volume: &Volume) -> Value {
    let machine =
        volume.attached.and_then(|at| world.machines.iter().find(|machine| machine.id == at.machine));
    let zone = world.zones.iter().find(|zone| zone.id == volume.zone).map(|zone| zone.name);
    let job = world.jobs.iter().rev().find(|job| job.is_live() && job.is_about(volume.id)).map(|job| job.id);
    json!({
        "jobid": job, "jobstatus": job.map(|_| 0),
        "id": volume.id, "name": volume.name, "type": if volume.root { "ROOT" } else { "DATADISK" },
        "state": format!("{:?}", volume.state), "size": volume.bytes, "zoneid": volume.zone, "zonename": zone,
        "diskofferingid": volume.offering, "account": world.account_name(volume.account),
        "projectid": world.project_of(volume.account).map(|project| project.id),
        "project": world.project_of(volume.account).map(|project| project.name),
        "domainid": world.domain, "domain": "ROOT", "provisioningtype": "thin", "isextractable": true,
        "hypervisor": if volume.pooled { "KVM" } else { "None" },
        "storage": volume.pooled.then_some("primary"), "storagetype": "shared",
        "snapshotid": volume.snapshot,
        "created": clock::text(volume.created), "deleteprotection": volume.protected,
        "virtualmachineid": machine.map(|machine| machine.id), "vmname": machine.map(|machine| &machine.name),
        "vmstate": machine.map(|machine| format!("{:?}", machine.state)),
        "deviceid": volume.attached.map(|attached| attached.device),
        "attached": volume.attached.map(|attached| clock::text(attached.since)),
        "tags": tags_of(world, volume.id), "supportsstoragesnapshot": false,
    })
}

pub(super) fn shown(world: &World, id: Uuid) -> Value {
    let volume = world.volumes.iter().find(|volume| volume.id == id).expect("rows are never deleted");
    json!({"volume": view(world, volume)})
}

/// The newest first.
fn list(world: &mut World, call: &Call) -> Answered {
    let wanted: Vec<_> =
        world.volumes.iter().rev().filter(|row| is_wanted(world, call, row)).map(|row| row.id).collect();
    world.ask_about(&wanted);
    // What was asked about may have changed meanwhile.
    let rows = world.volumes.iter().rev().filter(|row| is_wanted(world, call, row));
    let rows = rows.map(|row| view(world, row)).collect();
    paged(world, call, "volume", rows)
}

fn is_wanted(world: &World, call: &Call, volume: &Volume) -> bool {
    let params = &call.params;
    let kind = if volume.root { "ROOT" } else { "DATADISK" };
    let at = volume.attached.map(|attached| attached.machine.to_string()).unwrap_or_default();
    !volume.removed
        && is_shown(world, call, volume.account)
        && is_asked_for(params, volume.id)
        && is_equal(params, "name", &volume.name)
        && is_like(params, &volume.name)
        && is_equal(params, "virtualmachineid", &at)
        && is_equal(params, "type", kind)
        && is_equal(params, "zoneid", &volume.zone.to_string())
        && is_equal(params, "diskofferingid", &volume.offering.to_string())
        && is_equal(params, "state", &format!("{:?}", volume.state))
        && is_tagged(world, call, volume.id)
}

/// The row. Without a snapshot there is nothing else of a new volume until it is attached.
fn make(world: &mut World, call: &Call) -> Result<Target, ApiError> {
    let params = &call.params;
    let snapshot =
        params.uuid("snapshotid").map(|id| world.snapshot(&call.caller, id).cloned()).transpose()?;
    let (offering, bytes) = size(world, call, snapshot.as_ref())?;
    let zone = params.uuid("zoneid").or_else(|| snapshot.as_ref().map(|_| world.zones[0].id));
    let zone = zone.ok_or_else(|| ApiError::parameter("Please specify a valid zone Id"))?;
    let enabled = world.zones.iter().any(|row| row.id == zone && row.enabled);
    if !enabled && !call.caller.is_admin() {
        return Err(ApiError::denied(format!(
            "Cannot perform this operation, Zone is currently disabled: {zone}"
        )));
    }
    let owner = owner(world, call)?;
    check_quota(world, call, owner, bytes, 1)?;
    let id = custom_id(world, call)?;
    let name = params.text("name").filter(|name| !name.trim().is_empty());
    let volume = Volume {
        id,
        account: owner,
        zone,
        name: name.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned),
        root: false,
        bytes,
        offering,
        state: if snapshot.is_some() { VolumeState::Creating } else { VolumeState::Allocated },
        attached: None,
        pooled: false,
        protected: false,
        snapshot: snapshot.map(|snapshot| snapshot.id),
        created: world.clock.now(),
        removed: false,
    };
    world.volumes.push(volume);
    Ok(Target::new("Volume", id, None))
}

/// Whose a new volume is: the project's, while that is active, or the caller's.
fn owner(world: &World, call: &Call) -> Result<Uuid, ApiError> {
    let asked = call.params.uuid("projectid");
    match world.projects.iter().find(|project| Some(project.id) == asked) {
        None => Ok(call.caller.account),
        Some(project) if project.state == ProjectState::Active => Ok(project.account),
        Some(project) => Err(ApiError::denied(format!(
            "Can't add resources to the project with specified projectId in state={:?} as it's no longer active",
            project.state
        ))),
    }
}

/// The job of a creation: the content of the snapshot, if it is made of one.
fn made(world: &mut World, _: &Call, id: Uuid) -> Outcome {
    let volume = world.volume_mut(id);
    if let Some(snapshot) = volume.snapshot {
        volume.state = VolumeState::Ready;
        volume.pooled = true;
        let bytes = volume.bytes;
        devices::copy(&world.image(snapshot), &world.image(id));
        devices::image(&world.image(id), bytes);
    }
    Ok(shown(world, id))
}

/// Offering and size in bytes.
fn size(world: &World, call: &Call, snapshot: Option<&Snapshot>) -> Result<(Uuid, u64), ApiError> {
    let asked = call.params.integer("size");
    let offering = call.params.uuid("diskofferingid");
    if let (None, Some(snapshot)) = (offering, snapshot) {
        let of = world.volumes.iter().find(|volume| volume.id == snapshot.volume);
        return Ok((of.expect("rows are never deleted").offering, snapshot.bytes));
    }
    let offering = offering
        .and_then(|id| world.offerings.iter().find(|offering| offering.id == id && offering.active))
        .ok_or_else(|| ApiError::parameter("Please specify a valid disk offering."))?;
    let gib = asked_gib(offering, asked)?;
    Ok((offering.id, gib << 30))
}

fn asked_gib(offering: &Offering, asked: Option<i64>) -> Result<u64, ApiError> {
    match (offering.gib, asked) {
        (Some(gib), None) => Ok(gib),
        (Some(_), Some(_)) => Err(ApiError::parameter("This disk offering does not allow custom size")),
        (None, None) => Err(ApiError::parameter("This disk offering requires a custom size specified")),
        (None, Some(gib)) => checked_gib(gib),
    }
}

/// A size within the limits of the cloud.
pub(super) fn checked_gib(gib: i64) -> Result<u64, ApiError> {
    let text = format!("Volume size: {gib} GB is out of allowed range. Min: 1. Max: {LARGEST_GIB}");
    let fits = (1..=LARGEST_GIB).contains(&gib);
    u64::try_from(gib).ok().filter(|_| fits).ok_or(ApiError::parameter(text))
}

/// Whether so many more bytes and volumes are within the quota of the account.
pub(super) fn check_quota(
    world: &World,
    call: &Call,
    account: Uuid,
    bytes: u64,
    volumes: u64,
) -> Result<(), ApiError> {
    if call.caller.is_admin() {
        return Ok(());
    }
    let has = world.volumes.iter().filter(|volume| volume.account == account && !volume.removed);
    let (count, sum) = has.fold((0, 0), |(count, sum), volume| (count + 1, sum + volume.bytes));
    let over = |what: &str| {
        let name = world.account_name(account).unwrap_or("a project");
        Err(ApiError::quota(format!(
            "Maximum amount of resources of Type = '{what}' for Account Name = '{name}' in Domain is exceeded."
        )))
    };
    if world.options.max_volumes.is_some_and(|most| count + volumes > most) {
        return over("volume");
    }
    if world.options.max_gib.is_some_and(|most| sum + bytes > most << 30) {
        return over("primary_storage");
    }
    Ok(())
}

/// The id that a root administrator may choose.
fn custom_id(world: &World, call: &Call) -> Result<Uuid, ApiError> {
    let Some(text) = call.params.text("customid").filter(|text| !text.is_empty()) else {
        return Ok(Uuid::new_v4());
    };
    if !call.caller.is_admin() {
        let text = "Please check your permissions, you are not allowed to create/update custom id";
        return Err(ApiError::denied(text));
    }
    let id = parse_custom(text)
        .ok_or_else(|| ApiError::parameter(format!("UUID: {text} doesn't follow the UUID format")))?;
    match world.volumes.iter().find(|volume| volume.id == id) {
        None => Ok(id),
        Some(volume) if volume.removed => {
            Err(ApiError::internal(format!("Duplicate entry '{id}' for key 'volumes.uc_volumes__uuid'")))
        }
        Some(_) => Err(ApiError::parameter(format!(
            "UUID: {id} already exists so can't create/update with custom id"
        ))),
    }
}

fn to_update(world: &World, call: &Call) -> Result<Target, ApiError> {
    let id = call.params.uuid("id").ok_or_else(|| ApiError::parameter("The volume id doesn't exist"))?;
    Ok(Target::new("Volume", world.volume(&call.caller, id)?.id, None))
}

fn update(world: &mut World, call: &Call) -> Outcome {
    let id = to_update(world, call)?.id;
    let volume = world.volume_mut(id);
    if let Some(name) = call.params.text("name") {
        volume.name = name.to_owned();
    }
    if call.params.text("deleteprotection").is_some() {
        volume.protected = call.params.flag("deleteprotection");
    }
    Ok(shown(world, id))
}
