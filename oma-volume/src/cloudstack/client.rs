//! Signed requests to one endpoint, as many at once as configured, slower where the server asks for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oma_core::Clock;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use super::config::CloudStackConfig;
use super::envelope::{self, Answer};
use super::error::CloudError;
use super::keys::Keys;
use super::pauses::Pauses;
use super::request::Request;
use super::signature::signed_form;
use super::transport::{NoReply, Transport};

/// Longest pause before a request that was refused for now is sent again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const MOST_IN_FLIGHT: usize = 1024;
/// Longest time that a request waits for its turn which is good only as long as a proof is.
const PROOF_LASTS: Duration = Duration::from_secs(5);

type Result<T, E = CloudError> = std::result::Result<T, E>;

/// Signs, sends and reads.
#[derive(Debug)]
pub(super) struct Client {
    transport: Arc<dyn Transport>,
    keys: Keys,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
    patience: Duration,
    first_pause: Duration,
    /// Nobody sends before: one that was refused speaks for all.
    resumes: Mutex<Option<Instant>>,
}

/// Why one try failed, and what the server said of when to come again.
struct Failed {
    error: CloudError,
    retry_after: Option<Duration>,
}

impl Client {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        keys: Keys,
        clock: Arc<dyn Clock>,
        config: &CloudStackConfig,
    ) -> Self {
        Self {
            transport,
            keys,
            clock,
            permits: Semaphore::new(config.in_flight.clamp(1, MOST_IN_FLIGHT)),
            patience: config.patience,
            first_pause: config.first_pause,
            resumes: Mutex::new(None),
        }
    }

    /// What the server answers. A request that it has no time for (429, 503) is sent again until the patience ends, unless it is good
    /// only as long as a proof is. One whose answer was lost may have been done, so it is sent again only if it asks, and once:
    /// connections break while they rest.
    pub(super) async fn call(&self, request: &Request) -> Result<Value> {
        let ends = Instant::now() + self.patience;
        let mut may_be_lost = request.only_asks();
        let mut pauses = Pauses::new(self.first_pause, LONGEST_PAUSE);
        loop {
            let failed = match self.once(request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if may_be_lost && matches!(failed.error, CloudError::Lost { .. }) {
                may_be_lost = false;
                continue;
            }
            let pause = pauses.next_pause().max(failed.retry_after.unwrap_or_default());
            let resumes = Instant::now().checked_add(pause).filter(|resumes| *resumes <= ends);
            let (Some(resumes), true) = (resumes, failed.error.is_not_now(request.only_asks())) else {
                return Err(failed.error);
            };
            tracing::debug!(command = request.command(), ?pause, error = %failed.error, "asked to wait");
            self.hold_until(resumes);
            if request.is_on_proof() {
                return Err(failed.error);
            }
        }
    }

    /// The same, read as what it should be.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        read(request.command(), self.call(request).await?)
    }

    async fn once(&self, request: &Request) -> Result<Value, Failed> {
        let plain = |error| Failed { error, retry_after: None };
        let _turn = self.turn(request).await.map_err(plain)?;
        let form = signed_form(&self.keys, self.clock.now(), request);
        let command = request.command();
        let reply = self.transport.post(form).await.map_err(|error| {
            plain(match error {
                NoReply::NotSent(problem) => CloudError::NotSent { command, problem },
                NoReply::Lost(problem) => CloudError::Lost { command, problem },
            })
        })?;
        let error = match envelope::read(reply.status, &reply.body, self.keys.api()) {
            Answer::Result(value) => return Ok(value),
            Answer::Refused(refusal) => CloudError::Refused { command, refusal },
            Answer::Foreign { status, problem } => CloudError::Foreign { command, status, problem },
        };
        Err(Failed { error, retry_after: reply.retry_after })
    }

    async fn turn(&self, request: &Request) -> Result<SemaphorePermit<'_>> {
        let turn = async {
            self.wait().await;
            self.permits.acquire().await.expect("the semaphore is never closed")
        };
        if !request.is_on_proof() {
            return Ok(turn.await);
        }
        timeout(PROOF_LASTS, turn).await.map_err(|_| CloudError::PutOff { command: request.command() })
    }

    fn hold_until(&self, resumes: Instant) {
        let mut held = self.resumes.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(held.map_or(resumes, |held| held.max(resumes)));
    }

    async fn wait(&self) {
        let held = *self.resumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resumes) = held {
            sleep_until(resumes).await;
        }
    }
}

/// Reads a part of an answer.
pub(super) fn read<T: DeserializeOwned>(command: &'static str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|source| CloudError::Unreadable { command, source })
}

#[cfg(test)]
mod tests {
    use oma_core::ErrorKind;
    use serde_json::json;

    use super::super::jobs::{JobName, Jobs};
    use super::super::script::{Script, client, config};
    use super::*;

    fn list_zones() -> Request {
        Request::list_all("listZones")
    }

    fn create() -> Request {
        Request::new("createVolume").with("name", "n")
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_signed_and_its_answer_is_opened() {
        let script = Script::new().answers("listZones", json!({"count": 0}));
        assert_eq!(client(&script).call(&list_zones()).await.unwrap(), json!({"count": 0}));
        let sent = script.sent();
        assert_eq!(sent.len(), 1);
        for part in [
            "command=listZones",
            "listall=true",
            "apikey=api",
            "signatureversion=3",
            "expires=",
            "signature=",
        ] {
            assert!(sent[0].form.contains(part), "{part}: {}", sent[0].form);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_requests_are_tried_again_when_the_server_says() {
        let script = Script::new()
            .busy("createVolume", 429, Some(7))
            .busy("createVolume", 503, None)
            .answers("createVolume", json!({"id": "v"}));
        let begun = Instant::now();
        client(&script).call(&create()).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(7500), "{:?}", begun.elapsed());
        assert_eq!(script.sent().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_told_to_wait_holds_the_others_back() {
        let script = Script::new()
            .busy("createVolume", 429, Some(20))
            .answers("listZones", json!({}))
            .answers("createVolume", json!({}));
        let client = client(&script);
        let begun = Instant::now();
        let (first, other) = (create(), list_zones());
        let second = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.call(&other).await.map(|_| begun.elapsed())
        };
        let (first, second) = tokio::join!(client.call(&first), second);
        first.unwrap();
        assert!(second.unwrap() >= Duration::from_secs(20));
    }

    /// A proof is old by the time that the cloud has time again.
    #[tokio::test(start_paused = true)]
    async fn l02_a_change_on_a_proof_is_neither_put_off_nor_sent_again() {
        let detach = Request::on_proof("detachVolume", "v");
        for code in [429, 503] {
            let script = Script::new()
                .busy("detachVolume", code, Some(20))
                .answers("detachVolume", json!({"jobid": "j"}))
                .answers("listZones", json!({}));
            let client = client(&script);
            let refused = client.call(&detach).await.unwrap_err();
            assert!(refused.is_refused_with(&[code.into()]), "{refused}");
            let put_off = client.call(&detach).await.unwrap_err();
            assert!(matches!(put_off, CloudError::PutOff { .. }), "{put_off}");
            assert!(!put_off.is_uncertain());
            let error = put_off.about("detach", "v");
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, oma_core::Retry::Later));
            assert_eq!(script.count("detachVolume"), 1, "{code}");
            // What proves it anew waits, and then it has its turn.
            client.call(&list_zones()).await.unwrap();
            client.call(&detach).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_has_an_end() {
        let mut script = Script::new();
        for _ in 0..100 {
            script = script.busy("listZones", 429, None);
        }
        let begun = Instant::now();
        let error = client(&script).call(&list_zones()).await.unwrap_err().about("ask", "cloud");
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, oma_core::Retry::Later));
        assert!(begun.elapsed() <= Duration::from_mins(2), "{:?}", begun.elapsed());
        for long in [3600, u64::MAX] {
            let impatient = Script::new().busy("listZones", 429, Some(long));
            client(&impatient).call(&list_zones()).await.unwrap_err();
            assert_eq!(impatient.sent().len(), 1, "an hour is not waited for");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_asked_for_once_more_where_that_changes_nothing() {
        let script = Script::new().loses("listZones").answers("listZones", json!({})).loses("createVolume");
        client(&script).call(&list_zones()).await.unwrap();
        assert!(client(&script).call(&create()).await.unwrap_err().is_uncertain());
        assert_eq!((script.count("listZones"), script.count("createVolume")), (2, 1));
        let broken = Script::new().loses("listZones");
        client(&broken).call(&list_zones()).await.unwrap_err();
        assert_eq!(broken.sent().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_has_no_server_is_asked_again_only_what_changes_nothing() {
        let page = || Script::new().raw("createVolume", 503, "<html>").raw("listZones", 503, "<html>");
        let script = page().answers("listZones", json!({}));
        client(&script).call(&list_zones()).await.unwrap();
        let error = client(&script).call(&create()).await.unwrap_err();
        assert!(error.is_uncertain(), "the server behind it may have begun: {error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_never_repeats_the_key() {
        let text = "unable to find user with apikey api";
        let script = Script::new().refuses("listZones", 401, None, text);
        let error = client(&script).call(&list_zones()).await.unwrap_err().about("ask", "cloud");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.chain().contains("(API key)"), "{}", error.chain());
    }

    #[tokio::test(start_paused = true)]
    async fn l29_no_part_of_the_key_is_left_where_a_text_is_cut() {
        let (key, padding) = ("K3Y".repeat(20), "x".repeat(380));
        let keys = Keys::new(&key, "secret").unwrap();
        let text = format!("{padding} {key}");
        let job =
            json!({"jobstatus": 2, "jobresultcode": 530, "jobresult": {"errorcode": 530, "errortext": text}});
        let script = Script::new()
            .refuses("listZones", 431, None, &text)
            .answers("detachVolume", json!({"jobid": "j"}))
            .answers("queryAsyncJobResult", job);
        let config = config();
        let client = Arc::new(Client::new(Arc::new(script), keys, Arc::new(oma_core::SystemClock), &config));
        let refused = client.call(&list_zones()).await.unwrap_err();
        let jobs = Jobs::new(client, &config);
        let failed = jobs.run(Request::new("detachVolume"), JobName::Fresh).await.unwrap_err();
        for error in [refused, failed] {
            let text = error.about("ask", "cloud").chain();
            assert!(!text.contains("K3Y") && text.contains("(API key)"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_make_no_sense_are_told_apart_from_lost_ones() {
        let script = Script::new().raw("listZones", 200, "[]").answers("listZones", json!({"count": "many"}));
        let client = client(&script);
        let foreign = client.call(&list_zones()).await.unwrap_err().about("ask", "cloud");
        assert_eq!(foreign.kind(), ErrorKind::Unavailable);
        #[derive(Debug, serde::Deserialize)]
        struct Counted {
            #[expect(dead_code, reason = "it is not read")]
            count: u64,
        }
        let unreadable = client.ask::<Counted>(&list_zones()).await.unwrap_err().about("ask", "cloud");
        assert_eq!(unreadable.kind(), ErrorKind::Corrupt);
    }
}
