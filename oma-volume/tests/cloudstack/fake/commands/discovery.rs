//! listApis: which commands and parameters there are.

use serde_json::{Value, json};

use super::super::answer::Reply;
use super::super::error::ApiError;
use super::super::world::World;
use super::{Answered, Body, Call, Command, Type, all, find, text};

pub(super) const COMMANDS: &[Command] =
    &[Command::new("listApis", "user.discovery.ListApisCmd", Body::Sync(apis), &[text("name")])];

/// Not in pages. Parameters that belong to every asynchronous command (`customjobid`) are not told.
fn apis(world: &mut World, call: &Call) -> Answered {
    let version = world.options.version;
    let rows: Vec<_> = match call.params.text("name") {
        None => all().map(|command| api(command, version)).collect(),
        Some(name) => {
            let missing = "Api Discovery plugin was unable to find an api by that name or process any apis";
            vec![api(find(name).ok_or_else(|| ApiError::internal(missing))?, version)]
        }
    };
    Ok(Reply::List { key: "api", total: rows.len(), rows })
}

fn api(command: &'static Command, version: &'static str) -> Value {
    let params: Vec<_> = command
        .known_params(version)
        .map(|param| {
            json!({
                "name": param.name, "description": "", "type": type_name(param.of), "length": 255,
                "required": param.required, "since": param.since,
            })
        })
        .collect();
    let asynchronous = !matches!(command.body, Body::Sync(_));
    json!({"name": command.name, "description": "", "isasync": asynchronous, "params": params, "response": []})
}

fn type_name(of: Type) -> &'static str {
    match of {
        Type::Boolean => "boolean",
        Type::List | Type::Uuids(_) => "list",
        Type::Long => "long",
        Type::Map => "map",
        Type::Text => "string",
        Type::Project | Type::Uuid(_) => "uuid",
    }
}
