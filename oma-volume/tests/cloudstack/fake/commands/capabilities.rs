//! What the cloud can do.

use serde_json::json;

use super::super::answer::Reply;
use super::super::world::World;
use super::{Answered, Body, Call, Command};

pub(super) const COMMANDS: &[Command] =
    &[Command::new("listCapabilities", "user.config.ListCapabilitiesCmd", Body::Sync(capabilities), &[])];

/// The largest size that the caller of a custom offering may ask for, in GiB.
pub(super) const LARGEST_GIB: i64 = 1024;

fn capabilities(world: &mut World, _: &Call) -> Answered {
    let capability = json!({
        "cloudstackversion": world.options.version, "customdiskofferingminsize": 1,
        "customdiskofferingmaxsize": LARGEST_GIB, "kvmsnapshotenabled": world.options.kvm_snapshots,
        "allowuserexpungerecovervolume": true, "allowuserexpungerecovervm": false, "allowuserforcestopvm": true,
    });
    Ok(Reply::Object("capability", capability))
}
