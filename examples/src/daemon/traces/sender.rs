//! One request to the collector and its answer.

use std::error::Error as _;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::BytesMut;
use oma_core::{Error, ErrorKind, Result};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::{Client, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};

use super::named::{Named, refused};
use crate::failure::io_error;

/// No answer of a collector is longer.
const LARGEST: usize = 1 << 20;

/// Why the last request failed, which the exporter above does not tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cause(Arc<Mutex<Option<String>>>);

impl Cause {
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, told: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }
}

/// Asks a collector, from the exporter's thread and on nothing that the daemon needs itself. It follows no redirection, and no proxy is
/// taken from the environment: the headers may hold a secret.
pub(super) struct Sender {
    client: Client,
    runtime: Runtime,
    cause: Cause,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(named: &Named, cause: Cause) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Internal, "begin", "traces").with_source(error)
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.into()))?
            .with_root_certificates(authorities(named.authorities.as_deref())?)
            .with_no_client_auth();
        let client = Client::builder()
            .http1_only()
            .no_proxy()
            // Nobody looks after a connection between two exports.
            .pool_max_idle_per_host(0)
            .redirect(redirect::Policy::none())
            .timeout(named.limit)
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|error| failed(error.into()))?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| io_error("start", "the runtime of traces", error))?;
        Ok(Self { client, runtime, cause })
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
        let mut answer = self.client.execute(request.try_into()?).await?;
        let mut body = BytesMut::new();
        while let Some(part) = answer.chunk().await? {
            if body.len() + part.len() > LARGEST {
                break;
            }
            body.extend_from_slice(&part);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The thread is the exporter's own, and belongs to no runtime.
        let answer = self.runtime.block_on(self.ask(request)).map_err(|error| {
            let error = error.without_url();
            self.cause.keep(chain(&error));
            error
        })?;
        if !answer.status().is_success() {
            self.cause.keep(format!("the collector answers {}", answer.status()));
        }
        Ok(answer)
    }
}

fn chain(error: &reqwest::Error) -> String {
    let mut told = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        told.push_str(": ");
        told.push_str(&error.to_string());
        below = error.source();
    }
    told
}

/// Who may certify a collector.
fn authorities(named: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let Some(path) = named else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    };
    let wrong = || refused(path.display(), "it is to hold certificates of authorities, in PEM");
    for certificate in CertificateDer::pem_file_iter(path).map_err(|_| wrong())? {
        store.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
    }
    if store.is_empty() { Err(wrong()) } else { Ok(store) }
}
