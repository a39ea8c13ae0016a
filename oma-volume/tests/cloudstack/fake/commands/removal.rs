//! Delete, destroy, recover.

use super::super::answer::Reply;
use super::super::error::ApiError;
use super::super::model::{Kind, Volume, VolumeState};
use super::super::world::World;
use super::volumes::{shown, target_volume, view};
use super::{Answered, Body, Call, Command, Outcome, Target, Type, param, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "deleteVolume",
        "user.volume.DeleteVolumeCmd",
        Body::Sync(delete),
        &[uuid("id", Kind::Volume).required()],
    ),
    Command::new(
        "destroyVolume",
        "user.volume.DestroyVolumeCmd",
        Body::Async { target: to_destroy, run: destroy },
        &[uuid("id", Kind::Volume).required(), param("expunge", Type::Boolean).since("4.6.0")],
    ),
    Command::new(
        "recoverVolume",
        "user.volume.RecoverVolumeCmd",
        Body::Sync(recover),
        &[uuid("id", Kind::Volume).required()],
    ),
];

/// What can be deleted.
fn check(volume: &Volume) -> Result<(), ApiError> {
    let about = |error: ApiError| Err(error.about(volume.id, "volumeId"));
    if volume.protected {
        let text = format!(
            "Volume [id = {}, name = {}] has delete protection enabled and cannot be deleted.",
            volume.id, volume.name
        );
        return about(ApiError::parameter(text));
    }
    if volume.attached.is_some() {
        return about(ApiError::parameter("Please specify a volume that is not attached to any VM."));
    }
    match volume.state {
        VolumeState::Allocated | VolumeState::Ready | VolumeState::Destroy => Ok(()),
        VolumeState::Snapshotting => {
            let text = "There are snapshot operations in progress on the volume, unable to delete it";
            about(ApiError::parameter(text))
        }
        VolumeState::Attaching | VolumeState::Creating | VolumeState::Expunged | VolumeState::Resizing => {
            about(ApiError::runtime(format!("Failed to delete volume in state {:?}", volume.state)))
        }
    }
}

fn delete(world: &mut World, call: &Call) -> Answered {
    let volume = world.volume(&call.caller, call.params.id("id"))?;
    check(volume)?;
    let id = volume.id;
    world.expunge(id);
    Ok(Reply::Success)
}

fn to_destroy(world: &World, call: &Call) -> Result<Target, ApiError> {
    let target = target_volume(world, call)?;
    let volume = world.volume(&call.caller, target.id)?;
    check(volume)?;
    if volume.state == VolumeState::Allocated && !call.params.flag("expunge") {
        let text = "Volume in state Allocated can only be expunged; please set expunge";
        return Err(ApiError::parameter(text));
    }
    Ok(target)
}

fn destroy(world: &mut World, call: &Call) -> Outcome {
    let id = to_destroy(world, call)?.id;
    if call.params.flag("expunge") {
        world.expunge(id);
    } else {
        world.volume_mut(id).state = VolumeState::Destroy;
    }
    Ok(shown(world, id))
}

fn recover(world: &mut World, call: &Call) -> Answered {
    let volume = world.volume(&call.caller, call.params.id("id"))?;
    if volume.state != VolumeState::Destroy {
        let text = "Please specify a volume in Destroy state.";
        return Err(ApiError::parameter(text).about(volume.id, "volumeId"));
    }
    let id = volume.id;
    world.volume_mut(id).state = VolumeState::Ready;
    let volume = world.volume(&call.caller, id)?;
    Ok(Reply::Object("volume", view(world, volume)))
}
