//! Traces for a collector of OpenTelemetry, over OTLP by HTTP, as the variables of its specification say. Nothing waits for the
//! collector: spans queue, a thread of its own sends them, and those that do not fit are dropped.

mod exporter;
mod named;
mod sender;

use std::fmt;
use std::time::Duration;

use oma_core::{Error, ErrorKind, Result};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};

use self::exporter::Telling;
use self::named::Named;
use self::sender::{Cause, Sender};

/// How long the end of the process waits for the last spans.
const ENDING: Duration = Duration::from_secs(3);

/// Sends spans until it is dropped, which waits for the last ones, but not for long.
pub(super) struct Traces(SdkTracerProvider);

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Traces {
    /// Begins to send, if the environment names where to.
    ///
    /// # Errors
    /// `Invalid` when the environment names what cannot be.
    pub(super) fn begin(program: &'static str) -> Result<Option<Self>> {
        let Some(named) = Named::take()? else { return Ok(None) };
        let cause = Cause::default();
        let sender = Sender::new(&named, cause.clone())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(named.limit)
            .with_http_client(sender)
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Invalid, "read", "the variables of OpenTelemetry").with_source(error)
            })?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Telling::new(exporter, cause))
            .with_resource(resource(program))
            .build();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Some(Self(provider)))
    }

    /// Who makes the spans that are sent.
    pub(super) fn tracer(&self, program: &'static str) -> Tracer {
        self.0.tracer(program)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(ENDING) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// What this process is called: as `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say, else as the program.
fn resource(program: &'static str) -> Resource {
    let said = Resource::builder().build();
    let nameless =
        said.get(&"service.name".into()).is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let built = Resource::builder();
    if nameless { built.with_service_name(program).build() } else { built.build() }
}
