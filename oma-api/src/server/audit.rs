//! Every change leaves an entry in the audit trail (L30).
//!
//! ```text
//!  request ─► admitted ─► entry: who, what, on what, the body ─► handler ─► answer
//!                            │ cannot be written: 503                └ 4xx, 5xx: a second entry says so
//! ```
//!
//! The entry is written before the change: what a crash leaves is an entry too many, never one too few.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oma_core::audit::AuditEntry;
use oma_core::traits::AuditLog;
use oma_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::PREFIX;
use super::access::Principal;
use super::bounded::At;
use super::extract::in_time;
use super::problem::{Answer, Refused};

/// No body is longer.
const BODY: usize = 2 << 20;
/// A longer text of a body is not kept.
const KEPT: usize = 16 << 10;
/// What stands in place of a secret.
const HIDDEN: &str = "…";

/// Records changes.
#[derive(Clone, Debug)]
pub(super) struct Auditor(Arc<dyn AuditLog>);

impl Auditor {
    pub(super) const fn new(trail: Arc<dyn AuditLog>) -> Self {
        Self(trail)
    }

    /// Records an entry, or refuses what it is about.
    pub(super) async fn record(&self, entry: &AuditEntry) -> Answer<()> {
        let recorded = self.0.audit(entry).await;
        recorded.map(drop).map_err(|error| {
            tracing::error!(
                action = entry.action,
                error = error.chain(),
                "the audit trail cannot be written"
            );
            let refused = Error::new(ErrorKind::Unavailable, "record", "the change");
            refused
                .because("without an entry in the audit trail nothing is changed; the daemon's log says why")
                .into()
        })
    }

    /// Makes a change behind its entry. One that is refused leaves a second entry.
    pub(super) async fn around<T>(
        &self,
        entry: AuditEntry,
        change: impl Future<Output = Result<T>>,
    ) -> Answer<T> {
        self.record(&entry).await?;
        match change.await {
            Ok(changed) => Ok(changed),
            Err(error) => {
                self.note_failure(entry, json!({ "error": error.kind().as_str() })).await;
                Err(error.into())
            }
        }
    }

    /// Adds that what an entry tells of was not done.
    async fn note_failure(&self, entry: AuditEntry, told: Value) {
        let failed =
            AuditEntry { action: format!("{} failed", entry.action), old: None, new: Some(told), ..entry };
        // The first entry is there, so nothing was done unseen.
        let _ = self.record(&failed).await;
    }
}

/// What is known of a connection over TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) IpAddr);

impl Connected<At<SocketAddr>> for Client {
    fn connect_info(at: At<SocketAddr>) -> Self {
        Self(at.0.ip().to_canonical())
    }
}

/// The address of a client; none on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) Option<IpAddr>);

impl ClientAddress {
    fn of(extensions: &Extensions) -> Self {
        Self(extensions.get::<ConnectInfo<Client>>().map(|ConnectInfo(Client(address))| *address))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.extensions))
    }
}

/// Who asks, from where.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) principal: Principal,
    pub(super) address: Option<IpAddr>,
}

impl Asker {
    fn of(extensions: &Extensions) -> Option<Self> {
        let principal = extensions.get::<Principal>().cloned()?;
        Some(Self { principal, address: ClientAddress::of(extensions).0 })
    }

    /// An entry for what is asked for.
    pub(super) fn entry(&self, action: &str, kind: &str, id: &impl fmt::Display) -> AuditEntry {
        AuditEntry {
            actor: self.principal.name.clone(),
            user: self.principal.account.as_ref().map(|account| account.user),
            action: action.to_owned(),
            resource_type: kind.to_owned(),
            resource_id: id.to_string(),
            address: self.address,
            ..AuditEntry::default()
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        Self::of(&parts.extensions).ok_or_else(|| Refused::unauthenticated("nobody is known to ask"))
    }
}

/// Records what a request is about to change. For routes that do not record it themselves.
pub(super) async fn audited(State(auditor): State<Auditor>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) || only_keeps(&request) {
        return next.run(request).await;
    }
    match recorded(&auditor, request).await {
        Err(refused) => refused.into_response(),
        Ok((request, entry)) => {
            let answer = next.run(request).await;
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() {
                auditor.note_failure(entry, json!({ "status": status.as_u16() })).await;
            }
            answer
        }
    }
}

/// Whether it changes nothing, as what a client says every few seconds to keep what it has open: its volume must not depend on the trail.
fn only_keeps(request: &Request) -> bool {
    let route =
        request.extensions().get::<MatchedPath>().and_then(|route| route.as_str().strip_prefix(PREFIX));
    route == Some("/backend/sessions/{id}/renew")
}

async fn recorded(auditor: &Auditor, request: Request) -> Answer<(Request, AuditEntry)> {
    let (parts, body) = request.into_parts();
    let body = in_time(to_bytes(body, BODY)).await?.map_err(|_| {
        let error =
            Error::new(ErrorKind::Invalid, "read", "the body").because("it is cut, or longer than 2 MiB");
        Refused::from(error).with_status(StatusCode::PAYLOAD_TOO_LARGE)
    })?;
    let asker = Asker::of(&parts.extensions);
    let asker = asker.ok_or_else(|| Refused::unauthenticated("nobody is known to ask"))?;
    let route = parts.extensions.get::<MatchedPath>().map_or(parts.uri.path(), MatchedPath::as_str);
    let action = format!("{} {}", parts.method, route.strip_prefix(PREFIX).unwrap_or(route));
    let path = parts.uri.path();
    // The same things by the way of other deployments.
    let mut segments = path
        .strip_prefix(PREFIX)
        .unwrap_or(path)
        .split('/')
        .skip(1)
        .skip_while(|segment| *segment == "backend");
    let (kind, id) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let entry = AuditEntry { new: told(&parts, &body), ..asker.entry(&action, kind, &id) };
    auditor.record(&entry).await?;
    Ok((Request::from_parts(parts, Body::from(body)), entry))
}

/// What was asked for, without secrets.
fn told(parts: &Parts, body: &Bytes) -> Option<Value> {
    let mut told = serde_json::Map::new();
    if let Some(query) = parts.uri.query() {
        told.insert("query".to_owned(), hidden(&json!(query)));
    }
    if !body.is_empty() {
        let read = serde_json::from_slice(body).ok().filter(|_| body.len() <= KEPT);
        let shown = read.map_or_else(|| json!({ "bytes": body.len() }), |value: Value| hidden(&value));
        told.insert("body".to_owned(), shown);
    }
    (!told.is_empty()).then(|| told.into())
}

/// The same with whatever may be a secret hidden: by the name of its field, or as part of a URL.
fn hidden(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let one = |(name, value): (&String, &Value)| {
                let value = if is_secret(name) { json!(HIDDEN) } else { hidden(value) };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(one).collect())
        }
        Value::Array(values) => values.iter().map(hidden).collect(),
        Value::String(text) => json!(without_credentials(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["password", "secret", "token", "credential", "private"].iter().any(|word| name.contains(word))
}

/// A URL names who connects, and with which password, before an `@`.
fn without_credentials(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, place)) => format!("{scheme}://{HIDDEN}@{place}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l29_what_may_be_a_secret_is_not_kept() {
        let body = json!({
            "name": "web", "Password": "hunter2", "list": [{ "api_token": 7, "disk_key": "disk-2000" }],
            "url": "nbd://ada:hunter2@host/x", "plain": "a@b",
        });
        let expected = json!({
            "name": "web", "Password": "…", "list": [{ "api_token": "…", "disk_key": "disk-2000" }],
            "url": "nbd://…@host/x", "plain": "a@b",
        });
        assert_eq!(hidden(&body), expected);
    }
}
