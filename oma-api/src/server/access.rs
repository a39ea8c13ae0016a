//! Who asks, and what they may ask for.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oma_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::problem::{Answer, Refused};

/// What a principal may do; each role may do all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes volumes.
    Operator,
    /// Also what nobody can undo for whoever operates.
    Admin,
}

impl Role {
    /// All, from the least.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Fixed label for files, arguments and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A name for logs and records.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Principal {
    /// Refuses who may less.
    pub(super) fn needs(&self, needed: Role, what: &'static str, on: &impl fmt::Display) -> Answer<()> {
        if self.role >= needed {
            return Ok(());
        }
        let reason = format!("{} is {}; this needs the role {needed}", self.name, self.role);
        tracing::warn!(principal = self.name, what, %on, "refused");
        Err(Error::new(ErrorKind::PermissionDenied, what, on).because(reason).into())
    }
}

/// Knows tokens.
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Whose token it is; `None` when it is nobody's.
    async fn principal(&self, token: &str) -> Result<Option<Principal>>;
}

/// How requests come in, and who is let in there.
#[derive(Clone, Debug)]
pub enum Door {
    /// Each request bears a token (RFC 6750: `Authorization: Bearer TOKEN`).
    Tokens(Arc<dyn Authenticator>),
    /// Whoever comes this way is this principal: only for a way that others cannot come, such as a socket that only its owner opens.
    Open(Principal),
}

impl Door {
    async fn admit(&self, headers: &HeaderMap) -> Answer<Principal> {
        let authenticator = match self {
            Self::Open(principal) => return local(headers).map(|()| principal.clone()),
            Self::Tokens(authenticator) => authenticator,
        };
        let Some(header) = headers.get(header::AUTHORIZATION) else {
            return Err(Refused::unauthenticated("send a token: `Authorization: Bearer TOKEN`"));
        };
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let Some(token) = token else {
            return Err(Refused::unauthenticated("the header is to read `Authorization: Bearer TOKEN`"));
        };
        let known = authenticator.principal(token).await.map_err(|error| {
            tracing::error!(error = error.chain(), "tokens cannot be checked");
            Error::new(ErrorKind::Unavailable, "check", "a token").because("the daemon's log says why")
        })?;
        known.ok_or_else(|| {
            tracing::warn!("refused a token that nobody has");
            Refused::unauthenticated("nobody has this token; ask for another one")
        })
    }
}

/// Refuses what a page of the web has a browser on this machine ask, by its own name or another's (DNS rebinding).
fn local(headers: &HeaderMap) -> Answer<()> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_local =
        name.is_empty() || name == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if is_local && !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let error = Error::new(ErrorKind::PermissionDenied, "ask", "without a token");
    Err(error.because("this comes from a web page, or by a name other than localhost; use a token").into())
}

/// Lets a request through when its principal may look, or change what it is about to change. Handlers find the [`Principal`] among the
/// extensions.
pub(super) async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let asked = admitted(&door, request.method(), request.uri(), request.headers());
    match asked.await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

async fn admitted(door: &Door, method: &Method, uri: &Uri, headers: &HeaderMap) -> Answer<Principal> {
    let principal = door.admit(headers).await?;
    let needed = match *method {
        Method::GET | Method::HEAD => Role::Viewer,
        _ => Role::Operator,
    };
    principal.needs(needed, "change", &uri.path())?;
    if needed > Role::Viewer {
        tracing::info!(principal = principal.name, %method, path = uri.path(), "asked");
    }
    Ok(principal)
}
