//! Spans of `tracing` for whoever follows them, by the names of OpenTelemetry's conventions; where nobody does, each costs a look at a
//! flag. A request is told by its route, never by its path, its query, its headers or its body (L29).

use std::fmt;

use axum::http::{HeaderMap, StatusCode};
use oma_core::Result;
use tracing::Span;
use tracing::field::{Empty, display};

/// A request of a method that is known, or is `other`.
pub(super) fn request(method: &str, route: Option<&str>, headers: &HeaderMap) -> Span {
    let (method, verb) = match method {
        "other" => ("_OTHER", "HTTP"),
        known => (known, known),
    };
    let span = tracing::debug_span!(
        "request",
        "otel.name" = %Name { verb, route },
        "otel.kind" = "server",
        "http.request.method" = method,
        "http.route" = route,
        "http.response.status_code" = Empty,
        "error.type" = Empty,
        "otel.status_code" = Empty,
    );
    if !span.is_disabled() {
        follow(&span, headers);
    }
    span
}

/// How a request was answered. Who asked for what cannot be is no failure of this program.
pub(super) fn answered(span: &Span, status: StatusCode) {
    // An unsigned number would arrive as a text.
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", display(status.as_u16()));
        span.record("otel.status_code", "ERROR");
    }
}

/// A call of the volume backend.
pub(super) fn call(call: &'static str) -> Span {
    tracing::debug_span!(
        "backend",
        "otel.name" = %Name { verb: "backend", route: Some(call) },
        "oma.backend.call" = call,
        "error.type" = Empty,
        "otel.status_code" = Empty,
    )
}

/// What came of a call; of an error its kind is told only.
pub(super) fn told<T>(span: &Span, answer: &Result<T>) {
    if let Err(error) = answer {
        span.record("error.type", error.kind().as_str());
        span.record("otel.status_code", "ERROR");
    }
}

/// What was asked, and of what.
struct Name<'n> {
    verb: &'n str,
    route: Option<&'n str>,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb)?;
        self.route.map_or(Ok(()), |route| write!(f, " {route}"))
    }
}

/// The request is a part of the trace that its `traceparent` names, as far as that is one.
#[cfg(feature = "opentelemetry")]
fn follow(span: &Span, headers: &HeaderMap) {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let named = opentelemetry_http::HeaderExtractor(headers);
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&named));
    if parent.span().span_context().is_valid()
        && let Err(error) = span.set_parent(parent)
    {
        tracing::debug!(%error, "the trace of a request is not followed");
    }
}

#[cfg(not(feature = "opentelemetry"))]
const fn follow(_: &Span, _: &HeaderMap) {}
