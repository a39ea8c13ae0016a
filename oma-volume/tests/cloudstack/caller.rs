//! A client of a few lines for the fake's own tests. It signs with the fake's own function, which the vectors prove.

use std::collections::BTreeMap;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::fake::params::Params;
use super::fake::signature::sign;
use super::fake::{Fake, Keys};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    /// The only key, and what is below it.
    pub(crate) fn envelope(&self) -> (String, Value) {
        let whole: Value = serde_json::from_str(&self.text).unwrap();
        let mut fields = whole.as_object().unwrap().clone().into_iter();
        let only = fields.next().unwrap();
        assert!(fields.next().is_none(), "{}", self.text);
        only
    }

    /// What is below the key, of a success.
    pub(crate) fn body(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.envelope().1
    }

    /// `errorcode`, `cserrorcode` and `errortext`, of a refusal.
    pub(crate) fn refusal(&self) -> (u16, u64, String) {
        let body = self.envelope().1;
        assert_eq!(body["errorcode"], self.status, "{}", self.text);
        assert!(body["uuidList"].is_array(), "{}", self.text);
        let text = body["errortext"].as_str().unwrap().to_owned();
        (self.status, body["cserrorcode"].as_u64().unwrap_or_default(), text)
    }
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    address: String,
    pub(crate) keys: Keys,
}

impl Caller {
    pub(crate) fn new(fake: &Fake, keys: &Keys) -> Self {
        Self::at(&fake.url, keys)
    }

    pub(crate) fn at(url: &str, keys: &Keys) -> Self {
        let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
        Self { address, keys: keys.clone() }
    }

    pub(crate) fn user(fake: &Fake) -> Self {
        Self::new(fake, &fake.user)
    }

    pub(crate) fn admin(fake: &Fake) -> Self {
        Self::new(fake, &fake.admin)
    }

    /// Key and format added, signed, not yet encoded.
    pub(crate) fn signed(&self, command: &str, pairs: &[(&str, &str)]) -> String {
        let mut all = vec![("command", command), ("apikey", self.keys.key.as_str()), ("response", "json")];
        all.extend(pairs);
        let signature = sign(&Params::of(&all), &self.keys.secret);
        all.push(("signature", &signature));
        form(&all)
    }

    /// A signed POST; an answer, if there was one.
    pub(crate) async fn try_call(&self, command: &str, pairs: &[(&str, &str)]) -> Option<Answer> {
        self.send("POST", "", &self.signed(command, pairs)).await
    }

    pub(crate) async fn call(&self, command: &str, pairs: &[(&str, &str)]) -> Answer {
        self.try_call(command, pairs).await.expect("an answer")
    }

    /// The body of a success.
    pub(crate) async fn done(&self, command: &str, pairs: &[(&str, &str)]) -> Value {
        self.call(command, pairs).await.body()
    }

    /// The refusal of a command: code, class, text.
    pub(crate) async fn refused(&self, command: &str, pairs: &[(&str, &str)]) -> (u16, u64, String) {
        self.call(command, pairs).await.refusal()
    }

    /// A command with a job, asked about until it ends: the result, or code and text of the failure.
    pub(crate) async fn job(&self, command: &str, pairs: &[(&str, &str)]) -> Result<Value, (u64, String)> {
        let accepted = self.done(command, pairs).await;
        self.result(accepted["jobid"].as_str().unwrap()).await
    }

    /// What became of a job.
    pub(crate) async fn result(&self, job: &str) -> Result<Value, (u64, String)> {
        loop {
            let state = self.done("queryAsyncJobResult", &[("jobid", job)]).await;
            let result = &state["jobresult"];
            match state["jobstatus"].as_u64().unwrap() {
                0 => {}
                1 => return Ok(result.clone()),
                _ => {
                    let text = result["errortext"].as_str().unwrap_or("no result").to_owned();
                    return Err((state["jobresultcode"].as_u64().unwrap(), text));
                }
            }
        }
    }

    /// A volume of so many GiB.
    pub(crate) async fn create(&self, fake: &Fake, name: &str, gib: &str) -> Uuid {
        let (zone, offering) = (fake.zone.to_string(), fake.offering.to_string());
        let params =
            [("zoneid", zone.as_str()), ("diskofferingid", &offering), ("name", name), ("size", gib)];
        let created = self.job("createVolume", &params).await.unwrap();
        id(&created["volume"]["id"])
    }

    pub(crate) async fn attach(&self, fake: &Fake, volume: Uuid) -> Result<Value, (u64, String)> {
        let (volume, machine) = (volume.to_string(), fake.appliance.to_string());
        self.job("attachVolume", &[("id", &volume), ("virtualmachineid", &machine)]).await
    }

    pub(crate) async fn detach(&self, volume: Uuid) -> Result<Value, (u64, String)> {
        self.job("detachVolume", &[("id", &volume.to_string())]).await
    }

    /// One request as it is.
    pub(crate) async fn send(&self, method: &str, query: &str, body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = format!(
            "{method} /client/api?{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        // A connection that is cut may end in a reset.
        let _ = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, text) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = u16::from_str(lines.next()?.split(' ').nth(1)?).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Some(Answer { status, headers, text: text.to_owned() })
    }
}

pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

pub(crate) fn id(value: &Value) -> Uuid {
    Uuid::parse_str(value.as_str().unwrap()).unwrap()
}
