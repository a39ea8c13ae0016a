//! Which volumes are open in sessions, for operators of this daemon.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use oma_core::traits::Access;
use oma_core::{Error, ErrorKind, Result};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::access::{Principal, Role};
use super::super::extract::InPath;
use super::super::problem::Answer;
use super::super::problems::Problems;
use super::super::publish::{Opener, Published};
use super::BackendRoutes;
use crate::SessionRow;

pub(super) fn group() -> OpenApiRouter<BackendRoutes> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(end)).routes(routes!(renew))
}

fn no_session(operation: &'static str, id: &str) -> Error {
    let reason = "no such session is open; GET /backend/sessions lists those that are";
    Error::new(ErrorKind::NotFound, operation, id).because(reason)
}

impl BackendRoutes {
    fn session(&self, operation: &'static str, id: &str) -> Result<(Opener, Arc<Published>)> {
        let found = self.publisher.of_sessions().into_iter().find(|(opener, _)| opener.session == id);
        found.ok_or_else(|| no_session(operation, id))
    }

    async fn row(&self, opener: &Opener, published: &Published) -> Result<SessionRow> {
        let moved = self.publisher.statistics(published).await?;
        Ok(SessionRow {
            session_id: opener.session.clone(),
            volume_id: published.volume.clone(),
            deployment: opener.deployment.clone(),
            principal: opener.principal.clone(),
            opened_at: opener.since.to_string(),
            renewed_at: published.renewed_at().to_string(),
            read_only: published.access == Access::ReadOnly,
            connections: moved.connections,
            bytes_read: moved.bytes_read,
            bytes_written: moved.bytes_written,
        })
    }
}

/// Which volumes other deployments have open, the oldest first. Needs an operator
#[utoipa::path(get, path = "/backend/sessions", tag = "backend", responses((status = 200, body = Vec<SessionRow>), Problems))]
async fn list(
    State(routes): State<BackendRoutes>,
    Extension(principal): Extension<Principal>,
) -> Answer<Json<Vec<SessionRow>>> {
    principal.needs(Role::Operator, "list", &"sessions")?;
    let mut rows = Vec::new();
    for (opener, published) in routes.publisher.of_sessions() {
        rows.push(routes.row(&opener, &published).await?);
    }
    Ok(Json(rows))
}

/// Keeps a session: its client is alive. Only who opened it renews it
#[utoipa::path(post, path = "/backend/sessions/{id}/renew", tag = "backend", params(("id" = String, Path, description = "Id of the session")),
    responses((status = 204, description = "It lasts for another lease"), Problems))]
async fn renew(
    State(routes): State<BackendRoutes>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath<String>,
) -> Answer<StatusCode> {
    let (opener, published) = routes.session("renew session", &id)?;
    if opener.principal != principal.name {
        return Err(no_session("renew session", &id).into());
    }
    published.renew();
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session: what its client asked for is answered, then it is disconnected and the volume is closed. Needs an admin: the client
/// loses what it is in the middle of
#[utoipa::path(delete, path = "/backend/sessions/{id}", tag = "backend", params(("id" = String, Path, description = "Id of the session")),
    responses((status = 204, description = "It has ended, and its volume is closed"), Problems))]
async fn end(
    State(routes): State<BackendRoutes>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath<String>,
) -> Answer<StatusCode> {
    principal.needs(Role::Admin, "end session", &id)?;
    let (opener, published) = routes.session("end session", &id)?;
    let (volume, of) = (&published.volume, &opener.principal);
    tracing::warn!(principal = principal.name, session = id, %volume, of, "ends a session");
    published.let_go();
    published.closed().await;
    Ok(StatusCode::NO_CONTENT)
}
