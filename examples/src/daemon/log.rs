//! The log, on standard error; and, where the feature `opentelemetry` is there, traces.

use std::io;

use oma_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// How it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Lines for readers.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Log and traces under way. To be kept until the end of the process: dropped, it waits for the last traces, but not for long.
#[derive(Debug)]
#[must_use = "traces end when it is dropped"]
pub struct Logging {
    #[cfg(feature = "opentelemetry")]
    _traces: Option<super::traces::Traces>,
}

type Told = Box<dyn Layer<Registry> + Send + Sync>;

/// Begins it: what was asked for and what went wrong, or what `OMA_LOG` says. Traces are sent as by `program`, if the environment
/// names a collector.
///
/// # Errors
/// `Invalid` when a variable is none that it understands.
pub fn begin(log: Log, program: &'static str) -> Result<Logging> {
    let mut layers = vec![lines(log)?];
    let logging = traces(&mut layers, program)?;
    tracing_subscriber::registry().with(layers).init();
    Ok(logging)
}

/// Lines without the spans around them: a line says itself what it is about.
fn lines(log: Log) -> Result<Told> {
    let filter = EnvFilter::builder()
        .with_env_var("OMA_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| Error::new(ErrorKind::Invalid, "read", "OMA_LOG").with_source(error))?
        .and(filter_fn(|of| of.is_event()).with_max_level_hint(LevelFilter::TRACE));
    let told = fmt::layer().with_writer(io::stderr).with_ansi(false);
    Ok(match log {
        Log::Text => told.with_filter(filter).boxed(),
        Log::Json => told.json().with_filter(filter).boxed(),
    })
}

/// Spans of OMA's own, without the lines in them.
#[cfg(feature = "opentelemetry")]
fn traces(layers: &mut Vec<Told>, program: &'static str) -> Result<Logging> {
    let traces = super::traces::Traces::begin(program)?;
    if let Some(traces) = &traces {
        let filter = filter_fn(|of| of.is_span() && of.target().starts_with("oma_"));
        let layer = tracing_opentelemetry::layer()
            .with_tracer(traces.tracer(program))
            .with_context_activation(false)
            .with_level(false)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter.with_max_level_hint(LevelFilter::DEBUG));
        layers.push(layer.boxed());
    }
    Ok(Logging { _traces: traces })
}

#[cfg(not(feature = "opentelemetry"))]
#[expect(clippy::unnecessary_wraps, reason = "the feature needs them")]
const fn traces(_: &mut Vec<Told>, _: &'static str) -> Result<Logging> {
    Ok(Logging {})
}
