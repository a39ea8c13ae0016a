//! Figures for a collector, in Prometheus' text format: what the routes and the backend are asked is counted as it happens, how everything
//! stands is looked up when the collector asks.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oma_core::traits::VolumeBackend;
use oma_core::{Error, ErrorKind, Result};
use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tracing::Instrument as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::metered::MeteredBackend;
use super::problem::Answer;
use super::problems::Problems;
use super::traced;

/// Seconds that answers of routes and calls of the backend are sorted by.
const BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];

/// How long one source of figures may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Tells how something stands.
#[async_trait]
pub(super) trait Figure: fmt::Debug + Send + Sync {
    async fn tell(&self, page: &FigurePage) -> Result<()>;
}

/// The figures of a daemon; a clone is the same.
#[derive(Clone)]
pub struct Figures {
    shared: Arc<Shared>,
}

struct Shared {
    requests: IntCounterVec,
    latencies: HistogramVec,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    looked_up: Mutex<Vec<Arc<dyn Figure>>>,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self::new()
    }
}

impl Figures {
    /// Nothing was counted yet.
    ///
    /// # Panics
    /// Never: names and buckets are constants that are good.
    #[must_use]
    pub fn new() -> Self {
        const GOOD: &str = "the name and the labels are good";
        let counter =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(GOOD);
        let histogram = |name, help, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels).expect(GOOD)
        };
        let shared = Shared {
            requests: counter(
                "oma_api_requests_total",
                "Requests that were answered, by route and status",
                &["method", "route", "status"],
            ),
            latencies: histogram(
                "oma_api_request_seconds",
                "How long routes took to begin their answers",
                &["method", "route"],
            ),
            calls: counter(
                "oma_backend_calls_total",
                "Calls of the volume backend, by what was asked and what came of it",
                &["call", "outcome"],
            ),
            call_seconds: histogram(
                "oma_backend_call_seconds",
                "How long calls of the volume backend took",
                &["call"],
            ),
            looked_up: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same backend, whose calls are counted here.
    #[must_use]
    pub fn metered(&self, backend: Arc<dyn VolumeBackend>) -> Arc<dyn VolumeBackend> {
        Arc::new(MeteredBackend::new(backend, self.clone()))
    }

    pub(super) fn called<T>(&self, call: &str, begun: Instant, answer: &Result<T>) {
        let outcome = answer.as_ref().err().map_or("ok", |error| error.kind().as_str());
        self.shared.calls.with_label_values(&[call, outcome]).inc();
        self.shared.call_seconds.with_label_values(&[call]).observe(begun.elapsed().as_secs_f64());
    }

    /// Another part of the daemon tells how it stands.
    pub(super) fn look_up(&self, figure: impl Figure + 'static) {
        self.looked_up().push(Arc::new(figure));
    }

    /// What others are asked, this one asks from now on.
    pub(super) fn take_over(&self, other: &Self) {
        let figures = std::mem::take(&mut *other.looked_up());
        self.looked_up().extend(figures);
    }

    fn looked_up(&self) -> MutexGuard<'_, Vec<Arc<dyn Figure>>> {
        self.shared.looked_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them. What cannot be looked up is missing, and logged.
    async fn text(&self) -> Result<String> {
        let page = FigurePage(Registry::new());
        let Shared { requests, latencies, calls, call_seconds, .. } = &*self.shared;
        page.add(requests.clone())?;
        page.add(latencies.clone())?;
        page.add(calls.clone())?;
        page.add(call_seconds.clone())?;
        let looked_up = self.looked_up().clone();
        for figure in looked_up {
            match tokio::time::timeout(LIMIT, figure.tell(&page)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = error.chain(), "figures are missing"),
                Err(_) => tracing::warn!(limit = ?LIMIT, "figures are missing: they were not there in time"),
            }
        }
        TextEncoder::new().encode_to_string(&page.0.gather()).map_err(unwritten)
    }
}

/// Where figures are told.
#[derive(Debug)]
pub(super) struct FigurePage(Registry);

impl FigurePage {
    fn add(&self, collector: impl Collector + 'static) -> Result<()> {
        self.0.register(Box::new(collector)).map_err(unwritten)
    }

    /// A figure with one value for each of these labels' values.
    pub(super) fn counts<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<()> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), &[label]).map_err(unwritten)?;
        for (of, value) in values {
            gauges.with_label_values(&[of]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.add(gauges)
    }

    /// A figure with one value.
    pub(super) fn count(&self, name: &str, help: &str, value: u64) -> Result<()> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &[]).map_err(unwritten)?;
        gauge.with_label_values::<&str>(&[]).set(i64::try_from(value).unwrap_or(i64::MAX));
        self.add(gauge)
    }

    /// One that is no whole number.
    pub(super) fn measure(&self, name: &str, help: &str, value: f64) -> Result<()> {
        let gauge = GaugeVec::new(Opts::new(name, help), &[]).map_err(unwritten)?;
        gauge.with_label_values::<&str>(&[]).set(value);
        self.add(gauge)
    }
}

fn unwritten(error: prometheus::Error) -> Error {
    Error::new(ErrorKind::Internal, "write", "figures").with_source(error)
}

/// Where collectors look.
pub(super) fn group(figures: Figures) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(metrics)).with_state(figures)
}

/// Figures in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, body = String, content_type = "text/plain"), Problems))]
async fn metrics(State(figures): State<Figures>) -> Answer<Response> {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], figures.text().await?).into_response())
}

/// Counts a request, by its route and never by what it names.
pub(super) async fn counted(State(figures): State<Figures>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
        // Anybody may invent one.
        _ => "other".to_owned(),
    };
    let span = traced::request(&method, route.as_deref(), request.headers());
    let route = route.unwrap_or_else(|| "none".to_owned());
    let begun = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    traced::answered(&span, response.status());
    let Shared { requests, latencies, .. } = &*figures.shared;
    requests.with_label_values(&[&method, &route, &response.status().as_u16().to_string()]).inc();
    latencies.with_label_values(&[&method, &route]).observe(begun.elapsed().as_secs_f64());
    response
}
