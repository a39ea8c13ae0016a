//! From a request to its answer: faults, the signature, the command, the envelope.

use serde_json::Value;

use super::answer::{Reply, envelope, xml};
use super::commands::{self, Call};
use super::error::ApiError;
use super::expiry::is_in_time;
use super::faults::What;
use super::params::Params;
use super::signature::is_signed;
use super::world::{Caller, World};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) params: Params,
    pub(crate) post: bool,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// Header `X-Description`.
    pub(crate) description: Option<String>,
    /// Header `Retry-After`.
    pub(crate) retry_after: Option<u32>,
    pub(crate) body: String,
}

impl World {
    /// Serves one request; `None` cuts the connection.
    pub(crate) fn serve(&mut self, arrived: &Arrived) -> Option<Served> {
        self.let_go();
        let command = arrived.params.exact("command").unwrap_or_default().to_owned();
        *self.calls.entry(command.clone()).or_default() += 1;
        if self.faults.is(&command, What::LoseRequest) {
            return None;
        }
        if self.faults.is(&command, What::Hold) {
            self.held.push(arrived.clone());
            return None;
        }
        if self.faults.is(&command, What::Twice) {
            let _ = self.once(&command, arrived);
        }
        let outcome = self.once(&command, arrived);
        let lost = self.faults.is(&command, What::LoseResponse);
        // Asked in any case, so that what is lost by chance depends on the number of the call only.
        (!self.faults.is_lost() && !lost).then(|| served(&arrived.params, outcome))
    }

    /// Serves the requests that were held up; whether each one was let in.
    pub(crate) fn deliver(&mut self) -> Vec<bool> {
        let held = std::mem::take(&mut self.held);
        let name = |arrived: &Arrived| arrived.params.exact("command").unwrap_or_default().to_owned();
        held.iter().map(|arrived| self.once(&name(arrived), arrived).is_ok()).collect()
    }

    fn once(&mut self, name: &str, arrived: &Arrived) -> Result<Reply, ApiError> {
        let known = commands::find(name);
        let enforced = self.options.post_and_timestamps;
        if enforced && !arrived.post && known.is_some_and(|command| !command.only_reads()) {
            let text = format!("State changing command {name} needs to be sent using POST request");
            return Err(ApiError::bad_request(text));
        }
        let caller = self.authenticate(&arrived.params).ok_or_else(ApiError::unauthorized)?;
        // An unknown command is no other error than a wrong signature.
        let command = known.ok_or_else(ApiError::unauthorized)?;
        if let Some(error) = self.refused_by_fault(name) {
            return Err(error);
        }
        commands::dispatch(self, command, Call { caller, params: arrived.params.clone() })
    }

    fn refused_by_fault(&mut self, command: &str) -> Option<ApiError> {
        self.faults.take(command, |what| match what {
            What::Throttle(retry_after) => Some(ApiError::throttled(retry_after)),
            What::Unavailable => Some(ApiError::unavailable()),
            _ => None,
        })
    }

    /// Who signed it.
    fn authenticate(&self, params: &Params) -> Option<Caller> {
        let key = params.text("apikey")?;
        let account = self.accounts.iter().find(|account| account.keys.key == key && account.enabled)?;
        let in_time = is_in_time(params, self.clock.now(), self.options.post_and_timestamps);
        let caller = Caller { account: account.id, role: account.role };
        (in_time && is_signed(params, &account.keys.secret)).then_some(caller)
    }
}

fn served(params: &Params, outcome: Result<Reply, ApiError>) -> Served {
    let command = params.exact("command").and_then(commands::find);
    let own_key = command.map(|command| command.response_key());
    let (status, key, body, error) = match outcome {
        Ok(reply) => (200, own_key, reply.body(), None),
        // 432 and what is no command have no key of their own.
        Err(error) => (error.code, own_key.filter(|_| error.code != 432), error.body(), Some(error)),
    };
    let answer: Value = envelope(&key.unwrap_or_else(|| "errorresponse".to_owned()), body);
    let json = params.exact("response").is_some_and(|form| form.eq_ignore_ascii_case("json"));
    let (content_type, body) = if json {
        ("application/json; charset=UTF-8", answer.to_string())
    } else {
        ("text/xml; charset=UTF-8", xml(&answer))
    };
    let retry_after = error.as_ref().and_then(|error| error.retry_after);
    let description = error.filter(|error| error.code != 401).map(|error| error.text);
    Served { status, content_type, description, retry_after, body }
}
