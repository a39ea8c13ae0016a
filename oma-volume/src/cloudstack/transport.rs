//! One request and its answer over HTTP: `POST`, always, so that neither the API key nor a signature stands in a URL.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use hyper::{Method, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::config::CloudStackConfig;
use super::error::CloudError;

/// A page of 500 volumes with their tags has less than 2 MiB.
const LARGEST_ANSWER: usize = 32 << 20;
const LARGEST_FILE: usize = 1 << 20;
const IDLE: Duration = Duration::from_secs(30);

/// An answer of whoever is at the endpoint.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// What `Retry-After` says, where it counts seconds.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoReply {
    /// The request was not sent: nothing was done.
    NotSent(String),
    /// It may have been sent: nobody knows whether it was done.
    Lost(String),
}

/// Sends a signed form and answers what comes back.
#[async_trait]
pub(super) trait Transport: fmt::Debug + Send + Sync + 'static {
    async fn post(&self, form: String) -> Result<Reply, NoReply>;
}

/// The endpoint over HTTP/1.1, with TLS unless the configuration allows to go without. It follows no redirection: a signed
/// request goes to whom it was signed for.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    limit: Duration,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Http {
    /// Reads files, connects to nobody yet.
    pub(super) fn new(config: &CloudStackConfig) -> Result<Self, CloudError> {
        let endpoint = endpoint(config)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(config.connect_limit));
        tcp.set_nodelay(true);
        let tls = tls(config.ca_file.as_deref())?;
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(https);
        Ok(Self { client, endpoint, limit: config.request_limit })
    }

    async fn exchange(&self, form: String) -> Result<Reply, NoReply> {
        let request = hyper::Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| NoReply::NotSent(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| match error.is_connect() {
            true => NoReply::NotSent(causes(&error)),
            false => NoReply::Lost(causes(&error)),
        })?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| NoReply::Lost(error.to_string()))?.to_bytes();
        Ok(Reply { status, retry_after, body })
    }
}

#[async_trait]
impl Transport for Http {
    async fn post(&self, form: String) -> Result<Reply, NoReply> {
        let answer = tokio::time::timeout(self.limit, self.exchange(form)).await;
        answer.unwrap_or_else(|_| {
            Err(NoReply::Lost(format!("no answer came within {} s", self.limit.as_secs_f32())))
        })
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error with its causes: that of the HTTP library alone only says that it failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

fn endpoint(config: &CloudStackConfig) -> Result<Uri, CloudError> {
    let refused = |problem| CloudError::Endpoint { problem };
    let uri: Uri = config.endpoint.parse().map_err(|_| refused("it is no URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(refused("it is no whole URL"));
    };
    if authority.as_str().contains('@') || uri.query().is_some() {
        return Err(refused("it carries a user, a password or a query"));
    }
    match scheme {
        "https" => Ok(uri),
        "http" if config.allow_plain_http || is_loopback(authority.host()) => Ok(uri),
        "http" => Err(refused("it is not encrypted; use https, or allow_plain_http where the way is safe")),
        _ => Err(refused("its scheme is neither https nor http")),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls(authorities: Option<&Path>) -> Result<ClientConfig, CloudError> {
    let store = match authorities {
        Some(path) => named(path)?,
        None => system(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|_| CloudError::Tls)?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// What this machine trusts. None at all is told by the first request over TLS, which fails; one without needs none.
fn system() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

fn named(path: &Path) -> Result<RootCertStore, CloudError> {
    let refused = |source| CloudError::Authorities { path: path.to_owned(), source };
    let damaged = |problem| refused(io::Error::new(io::ErrorKind::InvalidData, problem));
    let pem = std::fs::read(path).map_err(refused)?;
    if pem.len() > LARGEST_FILE {
        return Err(damaged("it is longer than a file of certificates can be"));
    }
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map(|certificate| store.add(certificate));
        if !matches!(added, Ok(Ok(()))) {
            return Err(damaged(
                "it is not PEM throughout, or has a certificate that cannot be an authority",
            ));
        }
    }
    if store.is_empty() { Err(damaged("it has no certificate")) } else { Ok(store) }
}

#[cfg(test)]
mod tests;
