//! Users, for admins.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use oma_core::record::{AttemptSubject, Credentials, Email, PasswordHash, User, UserChange, UserSpec};
use oma_core::state::Role;
use oma_core::{Error, ErrorKind, UserId};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AccountRoutes, Part};
use crate::server::asked::{Repeat, RepeatHeader};
use crate::server::audit::Asker;
use crate::server::conditional::tagged_by;
use crate::server::extract::{Body, InPath, InQuery};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{ChangeUser, CreateUser, Page, Secret, UserRow};

pub(super) fn group() -> OpenApiRouter<AccountRoutes> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, change, remove))
}

/// List users. Needs an admin
#[utoipa::path(get, path = "/users", tag = "users", params(Part),
    responses((status = 200, body = Page<UserRow>), Problems))]
async fn list(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<UserRow>>> {
    asker.principal.needs(Role::Admin, "list", &"users")?;
    let after = part.after(|text| text.parse().ok().map(UserId))?;
    let users = routes.accounts.users(after);
    Ok(Json(part.page(users, |user| user.id.to_string(), |user| UserRow::from(user)).await?))
}

/// Add a user. Needs an admin. With an `Idempotency-Key` a user of this address who is there just so, with this password, is the answer
#[utoipa::path(post, path = "/users", tag = "users", params(RepeatHeader), request_body = CreateUser,
    responses((status = 201, body = UserRow), Problems))]
async fn create(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    Repeat(key): Repeat,
    Body(asked): Body<CreateUser>,
) -> Answer<(StatusCode, Json<UserRow>)> {
    asker.principal.needs(Role::Admin, "add user", &asked.email)?;
    let email = Email::parse(&asked.email)
        .map_err(|error| Error::new(ErrorKind::Invalid, "add user", &asked.email).with_source(error))?;
    if key.is_some()
        && let Some(user) = routes.added_before(&asker, &email, &asked).await?
    {
        return Ok((StatusCode::CREATED, Json(UserRow::from(&user))));
    }
    let password_hash = match &asked.password {
        Some(password) => routes.passwords.hash(password).await?,
        None => PasswordHash::none(),
    };
    let spec = UserSpec { email, full_name: asked.full_name, role: asked.role, password_hash };
    let mut entry = asker.entry("user.create", "user", &spec.email);
    let has_password = asked.password.is_some();
    entry.new = Some(json!({ "full_name": spec.full_name, "role": spec.role, "has_password": has_password }));
    let user = routes.auditor.around(entry, routes.accounts.add_user(&spec)).await?;
    Ok((StatusCode::CREATED, Json(UserRow::from(&user))))
}

/// A user. Needs an admin
#[utoipa::path(get, path = "/users/{user_id}", tag = "users", params(("user_id" = u64, Path)),
    responses((status = 200, body = UserRow), Problems))]
async fn get(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InPath(id): InPath<UserId>,
) -> Answer<Response> {
    asker.principal.needs(Role::Admin, "read user", &id)?;
    let user = routes.known(id).await?;
    // Also of a new password, and of no login.
    Ok(tagged_by(&format_args!("{} {}", told(&user), user.updated_at), UserRow::from(&user)))
}

/// Change a user. Its sessions end with a new password, and when it is not active any more. Needs an admin
#[utoipa::path(patch, path = "/users/{user_id}", tag = "users", params(("user_id" = u64, Path)),
    request_body = ChangeUser, responses((status = 200, body = UserRow), Problems))]
async fn change(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InPath(id): InPath<UserId>,
    Body(asked): Body<ChangeUser>,
) -> Answer<Json<UserRow>> {
    asker.principal.needs(Role::Admin, "change user", &id)?;
    let known = routes.known(id).await?;
    let password_hash = match &asked.password {
        Some(password) => Some(routes.passwords.hash(password).await?),
        None => None,
    };
    let mut entry = asker.entry("user.change", "user", &known.email);
    entry.old = Some(told(&known));
    entry.new = Some(wanted(&asked));
    let ChangeUser { full_name, role, is_active, password: _ } = asked;
    let change = UserChange { full_name, role, is_active, password_hash };
    let user = routes.auditor.around(entry, routes.accounts.change_user(id, &change)).await?;
    Ok(Json(UserRow::from(&user)))
}

/// Take a user out, with its tokens. Needs an admin
#[utoipa::path(delete, path = "/users/{user_id}", tag = "users", params(("user_id" = u64, Path)),
    responses((status = 204), Problems))]
async fn remove(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InPath(id): InPath<UserId>,
) -> Answer<StatusCode> {
    asker.principal.needs(Role::Admin, "remove user", &id)?;
    let known = routes.known(id).await?;
    let mut entry = asker.entry("user.remove", "user", &known.email);
    entry.old = Some(told(&known));
    // Its own account is gone afterwards, and the entry outlives it.
    entry.user = entry.user.filter(|user| *user != id);
    routes.auditor.around(entry, routes.accounts.remove_user(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl AccountRoutes {
    /// The user whom the same request added before. A password is compared as often as somebody may try to log in.
    async fn added_before(&self, asker: &Asker, email: &Email, asked: &CreateUser) -> Answer<Option<User>> {
        let Some(Credentials { user, password_hash }) = self.accounts.credentials(email).await? else {
            return Ok(None);
        };
        let CreateUser { email: _, full_name, role, password } = asked;
        if (&user.full_name, user.role, user.is_active) != (full_name, *role, true) {
            return Ok(None);
        }
        let is_same = match password {
            None => password_hash == PasswordHash::none(),
            Some(password) => {
                self.auditor.record(&asker.entry("user.compare", "user", email)).await?;
                self.attempts(&AttemptSubject::account(email.as_str()), asker.address).await?;
                self.passwords.verify(password, Some(&password_hash)).await?
            }
        };
        Ok(is_same.then_some(user))
    }

    pub(super) async fn known(&self, id: UserId) -> Answer<User> {
        let found = self.accounts.user(id).await?;
        Ok(found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find user", id)
                .because("there is none; GET /users lists who there is")
        })?)
    }
}

fn told(user: &User) -> serde_json::Value {
    json!({ "id": user.id, "full_name": user.full_name, "role": user.role, "is_active": user.is_active })
}

/// What a change names, and whether there is a new password.
fn wanted(asked: &ChangeUser) -> serde_json::Value {
    let mut wanted = serde_json::Map::new();
    let ChangeUser { full_name, role, is_active, password } = asked;
    wanted.extend(full_name.as_ref().map(|name| ("full_name".to_owned(), json!(name))));
    wanted.extend(role.map(|role| ("role".to_owned(), json!(role))));
    wanted.extend(is_active.map(|is_active| ("is_active".to_owned(), json!(is_active))));
    wanted.extend(password.as_ref().map(|_: &Secret| ("has_password".to_owned(), json!(true))));
    wanted.into()
}
