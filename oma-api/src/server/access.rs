//! Who asks, and what they may ask for.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oma_core::state::TokenKind;
use oma_core::{Error, ErrorKind, JobId, Result, TokenId, UserId};

pub use oma_core::state::Role;

use super::problem::{Answer, Refused};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A name for logs and records.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The account that it is, when it is one.
    pub account: Option<Account>,
}

/// The account of a principal, and what it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: UserId,
    /// The token or session that was shown.
    pub token: TokenId,
    /// Which of both.
    pub kind: TokenKind,
    /// The jobs that the token sees when its bearer is an agent.
    pub jobs: BTreeSet<JobId>,
}

impl Principal {
    /// A principal without an account.
    #[must_use]
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, account: None }
    }

    /// The jobs that it sees: `None` for all. An agent without an account sees none.
    #[must_use]
    pub fn jobs(&self) -> Option<&BTreeSet<JobId>> {
        const NONE: &BTreeSet<JobId> = &BTreeSet::new();
        match self.role {
            Role::Agent => Some(self.account.as_ref().map_or(NONE, |account| &account.jobs)),
            Role::Viewer | Role::Operator | Role::Admin => None,
        }
    }

    /// Refuses a job that is another agent's, no other than one that is not there.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn sees(&self, job: &JobId) -> Result<()> {
        match self.jobs() {
            Some(jobs) if !jobs.contains(job) => Err(Error::new(ErrorKind::NotFound, "find job", job)),
            _ => Ok(()),
        }
    }

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
            return Err(Refused::unauthenticated(
                "send a token: `Authorization: Bearer TOKEN`; `oma` and `agent` read it from `--token-file`",
            ));
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
pub(super) async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    let needed = needed(request.method());
    let_in(&door, needed, request, next).await
}

/// Lets a request of any principal through: its handler says what it may do.
pub(super) async fn admit_any(State(door): State<Door>, request: Request, next: Next) -> Response {
    let_in(&door, Role::Agent, request, next).await
}

/// Lets agents through besides those whom [`admit`] lets: handlers show an agent its own jobs only.
pub(super) async fn admit_agents(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let admitted = async {
        let principal = admitted(&door, Role::Agent, method, uri, headers).await?;
        if principal.role != Role::Agent {
            principal.needs(needed(method), "change", &uri.path())?;
        }
        Ok(principal)
    };
    let admitted: Answer<Principal> = admitted.await;
    match admitted {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

/// Who may look, and who change.
const fn needed(method: &Method) -> Role {
    match *method {
        Method::GET | Method::HEAD => Role::Viewer,
        _ => Role::Operator,
    }
}

async fn let_in(door: &Door, needed: Role, mut request: Request, next: Next) -> Response {
    let asked = admitted(door, needed, request.method(), request.uri(), request.headers());
    match asked.await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

async fn admitted(
    door: &Door,
    needed: Role,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Answer<Principal> {
    let principal = door.admit(headers).await?;
    principal.needs(needed, "change", &uri.path())?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        tracing::info!(principal = principal.name, %method, path = uri.path(), "asked");
    }
    Ok(principal)
}
