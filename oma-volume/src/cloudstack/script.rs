//! A server that answers what a test wrote down: for each command its answers in turn, the last one ever after.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oma_core::SystemClock;
use serde_json::{Value, json};

use super::client::Client;
use super::config::CloudStackConfig;
use super::jobs::Jobs;
use super::keys::Keys;
use super::transport::{NoReply, Reply, Transport};

/// What was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) command: String,
    pub(super) form: String,
}

impl Sent {
    /// A parameter of it. Values of tests need no decoding.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

type Answer = Result<Reply, &'static str>;

#[derive(Debug, Default)]
struct Inner {
    answers: HashMap<String, VecDeque<Answer>>,
    sent: Vec<Sent>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Script(Arc<Mutex<Inner>>);

impl Script {
    pub(super) fn new() -> Self {
        Self::default()
    }

    #[expect(clippy::needless_pass_by_value, reason = "answers are written where they are given")]
    pub(super) fn answers(self, command: &str, result: Value) -> Self {
        let key = format!("{}response", command.to_lowercase());
        self.raw(command, 200, &json!({ key: result }).to_string())
    }

    pub(super) fn refuses(self, command: &str, code: u16, detail: Option<u64>, text: &str) -> Self {
        let mut error = json!({"uuidList": [], "errorcode": code, "errortext": text});
        if let Some(detail) = detail {
            error["cserrorcode"] = json!(detail);
        }
        let key = format!("{}response", command.to_lowercase());
        self.raw(command, code, &json!({ key: error }).to_string())
    }

    pub(super) fn busy(self, command: &str, code: u16, seconds: Option<u64>) -> Self {
        let whole = self.refuses(command, code, Some(4545), "later");
        let retry_after = seconds.map(Duration::from_secs);
        if let Some(Ok(reply)) = whole.0.lock().unwrap().answers.get_mut(command).and_then(VecDeque::back_mut)
        {
            reply.retry_after = retry_after;
        }
        whole
    }

    pub(super) fn raw(self, command: &str, status: u16, body: &str) -> Self {
        let reply = Reply { status, retry_after: None, body: Bytes::copy_from_slice(body.as_bytes()) };
        self.push(command, Ok(reply))
    }

    /// The connection breaks before an answer.
    pub(super) fn loses(self, command: &str) -> Self {
        self.push(command, Err("connection reset"))
    }

    /// An id that names nothing.
    pub(super) fn unknown_id(self, command: &str) -> Self {
        let text = "Invalid parameter value due to incorrect long value format, or entity does not exist";
        self.refuses(command, 431, Some(9999), text)
    }

    fn push(self, command: &str, answer: Answer) -> Self {
        self.0.lock().unwrap().answers.entry(command.to_owned()).or_default().push_back(answer);
        self
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.0.lock().unwrap().sent.clone()
    }

    /// How often a command was sent.
    pub(super) fn count(&self, command: &str) -> usize {
        self.sent().iter().filter(|sent| sent.command == command).count()
    }
}

#[async_trait]
impl Transport for Script {
    async fn post(&self, form: String) -> Result<Reply, NoReply> {
        let mut inner = self.0.lock().unwrap();
        let mut sent = Sent { command: String::new(), form };
        sent.command = sent.value("command").unwrap_or_default().to_owned();
        inner.sent.push(sent.clone());
        let answers = inner.answers.get_mut(&sent.command);
        let answers = answers.unwrap_or_else(|| panic!("nobody wrote down what {} answers", sent.command));
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        answer.unwrap().map_err(|problem| NoReply::Lost(problem.to_owned()))
    }
}

pub(super) fn config() -> CloudStackConfig {
    CloudStackConfig::new("http://127.0.0.1:1/client/api", "zone", "offering", "vm")
}

pub(super) fn client(script: &Script) -> Client {
    let keys = Keys::new("api", "secret").unwrap();
    Client::new(Arc::new(script.clone()), keys, Arc::new(SystemClock), &config())
}

pub(super) fn jobs(script: &Script) -> Jobs {
    Jobs::new(Arc::new(client(script)), &config())
}
