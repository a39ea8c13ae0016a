use std::fmt;

use oma_core::{Error, ErrorKind, Retry};
use serde::{Deserialize, Serialize};

/// Why a request was not done: the body of every answer with a status of 400 and above, as `application/problem+json` (RFC 9457).
///
/// ```
/// use oma_api::Problem;
/// use oma_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Busy, "open volume", "vol-1").because("another process writes to it");
/// let problem = Problem::new(&error);
/// assert_eq!(problem.status, 423);
/// assert_eq!(problem.detail, "open volume vol-1: busy: another process writes to it");
/// assert_eq!(problem.into_error().kind(), ErrorKind::Busy);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Which problem it is: a URN made of the kind.
    #[serde(rename = "type")]
    pub uri: String,
    /// What a caller can act on: the label of an [`ErrorKind`].
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What happened and what to do, in one line.
    pub detail: String,
    /// What was attempted.
    pub operation: String,
    /// What it was attempted on.
    pub resource: String,
    /// Whether the same request can be done later.
    pub retry: ProblemRetry,
}

/// Whether the same request can be done later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProblemRetry {
    /// It is refused again.
    Never,
    /// The cause may pass.
    Later,
    /// The cause may pass; it was tried several times already.
    Exhausted,
}

/// Kinds, and the status that each has.
pub(crate) const KINDS: [(ErrorKind, u16); 14] = [
    (ErrorKind::NotFound, 404),
    (ErrorKind::AlreadyExists, 409),
    (ErrorKind::Conflict, 409),
    (ErrorKind::Busy, 423),
    (ErrorKind::Fenced, 409),
    (ErrorKind::Invalid, 400),
    (ErrorKind::Unsupported, 501),
    (ErrorKind::PermissionDenied, 403),
    (ErrorKind::NoSpace, 507),
    (ErrorKind::Unavailable, 503),
    (ErrorKind::Cancelled, 503),
    (ErrorKind::Corrupt, 500),
    (ErrorKind::Mismatch, 409),
    (ErrorKind::Internal, 500),
];

impl Problem {
    /// What is answered for an error.
    #[must_use]
    pub fn new(error: &Error) -> Self {
        let kind = error.kind();
        let known = KINDS.iter().find(|(known, _)| *known == kind);
        Self {
            uri: format!("urn:oma:problem:{}", kind.as_str().replace(' ', "-")),
            title: kind.to_string(),
            status: known.map_or(500, |(_, status)| *status),
            detail: error.chain(),
            operation: error.operation().to_owned(),
            resource: error.resource().to_owned(),
            retry: match error.retry() {
                Retry::Never => ProblemRetry::Never,
                Retry::Later => ProblemRetry::Later,
                Retry::Exhausted => ProblemRetry::Exhausted,
            },
        }
    }

    /// The error that was answered, for the caller's side. A kind that this program does not know becomes `Internal`.
    #[must_use]
    pub fn into_error(self) -> Error {
        let known = KINDS.iter().find(|(kind, _)| kind.as_str() == self.title);
        let kind = known.map_or(ErrorKind::Internal, |(kind, _)| *kind);
        let retry = match self.retry {
            ProblemRetry::Never => Retry::Never,
            ProblemRetry::Later => Retry::Later,
            ProblemRetry::Exhausted => Retry::Exhausted,
        };
        let repeated = format!("{} {}: {kind}: ", self.operation, self.resource);
        let reason = self.detail.strip_prefix(&repeated).map(str::to_owned);
        let error = Error::new(kind, self.operation, self.resource).with_retry(retry);
        match reason {
            Some(reason) => error.because(reason),
            None => error,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
