//! Accounts: logging in and out, users, tokens, and the audit trail.

mod authenticator;
mod password;
mod session;
mod tokens;
mod trail;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use oma_core::record::AttemptLimits;
use oma_core::traits::{Accounts, AuditLog};
use oma_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use super::audit::Auditor;
use super::problem::Answer;
use crate::Page;

pub use authenticator::{AccountTokens, AnyOf, first_admin};
pub use password::Passwords;

/// How logins are limited, and how long sessions last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginConfig {
    /// How long a session lasts, in minutes.
    pub session_minutes: u32,
    /// After so many attempts with a wrong password an account is locked.
    pub attempts_per_account: u32,
    /// After so many attempts a client's address is.
    pub attempts_per_address: u32,
    /// Attempts of longer ago are forgotten, in minutes.
    pub window_minutes: u32,
    /// How long a lock lasts, in minutes.
    pub lock_minutes: u32,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self {
            session_minutes: 12 * 60,
            attempts_per_account: 5,
            attempts_per_address: 30,
            window_minutes: 15,
            lock_minutes: 15,
        }
    }
}

impl LoginConfig {
    fn limits(&self, attempts: u32) -> AttemptLimits {
        let (window, lock) = (minutes(self.window_minutes), minutes(self.lock_minutes));
        AttemptLimits { attempts: attempts.max(1), window, lock }
    }

    fn session(&self) -> Duration {
        minutes(self.session_minutes)
    }
}

fn minutes(count: u32) -> Duration {
    Duration::from_secs(u64::from(count.max(1)) * 60)
}

/// What the routes of accounts work with.
#[derive(Clone, Debug)]
pub struct AccountRoutes {
    accounts: Arc<dyn Accounts>,
    audit: Arc<dyn AuditLog>,
    auditor: Auditor,
    passwords: Passwords,
    config: LoginConfig,
}

impl AccountRoutes {
    /// Over these accounts; what changes goes into this trail.
    #[must_use]
    pub fn new(
        accounts: Arc<dyn Accounts>,
        audit: Arc<dyn AuditLog>,
        passwords: Passwords,
        config: LoginConfig,
    ) -> Self {
        let auditor = Auditor::new(audit.clone());
        Self { accounts, audit, auditor, passwords, config }
    }

    /// What the changes of all routes are recorded with.
    pub(super) fn auditor(&self) -> Auditor {
        self.auditor.clone()
    }
}

/// For whoever looks and changes by their role.
pub(super) fn group(routes: AccountRoutes) -> OpenApiRouter {
    OpenApiRouter::new().merge(users::group()).merge(trail::group()).with_state(routes)
}

/// For every principal, whatever its role.
pub(super) fn personal(routes: AccountRoutes) -> OpenApiRouter {
    OpenApiRouter::new().merge(session::personal()).merge(tokens::group()).with_state(routes)
}

/// What needs no token.
pub(super) fn open(routes: AccountRoutes) -> OpenApiRouter {
    OpenApiRouter::new().merge(session::open()).with_state(routes)
}

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Part {
    /// How many at most: 100 if it is not said, never more than 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// `next` of the page before.
    after: Option<String>,
}

impl Part {
    fn limit(&self) -> u16 {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }

    /// What the page before ended with.
    fn after<K>(&self, parse: impl FnOnce(&str) -> Option<K>) -> Answer<Option<K>> {
        let Some(text) = &self.after else { return Ok(None) };
        let key = parse(text).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "read the list behind", text).because(
                "no page of it ended there; give the `next` of the page before as `after`, or leave it out",
            )
        })?;
        Ok(Some(key))
    }

    /// The first of a list, and what to give as `after` to read on.
    async fn page<T, R>(
        &self,
        list: BoxStream<'_, Result<T>>,
        id: impl Fn(&T) -> String,
        row: impl Fn(&T) -> R,
    ) -> Answer<Page<R>> {
        use futures_util::StreamExt as _;
        let limit = usize::from(self.limit());
        let mut items: Vec<T> = list.take(limit + 1).try_collect().await?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(id);
        Ok(Page { items: items.iter().map(row).collect(), next })
    }
}
