//! Resize.

use super::super::devices;
use super::super::error::ApiError;
use super::super::model::{Kind, Offering, VolumeState};
use super::super::world::World;
use super::volumes::{check_quota, checked_gib, shown, target_volume};
use super::{Body, Call, Command, Outcome, Target, Type, param, uuid};

pub(super) const COMMANDS: &[Command] = &[Command {
    transition: Some(VolumeState::Resizing),
    ..Command::new(
        "resizeVolume",
        "user.volume.ResizeVolumeCmd",
        Body::Async { target, run },
        &[
            uuid("id", Kind::Volume).required(),
            param("size", Type::Long),
            uuid("diskofferingid", Kind::Offering),
            param("shrinkok", Type::Boolean),
        ],
    )
}];

/// What is wrong with a parameter is told as 432 by this command.
fn target(world: &World, call: &Call) -> Result<Target, ApiError> {
    plan(world, call).map(|_| ()).map_err(parameter_is_unsupported)?;
    let target = target_volume(world, call).map_err(parameter_is_unsupported)?;
    Ok(target.showing(target.id))
}

fn parameter_is_unsupported(error: ApiError) -> ApiError {
    if error.code == 431 { error.with_code(432) } else { error }
}

/// The size after it.
fn plan(world: &World, call: &Call) -> Result<u64, ApiError> {
    let volume = world.volume(&call.caller, call.params.id("id"))?;
    if volume.state == VolumeState::Snapshotting {
        return Err(ApiError::runtime("There is a snapshot in progress on the volume, unable to resize it"));
    }
    if !matches!(volume.state, VolumeState::Ready | VolumeState::Allocated) {
        return Err(ApiError::parameter(
            "Volume should be in ready or allocated state before attempting a resize.",
        ));
    }
    let offering = offering(world, call, volume.offering)?;
    if offering.strict {
        let text = format!(
            "Resize of volume {} is not allowed, since disk size is strictly fixed as per the disk offering",
            volume.id
        );
        return Err(ApiError::parameter(text));
    }
    if volume.attached.is_some_and(|attached| {
        world
            .machine_snapshots
            .iter()
            .any(|row| row.machine == attached.machine && row.memory && !row.removed)
    }) {
        return Err(ApiError::parameter(
            "The volume is attached to a VM with memory snapshots, unable to resize it",
        ));
    }
    let bytes = match (offering.gib, call.params.integer("size")) {
        (Some(gib), _) => gib << 30,
        (None, Some(gib)) => checked_gib(gib)? << 30,
        (None, None) => return Err(ApiError::parameter("Requires a size for a custom disk offering")),
    };
    if bytes < volume.bytes && !call.params.flag("shrinkok") {
        let text = "Going from existing size to a smaller one would shrink the volume. Need to sign off by supplying the shrinkok parameter with value of true.";
        return Err(ApiError::parameter(text));
    }
    check_quota(world, call, volume.account, bytes.saturating_sub(volume.bytes), 0)?;
    Ok(bytes)
}

fn offering<'a>(world: &'a World, call: &Call, present: uuid::Uuid) -> Result<&'a Offering, ApiError> {
    let id = call.params.uuid("diskofferingid").unwrap_or(present);
    let found = world.offerings.iter().find(|offering| offering.id == id);
    found.ok_or_else(|| ApiError::parameter("Please specify a valid disk offering."))
}

fn run(world: &mut World, call: &Call) -> Outcome {
    let bytes = plan(world, call).map_err(parameter_is_unsupported)?;
    let id = call.params.id("id");
    let image = world.image(id);
    let volume = world.volume_mut(id);
    volume.bytes = bytes;
    let (pooled, attached) = (volume.pooled, volume.attached);
    if let Some(offering) = call.params.uuid("diskofferingid") {
        volume.offering = offering;
    }
    if pooled {
        devices::image(&image, bytes);
    }
    if let Some(devices) = attached.and_then(|attached| world.devices.get_mut(&attached.machine)) {
        devices.resized(id, bytes);
    }
    Ok(shown(world, id))
}
