//! The one public error of OMA: what a caller can act on, and what was attempted on what.

use std::borrow::Cow;
use std::fmt;

/// Result with the error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can act on. Where the error came from is told by [`std::error::Error::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing is known not to exist. "Could not ask" is [`ErrorKind::Unavailable`] (L21).
    NotFound,
    /// A thing with this identity exists already and differs from what was asked for.
    AlreadyExists,
    /// The world is not as the caller expected: a state moved, a live job stands in the way.
    Conflict,
    /// Somebody else holds it just now.
    Busy,
    /// The lease of the caller is no longer the newest: stop at once (L16).
    Fenced,
    /// The input can never be right; nothing was done.
    Invalid,
    /// This implementation cannot do it.
    Unsupported,
    /// Ownership or permission is missing; nothing was done (L02).
    PermissionDenied,
    /// No room is left on the target or in the database.
    NoSpace,
    /// Could not ask or could not reach: the answer is unknown.
    Unavailable,
    /// The caller, an operator or a shutdown ended it. Never success (L11).
    Cancelled,
    /// Stored data is damaged or contradicts itself.
    Corrupt,
    /// Source and target differ (L14).
    Mismatch,
    /// An invariant of OMA is broken: a defect to report.
    Internal,
}

impl ErrorKind {
    /// Fixed label for logs, JSON and the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Fenced => "fenced",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::PermissionDenied => "permission denied",
            Self::NoSpace => "no space",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Corrupt => "corrupt",
            Self::Mismatch => "mismatch",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether trying the same call again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call gives the same error.
    Never,
    /// The cause may pass; the engine's retry loop tries again.
    Later,
    /// The retry loop gave up.
    Exhausted,
}

/// What was attempted (`operation`), on what (`resource`), and how it ended (`kind`).
///
/// `Display` prints one line without the cause; walk [`std::error::Error::source`] for the rest.
///
/// ```
/// use oma_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Busy, "open volume", "vol-1")
///     .because("another process writes to it; wait for it to end");
/// assert_eq!(error.to_string(), "open volume vol-1: busy");
/// assert_eq!(error.chain(), "open volume vol-1: busy: another process writes to it; wait for it to end");
/// ```
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    retry: Retry,
    operation: Cow<'static, str>,
    resource: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A sentence for people, as the cause of an [`Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(Cow<'static, str>);

impl Error {
    /// An error without a cause that retrying cannot mend.
    #[must_use]
    pub fn new(
        kind: ErrorKind,
        operation: impl Into<Cow<'static, str>>,
        resource: impl fmt::Display,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            retry: Retry::Never,
            operation: operation.into(),
            resource: resource.to_string(),
            source: None,
        }))
    }

    /// Adds the cause as a sentence: what happened and what to do.
    #[must_use]
    pub fn because(self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.with_source(Reason(reason.into()))
    }

    /// Adds the cause as an error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets whether trying again can help.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// What a caller can act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// What was attempted.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// What it was attempted on.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.0.resource
    }

    /// This error and all its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors of others print their cause themselves.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("retry", &self.0.retry)
            .field("operation", &self.0.operation)
            .field("resource", &self.0.resource)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.operation, self.0.resource, self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source: &(dyn std::error::Error + 'static) = self.0.source.as_deref()?;
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_does_not_repeat_the_source() {
        let error =
            Error::new(ErrorKind::NoSpace, "write", "vol-1").with_source(std::io::Error::other("disk full"));
        assert_eq!(error.to_string(), "write vol-1: no space");
        assert_eq!(error.chain(), "write vol-1: no space: disk full");
    }

    #[test]
    fn a_cause_that_its_error_prints_itself_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("driver: {0}")]
        struct PrintsItsCause(#[source] std::io::Error);
        let cause = PrintsItsCause(std::io::Error::other("page 7 is damaged"));
        let error = Error::new(ErrorKind::Corrupt, "open", "store").with_source(cause);
        assert_eq!(error.chain(), "open store: corrupt: driver: page 7 is damaged");
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
