//! Attach and detach.

use serde_json::json;
use uuid::Uuid;

use super::super::devices;
use super::super::error::ApiError;
use super::super::faults::What;
use super::super::model::{Attachment, Kind, Machine, MachineState, Volume, VolumeState};
use super::super::world::{LateDetach, World};
use super::volumes::shown;
use super::{Body, Call, Command, Outcome, Target, Type, param, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        transition: Some(VolumeState::Attaching),
        ..Command::new(
            "attachVolume",
            "user.volume.AttachVolumeCmd",
            Body::Async { target: to_attach, run: attach },
            &[
                uuid("id", Kind::Volume).required(),
                uuid("virtualmachineid", Kind::Machine).required(),
                param("deviceid", Type::Long),
            ],
        )
    },
    Command::new(
        "detachVolume",
        "user.volume.DetachVolumeCmd",
        Body::Async { target: to_detach, run: detach },
        &[uuid("id", Kind::Volume), uuid("virtualmachineid", Kind::Machine), param("deviceid", Type::Long)],
    ),
];

const ROOT: u32 = 0;
const CD_ROM: u32 = 3;

fn to_attach(world: &World, call: &Call) -> Result<Target, ApiError> {
    let volume = world.volume(&call.caller, call.params.id("id"))?;
    let machine = world.machine(&call.caller, call.params.id("virtualmachineid"))?;
    if volume.attached.is_some() {
        let text = "Please specify a volume that is not attached to any VM.";
        return Err(ApiError::parameter(text).about(volume.id, "volumeId"));
    }
    if !call.caller.is_admin() && volume.account != machine.account {
        let text = format!("Entity {} and entity {} belong to different accounts", volume.id, machine.id);
        return Err(ApiError::denied(text));
    }
    check_states(volume, machine)?;
    check_machine(world, machine)?;
    device_id(world, call, machine)?;
    Ok(Target::new("Volume", volume.id, Some(machine.id)).showing(volume.id))
}

fn check_states(volume: &Volume, machine: &Machine) -> Result<(), ApiError> {
    if volume.zone != machine.zone {
        return Err(ApiError::parameter("Please specify a VM that is in the same zone as the volume."));
    }
    if !matches!(volume.state, VolumeState::Allocated | VolumeState::Ready) {
        return Err(ApiError::parameter("Volume state must be in Allocated, Ready or in Uploaded state"));
    }
    Ok(())
}

fn check_machine(world: &World, machine: &Machine) -> Result<(), ApiError> {
    let most = world.options.data_disks;
    let data = world.volumes_at(machine.id).filter(|(_, device)| *device != ROOT).count();
    if u32::try_from(data).is_ok_and(|data| data >= most) {
        return Err(ApiError::parameter(format!(
            "The specified VM already has the maximum number of data disks ({most}) attached. Please specify another VM."
        )));
    }
    if world.has_machine_snapshots(machine.id) {
        let text = "Unable to attach volume, please specify a VM that does not have Instance Snapshots";
        return Err(ApiError::parameter(text));
    }
    Ok(())
}

/// The number asked for, or the lowest that is free of 1, 2, 4, 5 …
fn device_id(world: &World, call: &Call, machine: &Machine) -> Result<u32, ApiError> {
    let highest = world.options.data_disks + 1;
    let used = |device: u32| world.volumes_at(machine.id).find(|(_, at)| *at == device);
    let Some(asked) = call.params.integer("deviceid") else {
        let free = (1..=highest).find(|device| *device != CD_ROM && used(*device).is_none());
        return free.ok_or_else(|| ApiError::runtime("All device Ids are used by vm"));
    };
    let fits = u32::try_from(asked).ok().filter(|device| *device != CD_ROM && *device <= highest);
    let device = fits.ok_or_else(|| ApiError::runtime(format!("deviceId should be 0,1,2,4-{highest}")))?;
    match used(device) {
        Some(_) if device == ROOT => Err(ApiError::parameter("Vm already has root volume attached to it")),
        Some((volume, _)) => {
            Err(ApiError::runtime(format!("deviceId {device} is used by vol {}", volume.id)))
        }
        None if device == ROOT && machine.state != MachineState::Stopped => {
            Err(ApiError::parameter("Root volume attach can happen only when vm is in states: Stopped"))
        }
        None => Ok(device),
    }
}

fn attach(world: &mut World, call: &Call) -> Outcome {
    let volume = world.volume(&call.caller, call.params.id("id"))?.clone();
    let machine = world.machine(&call.caller, call.params.id("virtualmachineid"))?.clone();
    if volume.attached.is_some() {
        // Another job was quicker than this one, which was accepted while it was not attached.
        return Err(ApiError::runtime("This volume is already attached to a VM"));
    }
    check_states(&volume, &machine)?;
    check_machine(world, &machine)?;
    let device = device_id(world, call, &machine)?;
    let attachment = Attachment { machine: machine.id, device, since: world.clock.now() };
    put(world, volume.id, attachment);
    let mut result = shown(world, volume.id);
    if world.faults.is("attachVolume", What::DeviceId) {
        result["volume"]["deviceid"] = json!(device + 1);
    }
    Ok(result)
}

/// Its first attach gives a volume its place on storage; the guest sees a device.
pub(crate) fn put(world: &mut World, id: Uuid, attachment: Attachment) {
    let image = world.image(id);
    let volume = world.volume_mut(id);
    volume.attached = Some(attachment);
    volume.state = VolumeState::Ready;
    volume.pooled = true;
    volume.root = attachment.device == ROOT;
    let bytes = volume.bytes;
    devices::image(&image, bytes);
    let wrong = world.faults.take("attachVolume", |what| match what {
        What::Device(wrong) => Some(wrong),
        _ => None,
    });
    if let Some(devices) = world.devices.get_mut(&attachment.machine) {
        devices.add(id, &image, bytes, wrong);
    }
}

/// By id, or by machine and number.
fn to_detach(world: &World, call: &Call) -> Result<Target, ApiError> {
    let params = &call.params;
    let id = match (params.uuid("id"), params.uuid("virtualmachineid"), params.integer("deviceid")) {
        (Some(id), None, None) => id,
        (None, Some(machine), Some(device)) => {
            let found = world.volumes_at(machine).find(|(_, at)| i64::from(*at) == device);
            found.ok_or_else(not_attached)?.0.id
        }
        _ => {
            return Err(ApiError::parameter(
                "Please provide either a volume id, or a tuple(device id, instance id)",
            ));
        }
    };
    let volume = world.volume(&call.caller, id)?;
    let attached = volume.attached.ok_or_else(not_attached)?;
    let machine = world.machine(&call.caller, attached.machine)?;
    if volume.root && machine.state != MachineState::Stopped {
        let text = "Root volume detach can happen only when vm is in states: Stopped";
        return Err(ApiError::parameter(text));
    }
    if world.has_machine_snapshots(machine.id) {
        let text = "Unable to detach volume, the specified volume is attached to a VM that has VM snapshots.";
        return Err(ApiError::parameter(text));
    }
    Ok(Target::new("Volume", id, Some(machine.id)))
}

fn not_attached() -> ApiError {
    ApiError::parameter("The specified volume is not attached to a VM.")
}

fn detach(world: &mut World, call: &Call) -> Outcome {
    let target = to_detach(world, call)?;
    let (id, machine) = (target.id, target.queue.expect("the machine that it is attached to"));
    let late = world.faults.take("detachVolume", |what| match what {
        What::LateDetach(late) => Some(late),
        _ => None,
    });
    if let Some(leaves) = late {
        world.late.push(LateDetach { volume: id, machine, leaves, is_gone: false });
        let text = "Could not detach volume after sending the command and waiting for 10000 milliseconds";
        return Err(ApiError::runtime(format!("Failed to detach volume; {text}")));
    }
    world.detach(id);
    Ok(shown(world, id))
}
