//! One request and its answer.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::{RemoteConfig, Token};
use super::error::Failure;
use super::tls::tls;
use crate::Problem;
use crate::backend::{DAEMON_HEADER, PROTOCOL, PROTOCOL_HEADER};

/// Where routes begin.
const API: [&str; 2] = ["api", "v1"];
/// Where the backend routes begin.
const ROUTES: [&str; 3] = ["api", "v1", "backend"];
/// No answer but a list is longer.
const LARGEST_ANSWER: usize = 1 << 20;
/// What has lists of extents may be longer.
const LARGEST_LIST: usize = 64 << 20;
/// A connection that says nothing is looked after so often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// So often in vain, and the other machine is gone.
const KEEPALIVES: u32 = 3;
/// What was sent is not acknowledged for so long: the other machine is gone.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);
/// A connection that nobody uses is kept so long: half as long as the daemon keeps it, which would close it under a request.
const IDLE: Duration = Duration::from_secs(15);

/// A volume daemon over HTTP/1.1. It follows no redirection, and no proxy is taken from the environment: a token goes to whom it was
/// given for.
pub(super) struct Http {
    client: Client,
    base: Url,
    token: Option<Token>,
    name: String,
    /// The deployment of the daemon that answers: named by the configuration, else by its first answer.
    daemon: OnceLock<String>,
    /// Whether the daemon runs on this machine.
    is_local: bool,
    allows_plain: bool,
    answer_limit: Duration,
    /// With what the certificate of the other end is checked, for readers.
    checked: String,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("daemon", &self.name).finish_non_exhaustive()
    }
}

impl Http {
    /// Reads files, connects to nobody yet.
    pub(super) fn new(config: &RemoteConfig, token: Option<Token>) -> Result<Self, Failure> {
        let builder = Client::builder()
            .connect_timeout(config.connect_limit)
            .http1_only()
            .no_proxy()
            .pool_idle_timeout(IDLE)
            .redirect(redirect::Policy::none())
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(KEEPALIVES)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .tls_backend_preconfigured(tls(config.ca_file.as_deref())?);
        let (builder, base, name, is_local) = match config.address.strip_prefix("unix:") {
            Some(path) => {
                let base = Url::parse("http://localhost").map_err(|_| Failure::Address("it is no URL"))?;
                (builder.unix_socket(socket(path)?), base, config.address.clone(), true)
            }
            None => {
                let base = url(config)?;
                let name = authority(&base);
                let is_local = base.host_str().is_some_and(is_loopback);
                (builder, base, name, is_local)
            }
        };
        let client = builder.build().map_err(Failure::SetUp)?;
        let daemon = OnceLock::new();
        if let Some(named) = &config.daemon {
            daemon.get_or_init(|| named.to_string());
        }
        let allows_plain = config.allow_plain_http;
        let answer_limit = config.answer_limit;
        let checked = checked(config);
        Ok(Self { client, base, token, name, daemon, is_local, allows_plain, answer_limit, checked })
    }

    /// Which daemon it is, for readers and in names.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How long to wait for what is due at once.
    pub(super) const fn answer_limit(&self) -> Duration {
        self.answer_limit
    }

    /// Waits for what is due at once.
    pub(super) async fn promptly<T>(
        &self,
        asked: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        promptly(self.answer_limit, asked).await
    }

    /// Whether what the daemon says of an export can be used from here: it serves on a socket or an address of its own machine, where
    /// another one would be shown this client's certificate, or without TLS.
    pub(super) fn check_content(&self, uri: &str) -> Result<(), Failure> {
        let is_here =
            || Url::parse(uri).ok().and_then(|url| url.host_str().map(leads_here)).unwrap_or_default();
        match uri.split_once(':').map(|(scheme, _)| scheme) {
            _ if self.is_local => Ok(()),
            Some("nbd+unix" | "nbds+unix") => Err(Failure::Elsewhere),
            Some("nbd" | "nbds") if is_here() => Err(Failure::ContentOnLoopback),
            Some("nbd") if !self.allows_plain => Err(Failure::PlainContent),
            _ => Ok(()),
        }
    }

    /// Who answers is the same all the time (L21).
    fn check_daemon(&self, response: &Response) -> Result<(), Failure> {
        let found = response.headers().get(DAEMON_HEADER).map_or("", |value| value.to_str().unwrap_or("?"));
        let known = self.daemon.get_or_init(|| found.to_owned());
        if known == found {
            return Ok(());
        }
        Err(Failure::OtherDaemon { known: known.clone(), found: found.escape_debug().to_string() })
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Response, Failure> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(self.client.get(url)).await
    }

    pub(super) async fn send_to(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Response, Failure> {
        self.send(self.client.request(method, self.url(path)?).json(body)).await
    }

    /// Sends a request; what comes back is an answer of the backend routes.
    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Failure> {
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header().clone());
        }
        let response = request.send().await.map_err(|error| Failure::of_first(error, &self.checked))?;
        match response.headers().get(PROTOCOL_HEADER).map(|value| value.to_str().unwrap_or("?")) {
            None => Err(not_ours(response).await),
            Some(PROTOCOL) if response.status().is_success() => {
                self.check_daemon(&response).map(|()| response)
            }
            Some(PROTOCOL) => Err(Failure::Refused(Box::new(read(response).await?))),
            Some(version) => Err(Failure::Version(version.escape_debug().to_string())),
        }
    }

    /// Asks a route that is not one of backends.
    pub(super) async fn ask<B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        asked: Asked<'_, B>,
    ) -> Result<Answered, Failure> {
        let mut url = self.place(&API, path)?;
        if !asked.query.is_empty() {
            url.query_pairs_mut().extend_pairs(asked.query);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header().clone());
        }
        if let Some(key) = asked.key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = asked.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| Failure::of_first(error, &self.checked))?;
        let content = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_problem = content.is_some_and(|content| content.starts_with("application/problem+json"));
        match response.status() {
            status if status.is_success() => Ok(Answered(response)),
            StatusCode::UNAUTHORIZED => Err(not_ours(response).await),
            _ if is_problem => Err(Failure::Refused(Box::new(read(response).await?))),
            _ => Err(not_ours(response).await),
        }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        self.place(&ROUTES, path)
    }

    fn place(&self, routes: &[&str], path: &[&str]) -> Result<Url, Failure> {
        // A URL has no segments of this name.
        if path.iter().any(|segment| matches!(*segment, "." | ".." | "")) {
            return Err(Failure::NoSegment);
        }
        let mut url = self.base.clone();
        let mut segments = url.path_segments_mut().map_err(|()| Failure::NoSegment)?;
        segments.pop_if_empty().extend(routes).extend(path);
        drop(segments);
        Ok(url)
    }
}

/// What a request has besides its path.
#[derive(Debug)]
pub(super) struct Asked<'a, B> {
    pub(super) query: &'a [(&'a str, &'a str)],
    /// What makes it answer the same again.
    pub(super) key: Option<&'a str>,
    pub(super) body: Option<&'a B>,
}

impl<B> Default for Asked<'_, B> {
    fn default() -> Self {
        Self { query: &[], key: None, body: None }
    }
}

/// An answer that was none of a refusal.
pub(super) struct Answered(Response);

impl Answered {
    /// Its body.
    pub(super) async fn body<T: DeserializeOwned>(self) -> Result<T, Failure> {
        read_within(self.0, LARGEST_LIST).await
    }

    /// Its body, if it has one.
    pub(super) async fn maybe<T: DeserializeOwned>(self) -> Result<Option<T>, Failure> {
        match self.0.status() {
            StatusCode::NO_CONTENT => Ok(None),
            _ => self.body().await.map(Some),
        }
    }

    /// It says that all is done, and no more: whatever else comes is not of a route that does so.
    pub(super) async fn nothing(self) -> Result<(), Failure> {
        match self.0.status() {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(not_ours(self.0).await),
        }
    }
}

/// Waits for what is due at once.
pub(super) async fn promptly<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, asked).await.unwrap_or(Err(Failure::Late(limit)))
}

/// An answer that the backend routes did not give: nothing that it says is believed of a volume (L21).
async fn not_ours(response: Response) -> Failure {
    let status = response.status();
    let content = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content = content.map_or_else(|| "nothing".to_owned(), |text| text.escape_debug().to_string());
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let told = read::<Problem>(response).await.map(|problem| problem.detail);
        return Failure::Denied(told.unwrap_or_else(|_| status.to_string()));
    }
    Failure::Foreign { status, content }
}

/// The body of an answer.
pub(super) async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Failure> {
    read_within(response, LARGEST_ANSWER).await
}

async fn read_within<T: DeserializeOwned>(mut response: Response, limit: usize) -> Result<T, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Failure::of_request)? {
        if body.len() + chunk.len() > limit {
            return Err(Failure::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(Failure::Garbled)
}

fn checked(config: &RemoteConfig) -> String {
    match (&config.ca_file, &config.sought) {
        (Some(path), _) => format!("the authorities in {}", path.display()),
        (None, Some(path)) => format!("those that this machine trusts, as there is no {}", path.display()),
        (None, None) => "those that this machine trusts".to_owned(),
    }
}

fn socket(path: &str) -> Result<&Path, Failure> {
    let path = Path::new(path);
    if path.is_absolute() { Ok(path) } else { Err(Failure::Address("write unix:/PATH/TO/SOCKET")) }
}

pub(super) fn url(config: &RemoteConfig) -> Result<Url, Failure> {
    let url = Url::parse(&config.address)
        .map_err(|_| Failure::Address("it is no URL; write https://HOST:PORT or unix:/PATH/TO/SOCKET"))?;
    let Some(host) = url.host_str() else { return Err(Failure::Address("it has no host")) };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(Failure::Address("it carries a user, a password or a query"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if config.allow_plain_http || is_loopback(host) => Ok(url),
        "http" => {
            Err(Failure::Address("it is not encrypted; use https, or allow_plain_http where the way is safe"))
        }
        _ => Err(Failure::Address("its scheme is neither https nor http nor unix")),
    }
}

/// Host and port.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a host of an export is that of whoever asks, wherever that is.
fn leads_here(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l29_what_another_machine_serves_on_its_loopback_is_not_dialled_here() {
        let http = |address: &str| Http::new(&RemoteConfig::new(address), None).unwrap();
        let (far, near) = (http("https://oma.example:8090"), http("https://127.0.0.1:8090"));
        for host in [
            "127.0.0.1",
            "127.8.9.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
            "[::]",
            "LOCALHOST",
            "a.localhost.",
        ] {
            let uri = format!("nbds://{host}:10809/a");
            let failure = far.check_content(&uri).unwrap_err();
            assert!(matches!(failure, Failure::ContentOnLoopback), "{uri}: {failure}");
            assert!(failure.to_string().contains("nbd.listen") && failure.to_string().contains("nbd.host"));
            assert!(near.check_content(&uri).is_ok(), "{uri}");
        }
        for host in ["192.0.2.7", "[2001:db8::7]", "oma.example", "localhost.example"] {
            assert!(far.check_content(&format!("nbds://{host}/a")).is_ok(), "{host}");
        }
    }

    #[test]
    fn what_another_machine_serves_for_itself_only_is_not_looked_for_here() {
        let http = |address: &str, allow_plain_http| {
            let config = RemoteConfig { allow_plain_http, ..RemoteConfig::new(address) };
            Http::new(&config, None).unwrap()
        };
        let (far, near) = (http("https://oma.example:8090", false), http("unix:/run/volumed.sock", false));
        for uri in ["nbd+unix:///a?socket=/run/nbd.sock", "nbd://oma.example/a"] {
            assert!(far.check_content(uri).is_err(), "{uri}");
            assert!(near.check_content(uri).is_ok(), "{uri}");
        }
        assert!(far.check_content("nbds://oma.example/a").is_ok());
        assert!(http("http://oma.example:8090", true).check_content("nbd://oma.example/a").is_ok());
    }
}
