//! Whether a daemon can do what it is there for, for load balancers and service managers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::future::{BoxFuture, join_all};
use oma_core::{Error, ErrorKind, Result, Retry};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::problem::Answer;
use super::problems::Problems;

/// How long a part may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// What was found is told for so long: anybody may ask, and a cloud counts its calls.
const FRESH: Duration = Duration::from_secs(2);

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// When it was looked last, and what was missing then.
type Found = (Instant, Vec<&'static str>);

/// Parts of a daemon that it needs; a clone is the same.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
    found: Arc<Mutex<Option<Found>>>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.checks.iter().map(|(part, _)| part).collect();
        f.debug_struct("Readiness").field("parts", &parts).finish_non_exhaustive()
    }
}

impl Readiness {
    /// Nothing is needed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and a part that is there as long as its check succeeds.
    #[must_use]
    pub fn needing<F>(mut self, part: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.checks.push((part, Arc::new(move || Box::pin(check()))));
        self
    }

    /// The parts that are not there. Asked by many at once, one looks.
    pub async fn missing(&self) -> Vec<&'static str> {
        let mut found = self.found.lock().await;
        if let Some((at, missing)) = &*found
            && at.elapsed() < FRESH
        {
            return missing.clone();
        }
        let looked = join_all(self.checks.iter().map(|(part, check)| look(part, check))).await;
        let missing: Vec<_> = looked.into_iter().flatten().collect();
        *found = Some((Instant::now(), missing.clone()));
        missing
    }
}

/// The part, if it is not there. Why, only the log is told: anybody may ask.
async fn look(part: &'static str, check: &Check) -> Option<&'static str> {
    match tokio::time::timeout(LIMIT, check()).await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => tracing::warn!(part, error = error.chain(), "not ready"),
        Err(_) => tracing::warn!(part, limit = ?LIMIT, "not ready: no answer in time"),
    }
    Some(part)
}

impl Api {
    /// With `/ready`, which needs no token.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        let group = OpenApiRouter::new().routes(routes!(ready)).with_state(readiness);
        self.add_open(group);
        self
    }
}

/// Everything is there.
#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    /// `ready`.
    status: &'static str,
    /// What was looked at.
    parts: Vec<&'static str>,
}

/// Whether the daemon can do what it is there for; the problem names what is missing. Needs no token
#[utoipa::path(get, path = "/ready", tag = "daemon", security(()), responses((status = 200, body = Ready), Problems))]
async fn ready(State(readiness): State<Readiness>) -> Answer<Json<Ready>> {
    let missing = readiness.missing().await;
    if missing.is_empty() {
        let parts = readiness.checks.iter().map(|(part, _)| *part).collect();
        return Ok(Json(Ready { status: "ready", parts }));
    }
    let reason = format!("not there: {}; the daemon's log says why", missing.join(", "));
    Err(Error::new(ErrorKind::Unavailable, "look at", "the daemon")
        .because(reason)
        .with_retry(Retry::Later)
        .into())
}
