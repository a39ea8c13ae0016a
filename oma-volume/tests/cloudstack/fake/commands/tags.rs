//! Tags of resources.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::model::Tag;
use super::super::params::parse_uuid;
use super::super::world::World;
use super::jobs::success;
use super::listing::{is_equal, paged};
use super::{Answered, Body, Call, Command, Outcome, Target, Type, param, text};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "createTags",
        "user.tag.CreateTagsCmd",
        Body::Async { target, run: create },
        &[
            param("resourceids", Type::List).required(),
            text("resourcetype").required(),
            param("tags", Type::Map).required(),
            text("customer"),
        ],
    ),
    Command::new(
        "deleteTags",
        "user.tag.DeleteTagsCmd",
        Body::Async { target, run: delete },
        &[
            param("resourceids", Type::List).required(),
            text("resourcetype").required(),
            param("tags", Type::Map),
        ],
    ),
    Command::new(
        "listTags",
        "user.tag.ListTagsCmd",
        Body::Sync(list),
        &[
            text("resourcetype"),
            text("resourceid"),
            text("key"),
            text("value"),
            param("listall", Type::Boolean),
        ],
    ),
];

const KINDS: [&str; 4] = ["Volume", "UserVm", "Snapshot", "VMSnapshot"];

fn view(world: &World, tag: &Tag) -> Value {
    json!({
        "key": tag.key, "value": tag.value, "resourcetype": tag.kind, "resourceid": tag.resource,
        "account": world.account_name(tag.account), "domainid": world.domain, "domain": "ROOT",
    })
}

/// The array that every resource shows.
pub(super) fn tags_of(world: &World, resource: Uuid) -> Vec<Value> {
    world.tags.iter().filter(|tag| tag.resource == resource).map(|tag| view(world, tag)).collect()
}

/// Whether a resource has a tag that a list asks for: any of them, as in the server's query.
pub(super) fn is_tagged(world: &World, call: &Call, resource: Uuid) -> bool {
    let wanted = call.params.pairs("tags");
    let has = |key: &str, value: &str| {
        world.tags.iter().any(|tag| tag.resource == resource && tag.key == key && tag.value == value)
    };
    wanted.is_empty() || wanted.iter().any(|(key, value)| has(key, value))
}

fn kind(call: &Call) -> Result<&'static str, ApiError> {
    let asked = call.params.text("resourcetype").unwrap_or_default();
    let found = KINDS.into_iter().find(|kind| kind.eq_ignore_ascii_case(asked));
    found.ok_or_else(|| ApiError::parameter(format!("Invalid resource type: {asked}")))
}

fn resources(world: &World, call: &Call) -> Result<Vec<Uuid>, ApiError> {
    let kind = kind(call)?;
    let mut found = Vec::new();
    for text in call.params.list("resourceids").unwrap_or_default() {
        let missing =
            || ApiError::parameter(format!("Unable to find resource by uuid {text} and type {kind}"));
        let id = parse_uuid(text).ok_or_else(missing)?;
        let owner = owner(world, kind, id).ok_or_else(missing)?;
        world.allow(&call.caller, owner)?;
        found.push(id);
    }
    Ok(found)
}

fn owner(world: &World, kind: &str, id: Uuid) -> Option<Uuid> {
    match kind {
        "Volume" => world.volumes.iter().find(|row| row.id == id && !row.removed).map(|row| row.account),
        "UserVm" => world.machines.iter().find(|row| row.id == id).map(|row| row.account),
        "Snapshot" => world.snapshots.iter().find(|row| row.id == id && !row.removed).map(|row| row.account),
        _ => world.machine_snapshots.iter().find(|row| row.id == id && !row.removed).map(|row| row.account),
    }
}

fn target(world: &World, call: &Call) -> Result<Target, ApiError> {
    let first = resources(world, call)?.first().copied();
    let id = first.ok_or_else(|| ApiError::parameter("Please specify resource ids"))?;
    Ok(Target::new("None", id, None))
}

/// All of them or, when one key is there already, none.
fn create(world: &mut World, call: &Call) -> Outcome {
    let (kind, resources, pairs) = (kind(call)?, resources(world, call)?, call.params.pairs("tags"));
    if pairs.is_empty() {
        return Err(ApiError::parameter("Please specify tags"));
    }
    for (key, value) in &pairs {
        if key.is_empty() || value.is_empty() {
            return Err(ApiError::parameter(format!("Value for the key {key} is either null or empty")));
        }
        if key.chars().count() > 255 || value.chars().count() > 255 {
            return Err(ApiError::parameter("Key and value of a tag have 255 characters at most"));
        }
        let taken = |id: &&Uuid| world.tags.iter().any(|tag| tag.resource == **id && tag.key == *key);
        if let Some(id) = resources.iter().find(taken) {
            return Err(ApiError::runtime(format!("tag {key} already on {kind} with id {id}")));
        }
    }
    world.add_tags(kind, &resources, call);
    success()
}

/// Those that are named, by key or by key and value; without any name all of the caller's.
fn delete(world: &mut World, call: &Call) -> Outcome {
    let (kind, resources, pairs) = (kind(call)?, resources(world, call)?, call.params.pairs("tags"));
    let goes = |tag: &Tag| {
        let named =
            |(key, value): &(String, String)| *key == tag.key && (value.is_empty() || *value == tag.value);
        tag.kind == kind && resources.contains(&tag.resource) && (pairs.is_empty() || pairs.iter().any(named))
    };
    if !world.tags.iter().any(goes) {
        return Err(ApiError::parameter(
            "Unable to find any tags which conform to the required delete parameters.",
        ));
    }
    world.tags.retain(|tag| !goes(tag));
    success()
}

fn list(world: &mut World, call: &Call) -> Answered {
    let params = &call.params;
    let caller = &call.caller;
    let seen = world.tags.iter().filter(|tag| {
        (if params.flag("listall") {
            world.may_see(caller, tag.account)
        } else {
            caller.account == tag.account
        }) && is_equal(params, "resourcetype", tag.kind)
            && is_equal(params, "resourceid", &tag.resource.to_string())
            && is_equal(params, "key", &tag.key)
            && is_equal(params, "value", &tag.value)
    });
    let rows = seen.map(|tag| view(world, tag)).collect();
    paged(world, call, "tag", rows)
}

impl World {
    /// The tags that a call names, on each of these; they belong to the resource's account.
    pub(super) fn add_tags(&mut self, kind: &'static str, resources: &[Uuid], call: &Call) {
        for id in resources {
            let account = owner(self, kind, *id).unwrap_or(call.caller.account);
            for (key, value) in call.params.pairs("tags") {
                self.tags.push(Tag { kind, resource: *id, key, value, account });
            }
        }
    }
}
