//! Questions about jobs.

use serde_json::json;

use super::super::answer::Reply;
use super::super::error::ApiError;
use super::super::model::Kind;
use super::super::world::World;
use super::listing::{is_shown, paged};
use super::{Answered, Body, Call, Command, Type, param, uuid};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "queryAsyncJobResult",
        "user.job.QueryAsyncJobResultCmd",
        Body::Sync(query),
        &[uuid("jobid", Kind::Job).required()],
    ),
    Command::new(
        "listAsyncJobs",
        "user.job.ListAsyncJobsCmd",
        Body::Sync(list),
        &[param("listall", Type::Boolean)],
    ),
];

fn query(world: &mut World, call: &Call) -> Answered {
    let id = call.params.id("jobid");
    let owner = |world: &World| world.jobs.iter().find(|job| job.id == id).map(|job| job.call.caller.account);
    let owner =
        owner(world).ok_or_else(|| ApiError::parameter(format!("Unable to find a job by id {id}")))?;
    world.allow(&call.caller, owner)?;
    world.ask(id);
    let job = world.jobs.iter().find(|job| job.id == id).expect("it was found");
    Ok(Reply::Bare(job.view(world.account(owner).user)))
}

fn list(world: &mut World, call: &Call) -> Answered {
    let seen =
        world.jobs.iter().rev().filter(|job| !job.purged && is_shown(world, call, job.call.caller.account));
    let rows = seen.map(|job| job.view(world.account(job.call.caller.account).user)).collect();
    paged(world, call, "asyncjobs", rows)
}

/// `jobresult` of commands that have nothing to show.
pub(super) fn success() -> super::Outcome {
    Ok(json!({"success": true}))
}
