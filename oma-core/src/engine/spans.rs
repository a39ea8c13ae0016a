//! Spans of `tracing` for whoever follows them; where nobody does, each costs a look at a flag. They name ids, and nothing that is
//! secret. Their level is `DEBUG`: the lines of a log that is not asked for more stay as they are.

use tracing::Span;
use tracing::field::Empty;

use super::report::Outcome;
use crate::record::{OperationSpec, ReplicationJob};
use crate::{CleanupId, Error, JobId};

/// One attempt of a job, whose VM and number are [told](drives) once they are known.
pub(super) fn attempt(job: &JobId) -> Span {
    tracing::debug_span!(
        "attempt",
        "otel.name" = "job attempt",
        "oma.job.id" = %job,
        "oma.vm.id" = Empty,
        "oma.job.attempt" = Empty,
        "oma.job.outcome" = Empty,
        "error.type" = Empty,
        "otel.status_code" = Empty,
    )
}

/// Which VM an attempt is about, and how many went before it.
pub(super) fn drives(span: &Span, job: &ReplicationJob) {
    span.record("oma.vm.id", tracing::field::display(&job.context));
    // An unsigned number would arrive as a text.
    span.record("oma.job.attempt", i64::from(job.attempts) + 1);
}

/// What came of an attempt.
pub(super) fn ended(span: &Span, outcome: &Outcome) {
    let told = match outcome {
        Outcome::Completed => "completed",
        Outcome::Suspended => "suspended",
        Outcome::Failed(_) => "failed",
        Outcome::Deferred(_) => "deferred",
    };
    span.record("oma.job.outcome", told);
    if let Outcome::Failed(error) | Outcome::Deferred(error) = outcome {
        failed(span, error);
    }
}

/// One step of a job.
pub(super) fn step(name: &'static str) -> Span {
    tracing::debug_span!(
        "step",
        "otel.name" = name,
        "oma.job.step" = name,
        "error.type" = Empty,
        "otel.status_code" = Empty,
    )
}

/// One operation on a volume, by whom it is carried out.
pub(super) fn operation(spec: &OperationSpec) -> Span {
    tracing::debug_span!(
        "operation",
        "otel.name" = %format_args!("volume {}", spec.kind),
        "oma.operation.id" = %spec.id,
        "oma.operation.kind" = %spec.kind,
        "oma.vm.id" = %spec.disk.context,
        "error.type" = Empty,
        "otel.status_code" = Empty,
    )
}

/// One time that a cleanup is carried out, or gone on with.
pub(super) fn cleanup(id: &CleanupId) -> Span {
    tracing::debug_span!(
        "cleanup",
        "otel.name" = "cleanup",
        "oma.cleanup.id" = %id,
        "oma.job.id" = Empty,
        "error.type" = Empty,
        "otel.status_code" = Empty,
    )
}

/// Which job a cleanup is about.
pub(super) fn cleans(span: &Span, job: &JobId) {
    span.record("oma.job.id", tracing::field::display(job));
}

/// What a span is about has failed; of the error its kind is told only.
pub(super) fn failed(span: &Span, error: &Error) {
    span.record("error.type", error.kind().as_str());
    span.record("otel.status_code", "ERROR");
}
