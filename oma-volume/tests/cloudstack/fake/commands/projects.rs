//! Projects: who is a member, and what there is room for.

use serde_json::{Value, json};

use super::super::model::Kind;
use super::super::world::World;
use super::listing::{is_asked_for, is_equal, is_like, paged};
use super::{Answered, Body, Call, Command, Type, param, text, uuid};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "listProjects",
    "user.project.ListProjectsCmd",
    Body::Sync(list),
    &[uuid("id", Kind::Project), text("name"), text("state"), param("listall", Type::Boolean)],
)];

fn list(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    let limit = |number: Option<u64>| number.map_or("Unlimited".to_owned(), |number| number.to_string());
    let rows: Vec<Value> = world
        .projects
        .iter()
        .filter(|project| world.may_see(&call.caller, project.account) && is_asked_for(params, project.id))
        .filter(|project| is_equal(params, "name", project.name) && is_like(params, project.name))
        .filter(|project| is_equal(params, "state", &format!("{:?}", project.state)))
        .map(|project| {
            let has = world.volumes.iter().filter(|row| row.account == project.account && !row.removed);
            let has = u64::try_from(has.count()).expect("a few");
            let room = world.options.max_volumes.map(|most| most.saturating_sub(has));
            json!({
                "id": project.id, "name": project.name, "displaytext": project.name,
                "domainid": world.domain, "domain": "ROOT", "state": format!("{:?}", project.state),
                "volumelimit": limit(world.options.max_volumes), "volumeavailable": limit(room),
                "primarystoragelimit": limit(world.options.max_gib),
            })
        })
        .collect();
    paged(world, call, "project", rows)
}
