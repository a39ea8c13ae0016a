//! What is told of replications: their steps, and lines for readers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use oma_core::record::{LogEvent, LogFilter, Page as LogPage, PageStart};
use oma_core::state::LogLevel;
use oma_core::{Error, ErrorKind, JobId, LogId, Result};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ReplicationRoutes;
use super::events::StreamedEvent;
use crate::server::audit::Asker;
use crate::server::extract::{InPath, InQuery};
use crate::server::paging::{Part, never_answered, page};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{JobLineRow, JobStepRow, Page};

/// After that whoever follows asks again, as browsers do by themselves.
const LONGEST: Duration = Duration::from_mins(5);
/// How often the records are looked at.
const PACE: Duration = Duration::from_secs(1);
/// So many looks after the job has ended nothing more is told of it.
const LAST_LOOKS: u32 = 3;
/// Lines that are read at once for a follower.
const AT_ONCE: u32 = 500;

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(steps)).routes(routes!(lines)).routes(routes!(follow))
}

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those that matter at least so much: `DEBUG`, `INFO`, `WARN` or `ERROR`.
    #[param(value_type = Option<String>, pattern = "^(DEBUG|INFO|WARN|ERROR)$")]
    level: Option<LogLevel>,
    /// Only those of the step of this number.
    step: Option<u32>,
}

impl Which {
    fn of(&self, job: &JobId) -> LogFilter {
        LogFilter { job: Some(job.clone()), step: self.step, least: self.level }
    }
}

/// Behind which line to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Behind {
    /// The number of a line: those behind it are told, or all. `Last-Event-ID` goes before it.
    after: Option<u64>,
}

/// The steps of a replication, attempt by attempt, in their order; of an agent's own
#[utoipa::path(get, path = "/replications/{job_id}/steps", tag = "replications",
    params(("job_id" = String, Path), Part), responses((status = 200, body = Page<JobStepRow>), Problems))]
async fn steps(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<JobStepRow>>> {
    let job = routes.visible(&asker.principal, &id).await?;
    let after = part.after_number()?.unwrap_or_default();
    let (steps, next) =
        part.cut(routes.job_log.steps(&id, after, part.enough()).await?, |step| step.number.to_string());
    Ok(Json(page(steps.iter().map(|step| JobStepRow::new(&job, step)).collect(), next)))
}

/// What is told of a replication, oldest first
#[utoipa::path(get, path = "/replications/{job_id}/logs", tag = "replications",
    params(("job_id" = String, Path), Which, Part), responses((status = 200, body = Page<JobLineRow>), Problems))]
async fn lines(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
    InQuery(which): InQuery<Which>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<JobLineRow>>> {
    routes.visible(&asker.principal, &id).await?;
    let start = part.after_number()?.map_or(PageStart::Oldest, |after| PageStart::After(LogId(after)));
    let asked = LogPage { start, limit: part.enough() };
    let lines = routes.logs.events(&which.of(&id), &asked).await?;
    let (lines, next) = part.cut(lines, |(id, _)| id.to_string());
    Ok(Json(page(lines.iter().map(|(id, event)| JobLineRow::new(*id, event)).collect(), next)))
}

/// Follow what is told of a replication: an event `line` for each line, its `id` the line's number, until the replication has
/// ended, the daemon does or five minutes are over
#[utoipa::path(get, path = "/replications/{job_id}/logs/follow", tag = "replications",
    params(("job_id" = String, Path), Which, Behind),
    responses((status = 200, body = StreamedEvent, content_type = "text/event-stream"), Problems))]
async fn follow(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
    InQuery(which): InQuery<Which>,
    InQuery(behind): InQuery<Behind>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = std::result::Result<Event, Infallible>>>> {
    routes.visible(&asker.principal, &id).await?;
    let last = last_heard(&headers)?.or(behind.after).map(LogId);
    let following = Following {
        filter: which.of(&id),
        routes,
        id,
        last,
        waiting: VecDeque::new(),
        looks: 0,
        is_first: true,
        until: Instant::now() + LONGEST,
    };
    let told = stream::unfold(following, async |mut following| {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::default()))
}

/// What a browser that comes back says that it heard last.
fn last_heard(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(last) = headers.get("last-event-id") else { return Ok(None) };
    let number = last.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| never_answered(&String::from_utf8_lossy(last.as_bytes())))
}

struct Following {
    routes: ReplicationRoutes,
    id: JobId,
    filter: LogFilter,
    last: Option<LogId>,
    waiting: VecDeque<(LogId, LogEvent)>,
    /// Looks at a job that has ended in which nothing was found.
    looks: u32,
    is_first: bool,
    until: Instant,
}

impl Following {
    /// The next line; `None` once there is none any more.
    async fn next(&mut self) -> Option<Event> {
        while self.waiting.is_empty() {
            if self.looks >= LAST_LOOKS {
                return None;
            }
            if !std::mem::take(&mut self.is_first) {
                tokio::select! {
                    () = self.routes.stop.cancelled() => return None,
                    () = tokio::time::sleep_until(self.until) => return None,
                    () = tokio::time::sleep(PACE) => {}
                }
            }
            if let Err(error) = self.look().await {
                self.looks = LAST_LOOKS;
                return Some(Event::default().event("error").data(error.chain()));
            }
        }
        let (id, event) = self.waiting.pop_front()?;
        self.last = Some(id);
        // A line at once, however many wait.
        self.is_first = true;
        let row = JobLineRow::new(id, &event);
        Event::default().event("line").id(id.to_string()).json_data(&row).ok()
    }

    async fn look(&mut self) -> Result<()> {
        let job = self.routes.replicator.services().jobs.get(&self.id).await?;
        let gone = || Error::new(ErrorKind::NotFound, "follow replication", &self.id);
        let job = job.ok_or_else(|| gone().because("its record was removed"))?;
        let start = self.last.map_or(PageStart::Oldest, PageStart::After);
        let found = self.routes.logs.events(&self.filter, &LogPage { start, limit: AT_ONCE }).await?;
        // How a job ended is told after it has.
        self.looks = if job.status.is_terminal() && found.is_empty() { self.looks + 1 } else { 0 };
        self.waiting.extend(found);
        Ok(())
    }
}
