//! What all lists have in common: whose rows, which page.

use serde_json::Value;
use uuid::Uuid;

use super::super::answer::Reply;
use super::super::error::ApiError;
use super::super::params::Params;
use super::super::world::{Caller, World};
use super::{Answered, Call};

/// Whose rows a list shows: the caller's own; with `listall` or an id all that the caller may see. Things of a project only when that
/// is named, or -1 for all projects.
pub(super) fn is_shown(world: &World, call: &Call, owner: Uuid) -> bool {
    let Caller { account, .. } = call.caller;
    let wide = call.params.flag("listall") || call.params.text("id").is_some_and(|id| !id.is_empty());
    let asked = call.params.text("projectid").filter(|project| !project.is_empty());
    let is_in_scope = match (asked, world.project_of(owner)) {
        (None, Some(_)) => false,
        (None, None) => wide || account == owner,
        (Some("-1"), project) => project.is_some() || call.params.flag("listall"),
        (Some(asked), project) => project.is_some_and(|project| asked == project.id.to_string()),
    };
    is_in_scope && world.may_see(&call.caller, owner)
}

/// Lists and makes are asked for projects that the caller is a member of.
pub(super) fn check_project(world: &World, call: &Call) -> Result<(), ApiError> {
    let asked = call.params.uuid("projectid");
    let Some(project) = world.projects.iter().find(|project| Some(project.id) == asked) else {
        return Ok(());
    };
    if world.may_see(&call.caller, project.account) {
        return Ok(());
    }
    let name = world.account(call.caller.account).name;
    Err(ApiError::denied(format!("Account {name} can't access project id={}", project.id)))
}

/// Whether a row is one of those asked for by `id` or `ids`.
pub(super) fn is_asked_for(params: &Params, id: Uuid) -> bool {
    let one = params.uuid("id").is_none_or(|wanted| wanted == id);
    let many = params.list("ids").is_none_or(|list| list.iter().any(|item| *item == id.to_string()));
    one && many
}

/// Whether a field is what a parameter asks for, if it does.
pub(super) fn is_equal(params: &Params, name: &str, field: &str) -> bool {
    params.text(name).is_none_or(|wanted| wanted.is_empty() || wanted.eq_ignore_ascii_case(field))
}

/// SQL's LIKE with `%` on both sides.
pub(super) fn is_like(params: &Params, name: &str) -> bool {
    let name = name.to_lowercase();
    params.text("keyword").is_none_or(|keyword| name.contains(&keyword.to_lowercase()))
}

/// One page of all rows.
pub(super) fn paged(world: &World, call: &Call, key: &'static str, rows: Vec<Value>) -> Answered {
    let total = rows.len();
    let default = world.options.page_size;
    let (page, size) = (call.params.integer("page"), call.params.integer("pagesize"));
    let (skip, take) = match (page, size) {
        (None, None) => (0, default),
        (None, Some(-1)) => (0, total),
        (Some(page), Some(size)) => {
            let number = |value: i64, name: &str| {
                let text = format!("{name} should be a number above zero");
                usize::try_from(value).ok().filter(|value| *value > 0).ok_or(ApiError::parameter(text))
            };
            let (page, size) = (number(page, "page")?, number(size, "pagesize")?);
            if size > default {
                return Err(ApiError::parameter(format!(
                    "Page size can't exceed max allowed page size value: {default}"
                )));
            }
            ((page - 1).saturating_mul(size), size)
        }
        _ => return Err(ApiError::parameter("\"page\" and \"pagesize\" should be specified together")),
    };
    Ok(Reply::List { key, total, rows: rows.into_iter().skip(skip).take(take).collect() })
}
