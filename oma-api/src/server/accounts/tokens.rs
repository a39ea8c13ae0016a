//! Tokens: one's own, or everybody's for an admin.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use oma_core::record::{AccessToken, TokenHash, TokenSpec};
use oma_core::state::{Role, TokenKind};
use oma_core::{Error, ErrorKind, TokenId, UserId};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AccountRoutes, Part};
use crate::server::access::Principal;
use crate::server::asked::{Repeat, RepeatHeader};
use crate::server::audit::Asker;
use crate::server::extract::{Body, InPath, InQuery};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::server::tokens::NewToken;
use crate::{CreateToken, NewTokenRow, Page, Secret, TokenRow, token_id};

/// A token that was asked for by name has as many characters as a database key.
const LONGEST: usize = 191;
/// No token is good for longer.
const MOST_DAYS: u16 = 366;

pub(super) fn group() -> OpenApiRouter<AccountRoutes> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, revoke))
}

/// Whose tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// Only those of this user; another one's only for an admin, who sees everybody's without it.
    #[param(value_type = Option<u64>)]
    user_id: Option<UserId>,
}

/// List tokens and sessions: one's own, or everybody's for an admin
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(Whose, Part),
    responses((status = 200, body = Page<TokenRow>), Problems))]
async fn list(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InQuery(whose): InQuery<Whose>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<TokenRow>>> {
    let own = asker.principal.account.as_ref().map(|account| account.user);
    let user = match whose.user_id {
        Some(user) if Some(user) == own => Some(user),
        None if asker.principal.role < Role::Admin && own.is_some() => own,
        asked => {
            asker.principal.needs(Role::Admin, "list tokens of", &"others")?;
            asked
        }
    };
    let after = part.after(|text| TokenId::parse(text).ok())?;
    let tokens = routes.accounts.tokens(user, after);
    Ok(Json(part.page(tokens, |token| token.id.to_string(), |token| TokenRow::from(token)).await?))
}

/// Make a token. Its secret is in the answer and can never be read again. Needs a session, or an admin. With an `Idempotency-Key`
/// the same request again is answered 409 with the id of the token, since its secret is gone: revoke that one, and make another one
#[utoipa::path(post, path = "/tokens", tag = "tokens", params(RepeatHeader), request_body = CreateToken,
    responses((status = 201, body = NewTokenRow), Problems))]
async fn create(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    Repeat(key): Repeat,
    Body(asked): Body<CreateToken>,
) -> Answer<impl IntoResponse> {
    let user = owner(&asker.principal, asked.user_id)?;
    check(&asked)?;
    asker.principal.needs(asked.role, "make a token of", &asked.role)?;
    asked.jobs.iter().try_for_each(|job| asker.principal.sees(job))?;
    let secret = NewToken::mint();
    let days = u64::from(asked.days);
    let spec = TokenSpec {
        id: id_of(user, key.as_deref()),
        kind: TokenKind::Api,
        name: asked.name,
        role: asked.role,
        hash: TokenHash::of(secret.reveal()),
        jobs: asked.jobs.into_iter().collect(),
        lifetime: Duration::from_secs(days * 86_400),
        address: asker.address,
    };
    let mut entry = asker.entry("token.create", "token", &spec.id);
    entry.new = Some(
        json!({ "user_id": user, "name": spec.name, "role": spec.role, "days": days, "jobs": spec.jobs }),
    );
    let made = async { routes.accounts.mint(user, &spec).await.map_err(|error| taken(&spec.id, error)) };
    let token = routes.auditor.around(entry, made).await?;
    let row = NewTokenRow { secret: Secret::new(secret.reveal()), token: TokenRow::from(&token) };
    // No cache on the way keeps it.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(row)))
}

/// A token or session, without its secret: one's own, or anybody's for an admin
#[utoipa::path(get, path = "/tokens/{token_id}", tag = "tokens", params(("token_id" = String, Path)),
    responses((status = 200, body = TokenRow), Problems))]
async fn get(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InPath(id): InPath<TokenId>,
) -> Answer<Json<TokenRow>> {
    Ok(Json(TokenRow::from(&routes.token(&asker, &id).await?)))
}

/// Revoke a token, or end a session, at once: one's own, or anybody's for an admin. Revoked already, it stays so
#[utoipa::path(delete, path = "/tokens/{token_id}", tag = "tokens", params(("token_id" = String, Path)),
    responses((status = 204), Problems))]
async fn revoke(
    State(routes): State<AccountRoutes>,
    asker: Asker,
    InPath(id): InPath<TokenId>,
) -> Answer<StatusCode> {
    let found = routes.token(&asker, &id).await?;
    let mut entry = asker.entry("token.revoke", "token", &id);
    entry.old = Some(json!({ "user_id": found.user, "name": found.name, "role": found.role }));
    routes.auditor.around(entry, routes.accounts.revoke(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl AccountRoutes {
    /// A token of whoever asks, or anybody's for an admin. Another one's is told no other than one that is not there.
    async fn token(&self, asker: &Asker, id: &TokenId) -> Answer<AccessToken> {
        let own = asker.principal.account.as_ref().map(|account| account.user);
        let is_admin = asker.principal.role == Role::Admin;
        let found = self.accounts.token(id).await?;
        let found = found.filter(|token| is_admin || Some(token.user) == own);
        Ok(found.ok_or_else(|| Error::new(ErrorKind::NotFound, "find token", id))?)
    }
}

/// The id of a new token: of the same user by the same key always the same one.
fn id_of(user: UserId, key: Option<&str>) -> TokenId {
    key.map_or_else(TokenId::mint, |key| token_id(user, key))
}

/// What a request is told that was made before with the same key.
fn taken(id: &TokenId, error: Error) -> Error {
    if error.kind() != ErrorKind::AlreadyExists {
        return error;
    }
    let reason = format!(
        "this Idempotency-Key was used, and the secret stood in that answer only: if it is lost, DELETE /tokens/{id} and ask with another key"
    );
    Error::new(ErrorKind::AlreadyExists, "make token", id).because(reason)
}

/// Whose a new token is to be. What programs hold makes no more of its kind, or a stolen one could not be revoked.
fn owner(principal: &Principal, wanted: Option<UserId>) -> Answer<UserId> {
    let own = principal.account.as_ref();
    let is_session = own.is_some_and(|account| account.kind == TokenKind::Session);
    let user = wanted.or(own.map(|account| account.user));
    let user = user.ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "make", "a token")
            .because("whoever asks has no account; name a user_id")
    })?;
    if !is_session || own.map(|account| account.user) != Some(user) {
        principal.needs(Role::Admin, "make a token for user", &user)?;
    }
    Ok(user)
}

fn check(asked: &CreateToken) -> Answer<()> {
    let refused = |reason| Error::new(ErrorKind::Invalid, "make", "a token").because(reason);
    let length = asked.name.chars().count();
    if length == 0 || length > LONGEST || asked.name.contains(char::is_control) {
        return Err(refused("its name has 1 to 191 characters, none of which controls anything").into());
    }
    if !(1..=MOST_DAYS).contains(&asked.days) {
        return Err(refused("it is good for 1 to 366 days").into());
    }
    Ok(())
}
