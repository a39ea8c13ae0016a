//! How far a replication is, told as it moves (server-sent events, WHATWG HTML section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use oma_core::{Error, ErrorKind, JobId, Result};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ReplicationRoutes;
use crate::ProgressRow;
use crate::server::audit::Asker;
use crate::server::extract::InPath;
use crate::server::problem::Answer;
use crate::server::problems::Problems;

/// After that whoever follows asks again, as browsers do by themselves, and is let in again, or not.
const LONGEST: Duration = Duration::from_mins(5);

/// How often the records are looked at: whoever drives the job tells them, here or on another machine.
const PACE: Duration = Duration::from_secs(1);

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(events))
}

/// An event of a stream, by the fields of its text.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "here for the document")]
pub(super) struct StreamedEvent {
    /// What happened.
    event: String,
    /// More of it: a row in JSON.
    data: String,
    /// To follow on behind it (`Last-Event-ID`), where that can be.
    id: Option<String>,
}

/// Follow a replication: an event `progress` each time that it moves, until it has ended, the daemon does or five minutes are over
#[utoipa::path(get, path = "/replications/{job_id}/events", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 200, body = StreamedEvent, content_type = "text/event-stream"), Problems))]
async fn events(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    routes.visible(&asker.principal, &id).await?;
    let told = stream::unfold(
        Following { routes, id, last: None, ended: false, until: Instant::now() + LONGEST },
        async |mut following| {
            let event = following.next().await?;
            Some((Ok(event), following))
        },
    );
    Ok(Sse::new(told).keep_alive(KeepAlive::default()))
}

struct Following {
    routes: ReplicationRoutes,
    id: JobId,
    last: Option<ProgressRow>,
    ended: bool,
    until: Instant,
}

impl Following {
    /// The next news; `None` once there is none any more.
    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            if self.last.is_some() {
                tokio::select! {
                    () = self.routes.stop.cancelled() => return None,
                    () = tokio::time::sleep_until(self.until) => return None,
                    () = tokio::time::sleep(PACE) => {}
                }
            }
            let row = match self.look().await {
                Ok(row) => row,
                Err(error) => {
                    self.ended = true;
                    return Some(Event::default().event("error").data(error.chain()));
                }
            };
            self.ended = row.status.is_terminal();
            if self.last.as_ref() != Some(&row) {
                let event = Event::default().event("progress").json_data(&row).ok();
                self.last = Some(row);
                return event;
            }
        }
        None
    }

    async fn look(&self) -> Result<ProgressRow> {
        let jobs = &self.routes.replicator.services().jobs;
        let gone = || {
            Error::new(ErrorKind::NotFound, "follow replication", &self.id).because("its record was removed")
        };
        let job = jobs.get(&self.id).await?.ok_or_else(gone)?;
        let told = jobs.progress(&self.id).await?;
        Ok(ProgressRow::new(&job, told.as_ref()))
    }
}
