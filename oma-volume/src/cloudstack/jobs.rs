//! Commands that the cloud carries out as jobs, each under an id that we mint before we send it (L19).
//!
//! ```text
//!  send with customjobid ─▶ answered ─────────────────▶ follow the job to its end
//!                        └▶ lost ─▶ ask for the job ─▶ known: follow it
//!                                                    └ unknown: never accepted; the same may be sent again
//! ```
//!
//! The record of a job ends a day after it; and one that was at work when its management server was restarted ends without a
//! result. In both cases only the thing itself tells what became of it, so callers look at it then
//! ([`CloudError::is_told_by_the_thing`]).

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Client, read};
use super::config::CloudStackConfig;
use super::error::CloudError;
use super::pauses::Pauses;
use super::refusal::{Refusal, one_line};
use super::request::Request;

/// How often a command that was never accepted is sent. Once, where that takes a new proof: by then the volume may be somebody else's.
const SENDS: usize = 3;
/// How often the cloud is asked for a job whose acceptance was not heard of. The request may still be on its way.
const LOOKS: usize = 3;

type Result<T, E = CloudError> = std::result::Result<T, E>;

/// The id of a job to be, and what that allows.
#[derive(Clone, Copy, Debug)]
pub(super) enum JobName {
    /// Of this call alone. Sent again, the same id makes no second job.
    Fresh,
    /// The same, kept by the caller: a job with it may be under way already, and is followed then. One that is over by now is told
    /// as [`CloudError::JobOver`].
    Kept(Uuid),
    /// The same for the same intent: it may be there already. Such a command is sent once and never again by itself, because the
    /// cloud makes a thing before it looks whether the job's id is taken.
    Derived(Uuid),
}

/// A job as the cloud describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Job {
    jobstatus: i64,
    #[serde(default)]
    jobresultcode: Option<i64>,
    #[serde(default)]
    jobresult: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Accepted {
    jobid: String,
}

/// Sends commands and waits for their jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    client: Arc<Client>,
    first_pause: Duration,
    longest_pause: Duration,
    limit: Duration,
}

impl Jobs {
    pub(super) fn new(client: Arc<Client>, config: &CloudStackConfig) -> Self {
        let (first_pause, longest_pause) = (config.first_pause, config.longest_pause);
        Self { client, first_pause, longest_pause, limit: config.job_limit }
    }

    pub(super) fn pauses(&self) -> Pauses {
        Pauses::new(self.first_pause, self.longest_pause)
    }

    /// Carries a command out and answers what its job left.
    pub(super) async fn run(&self, request: Request, name: JobName) -> Result<Value> {
        let command = request.command();
        let (id, sends) = match name {
            JobName::Fresh => (Uuid::new_v4(), SENDS),
            JobName::Kept(id) => (id, SENDS),
            JobName::Derived(id) => (id, 1),
        };
        let sends = if request.is_on_proof() { 1 } else { sends };
        let request = request.with("customjobid", &id);
        let mut last = CloudError::NeverAccepted { command };
        for _ in 0..sends {
            match self.submit(&request, id, name).await {
                Ok(job) => return self.follow(command, &job).await,
                Err(error @ CloudError::NeverAccepted { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The id that the cloud has given the job, which is ours.
    async fn submit(&self, request: &Request, id: Uuid, name: JobName) -> Result<String> {
        let error = match self.client.ask::<Accepted>(request).await {
            Ok(accepted) => return Ok(accepted.jobid),
            Err(error) => error,
        };
        if error.is_uncertain() {
            return self.look(request.command(), id, error).await;
        }
        // An id that is taken is refused as a bad parameter while the job runs, and as a failure of the database afterwards. It may be
        // taken by this very request: something on the way can deliver it twice.
        if error.is_refused_with(&[431, 530])
            && let Some(job) = self.find(&id.to_string()).await?
        {
            return match name {
                JobName::Kept(_) if job.is_over() => Err(CloudError::JobOver { command: request.command() }),
                _ => Ok(id.to_string()),
            };
        }
        Err(error)
    }

    /// Asks for a job whose acceptance was not heard of.
    async fn look(&self, command: &'static str, id: Uuid, lost: CloudError) -> Result<String> {
        let mut pauses = self.pauses();
        let mut reached = false;
        for _ in 0..LOOKS {
            match self.find(&id.to_string()).await {
                Ok(Some(_)) => return Ok(id.to_string()),
                Ok(None) => reached = true,
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
            sleep(pauses.next_pause()).await;
        }
        if reached { Err(CloudError::NeverAccepted { command }) } else { Err(lost) }
    }

    /// A job by its id; `None` when no job has it, or none has it any more.
    pub(super) async fn find(&self, id: &str) -> Result<Option<Job>> {
        let request = Request::new("queryAsyncJobResult").with("jobid", id);
        match self.client.call(&request).await {
            Ok(answer) => read(request.command(), answer).map(Some),
            Err(CloudError::Refused { refusal, .. }) if refusal.is_unknown_id() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a job is there and over.
    pub(super) async fn is_over(&self, id: Uuid) -> Result<bool> {
        Ok(self.find(&id.to_string()).await?.is_some_and(|job| job.is_over()))
    }

    /// Waits for the end of a job that may be there, however it ends; whether it is there.
    pub(super) async fn settle(&self, command: &'static str, id: Uuid) -> Result<bool> {
        let id = id.to_string();
        if self.find(&id).await?.is_none() {
            return Ok(false);
        }
        match self.follow(command, &id).await {
            Err(error) if error.has_ended() => Ok(true),
            end => end.map(|_| true),
        }
    }

    /// Waits for the end of a job.
    pub(super) async fn follow(&self, command: &'static str, id: &str) -> Result<Value> {
        let ends = Instant::now() + self.limit;
        let mut pauses = self.pauses();
        loop {
            match self.find(id).await {
                Ok(Some(job)) => {
                    if let Some(end) = job.end(command) {
                        return end;
                    }
                }
                Ok(None) => return Err(CloudError::JobForgotten { command }),
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= ends {
                return Err(CloudError::JobLate { command, waited: self.limit });
            }
            sleep(pauses.next_pause()).await;
        }
    }
}

impl Job {
    fn is_over(&self) -> bool {
        self.jobstatus != 0
    }

    /// How it ended; `None` while it has not.
    fn end(self, command: &'static str) -> Option<Result<Value>> {
        let code = self.jobresultcode.and_then(|code| u64::try_from(code).ok());
        match (self.jobstatus, self.jobresult) {
            (0, _) => None,
            (1, result) => Some(Ok(result.unwrap_or_default())),
            (_, Some(Value::Object(result))) => {
                let code = result.get("errorcode").and_then(Value::as_u64).or(code);
                let refusal = Refusal::read(code.unwrap_or(530), &result);
                Some(Err(CloudError::JobFailed { command, refusal }))
            }
            (_, Some(Value::String(text))) => {
                let code = code.unwrap_or(530);
                let refusal = Refusal { code, detail: None, text: one_line(&text) };
                Some(Err(CloudError::JobFailed { command, refusal }))
            }
            (_, _) => Some(Err(CloudError::JobCut { command })),
        }
    }
}

#[cfg(test)]
mod tests {
    use oma_core::ErrorKind;
    use serde_json::json;

    use super::super::script::{Script, jobs};
    use super::*;

    const QUERY: &str = "queryAsyncJobResult";

    fn attach() -> Request {
        Request::new("attachVolume").with("id", "v")
    }

    fn done() -> Value {
        json!({"jobstatus": 1, "jobresultcode": 0, "jobresult": {"volume": {"id": "v"}}})
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_followed_under_our_id_to_its_end() {
        let script = Script::new()
            .answers("attachVolume", json!({"jobid": "j"}))
            .answers(QUERY, json!({"jobstatus": 0}))
            .answers(QUERY, json!({"jobstatus": 0}))
            .answers(QUERY, done());
        let result = jobs(&script).run(attach(), JobName::Fresh).await.unwrap();
        assert_eq!(result["volume"]["id"], "v");
        let sent = script.sent();
        let id = sent[0].value("customjobid").expect("the job has an id of ours");
        assert!(id.parse::<Uuid>().is_ok() && id == id.to_lowercase(), "{id}");
        assert_eq!(script.count(QUERY), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn l19_a_lost_answer_is_resolved_by_our_id_and_nothing_is_sent_twice() {
        let script = Script::new().loses("attachVolume").answers(QUERY, done());
        jobs(&script).run(attach(), JobName::Fresh).await.unwrap();
        assert_eq!(script.count("attachVolume"), 1);
        let sent = script.sent();
        assert_eq!(sent[0].value("customjobid"), sent[1].value("jobid"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_accepted_is_sent_again_under_the_same_id() {
        let script = Script::new()
            .loses("attachVolume")
            .answers("attachVolume", json!({"jobid": "j"}))
            .unknown_id(QUERY)
            .unknown_id(QUERY)
            .unknown_id(QUERY)
            .answers(QUERY, done());
        jobs(&script).run(attach(), JobName::Fresh).await.unwrap();
        let sent: Vec<_> = script.sent().into_iter().filter(|sent| sent.command == "attachVolume").collect();
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0].value("customjobid"), sent[1].value("customjobid"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_arrived_late_is_followed_when_the_second_is_refused() {
        let script = Script::new()
            .loses("attachVolume")
            .refuses("attachVolume", 431, Some(4350), "already exists")
            .unknown_id(QUERY)
            .unknown_id(QUERY)
            .unknown_id(QUERY)
            .answers(QUERY, done());
        jobs(&script).run(attach(), JobName::Fresh).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_derived_job_is_sent_once_and_found_when_it_is_there() {
        let name = JobName::Derived(Uuid::from_u128(7));
        let taken =
            Script::new().refuses("attachVolume", 530, Some(4250), "duplicate").answers(QUERY, done());
        jobs(&taken).run(attach(), name).await.unwrap();
        let lost = Script::new().loses("attachVolume").unknown_id(QUERY);
        let error = jobs(&lost).run(attach(), name).await.unwrap_err();
        assert!(matches!(error, CloudError::NeverAccepted { .. }), "{error}");
        assert_eq!(lost.count("attachVolume"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn l02_a_change_on_a_proof_is_sent_once_for_that_proof() {
        for name in [JobName::Fresh, JobName::Kept(Uuid::from_u128(7))] {
            let script = Script::new().loses("detachVolume").unknown_id(QUERY);
            let error = jobs(&script).run(Request::on_proof("detachVolume", "v"), name).await.unwrap_err();
            assert!(matches!(error, CloudError::NeverAccepted { .. }), "{error}");
            assert_eq!(script.count("detachVolume"), 1, "{name:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn l21_who_cannot_ask_does_not_say_never_accepted() {
        let script = Script::new().loses("attachVolume").loses(QUERY);
        let error = jobs(&script).run(attach(), JobName::Fresh).await.unwrap_err();
        assert!(error.is_uncertain(), "{error}");
        assert_eq!(error.about("attach", "v").kind(), ErrorKind::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_job_is_told_by_its_codes() {
        let failed = json!({"jobstatus": 2, "jobresultcode": 535, "jobresult": {"errorcode": 535, "errortext": "full"}});
        let historic = json!({"jobstatus": 2, "jobresultcode": 530, "jobresult": "plain text"});
        let odd = json!({"jobstatus": 2, "jobresultcode": -1, "jobresult": "plain text"});
        for (job, kind) in
            [(failed, ErrorKind::NoSpace), (historic, ErrorKind::Unavailable), (odd, ErrorKind::Unavailable)]
        {
            let script = Script::new().answers("attachVolume", json!({"jobid": "j"})).answers(QUERY, job);
            let error = jobs(&script).run(attach(), JobName::Fresh).await.unwrap_err();
            assert!(!error.is_told_by_the_thing());
            assert_eq!(error.about("attach", "v").kind(), kind);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cut_and_forgotten_jobs_are_told_by_the_thing_and_late_ones_have_not_ended() {
        let cut = json!({"jobstatus": 2, "jobresultcode": 530});
        let cancelled = json!({"jobstatus": 3});
        let accepted = || Script::new().answers("attachVolume", json!({"jobid": "j"}));
        for script in [
            accepted().answers(QUERY, cut),
            accepted().answers(QUERY, cancelled),
            accepted().unknown_id(QUERY),
        ] {
            let error = jobs(&script).run(attach(), JobName::Fresh).await.unwrap_err();
            assert!(error.is_told_by_the_thing() && error.has_ended(), "{error}");
        }
        let late = accepted().answers(QUERY, json!({"jobstatus": 0}));
        let error = jobs(&late).run(attach(), JobName::Fresh).await.unwrap_err();
        assert!(!error.has_ended() && !error.is_told_by_the_thing(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_refused_because_it_came_twice_is_followed() {
        let script = Script::new()
            .refuses("attachVolume", 431, Some(4350), "already exists")
            .answers(QUERY, json!({"jobstatus": 0}))
            .answers(QUERY, done());
        jobs(&script).run(attach(), JobName::Fresh).await.unwrap();
        let refused = Script::new().refuses("attachVolume", 431, Some(4350), "no").unknown_id(QUERY);
        let error = jobs(&refused).run(attach(), JobName::Fresh).await.unwrap_err();
        assert!(error.is_refused_with(&[431]), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_poll_is_polled_again_and_a_refused_one_is_told() {
        let accepted = || Script::new().answers("attachVolume", json!({"jobid": "j"}));
        let shaky = accepted().loses(QUERY).raw(QUERY, 502, "<html>").answers(QUERY, done());
        jobs(&shaky).run(attach(), JobName::Fresh).await.unwrap();
        let refused = accepted().refuses(QUERY, 401, None, "key disabled");
        let error = jobs(&refused).run(attach(), JobName::Fresh).await.unwrap_err();
        assert_eq!(error.about("attach", "v").kind(), ErrorKind::PermissionDenied);
    }
}
