//! Every refusal is answered as a problem.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_core::{Error, ErrorKind};

use crate::Problem;

/// What handlers answer.
pub(crate) type Answer<T> = Result<T, Refused>;

/// A request that was not done.
#[derive(Debug)]
pub(crate) struct Refused {
    problem: Box<Problem>,
    /// The scheme that a request without credentials has to use.
    challenge: Option<&'static str>,
    /// How long to wait before the request is made again.
    wait: Option<Duration>,
}

impl Refused {
    /// Whoever asks is not known.
    pub(crate) fn unauthenticated(reason: &'static str) -> Self {
        let error = Error::new(ErrorKind::PermissionDenied, "authenticate", "this request").because(reason);
        let status = StatusCode::UNAUTHORIZED.as_u16();
        Self {
            problem: Box::new(Problem { status, ..Problem::new(&error) }),
            challenge: Some("Bearer"),
            wait: None,
        }
    }

    /// The same with a status that no kind has.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.problem.status = status.as_u16();
        self
    }

    /// The same with how long to wait, in whole seconds and at least one.
    pub(crate) fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// A request that can never be done as it is.
    fn invalid(what: &'static str, status: StatusCode, reason: String) -> Self {
        let refused = Self::from(Error::new(ErrorKind::Invalid, "read", what).because(reason));
        match status.is_server_error() {
            true => refused,
            // 422 and 400 are one to a caller; 413 and 415 say more.
            false if status == StatusCode::UNPROCESSABLE_ENTITY => refused,
            false => refused.with_status(status),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { problem: Box::new(Problem::new(&error)), challenge: None, wait: None }
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self::invalid("the body", rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for Refused {
    fn from(rejection: BytesRejection) -> Self {
        Self::invalid("the body", rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid("the path", rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid("the query", rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { problem, challenge, wait } = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = problem.status, detail = problem.detail, "not done");
        }
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
        }
        if let Some(scheme) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        response
    }
}
