//! How a change is asked for, and how it is answered.

use std::str::FromStr as _;
use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_core::state::OperationStatus;
use oma_core::{Error, ErrorKind, OperationId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::PREFIX;
use super::access::Principal;
use super::extract::InQuery;
use super::problem::{Answer, Refused};
use crate::OperationRow;

/// Nobody is kept waiting for longer.
const LONGEST: Duration = Duration::from_mins(5);

/// The header that bears the id of an operation to be recorded.
const KEY: &str = "idempotency-key";

/// How long to wait for an answer.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// How long to wait for the end of the operation, `30s` or `500ms`, at most `5m`; without it nobody waits.
    #[param(example = "30s", pattern = "^[0-9]{1,6}(ms|s|m)$")]
    wait: Option<String>,
}

impl Wait {
    pub(super) fn limit(&self) -> Answer<Duration> {
        let Some(text) = &self.wait else { return Ok(Duration::ZERO) };
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = &text[digits.len()..];
        let read = u64::from_str(digits).ok().filter(|_| digits.len() <= 6).and_then(|count| match unit {
            "ms" => Some(Duration::from_millis(count)),
            "s" => Some(Duration::from_secs(count)),
            "m" => Some(Duration::from_secs(count * 60)),
            _ => None,
        });
        read.map(|read| read.min(LONGEST)).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "read wait", text)
                .because("it reads `500ms`, `30s` or `5m`")
                .into()
        })
    }
}

/// The id that a change is to be recorded with, and how long whoever asked waits.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: OperationId,
    pub(super) wait: Duration,
    pub(super) principal: Principal,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let InQuery(wait) = InQuery::<Wait>::from_request_parts(parts, state).await?;
        let id = match parts.headers.get(KEY) {
            Some(value) => key(value)?,
            None => OperationId::mint(),
        };
        let principal = parts.extensions.get::<Principal>().cloned();
        let nobody = || Refused::unauthenticated("nobody is known to ask");
        Ok(Self { id, wait: wait.limit()?, principal: principal.ok_or_else(nobody)? })
    }
}

fn key(value: &HeaderValue) -> Answer<OperationId> {
    let invalid = |reason: String| {
        Refused::from(Error::new(ErrorKind::Invalid, "read header", "Idempotency-Key").because(reason))
    };
    let text =
        value.to_str().map_err(|_| invalid("it has characters other than those of ASCII".to_owned()))?;
    OperationId::parse(text).map_err(|error| invalid(error.to_string()))
}

/// The headers of a change, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by `Asked`; here for the document")]
pub(super) struct Key {
    /// The id that the operation is recorded with, 1 to 64 characters: the same request again with the same id answers the same
    /// operation, and nothing is done a second time. Without it an id is minted.
    #[param(rename = "Idempotency-Key", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    idempotency_key: Option<String>,
}

/// The key by which a request that is made again is known; none where nobody gave one.
#[derive(Debug)]
pub(super) struct Repeat(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Repeat {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Ok(Self(repeat_key(&parts.headers, 64)?))
    }
}

/// The key of a request, of so many characters at most.
pub(super) fn repeat_key(headers: &HeaderMap, most: usize) -> Answer<Option<String>> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let key = value.to_str().ok().filter(|key| (1..=most).contains(&key.len()) && key.chars().all(known));
    let invalid = || {
        let reason = format!("it has 1 to {most} of A-Z a-z 0-9 . _ -");
        Error::new(ErrorKind::Invalid, "read header", "Idempotency-Key").because(reason)
    };
    Ok(Some(key.ok_or_else(invalid)?.to_owned()))
}

/// The header of it, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by `Repeat`; here for the document")]
pub(super) struct RepeatHeader {
    /// 1 to 64 characters: the same request again with the same key makes nothing a second time.
    #[param(rename = "Idempotency-Key", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    idempotency_key: Option<String>,
}

/// An operation as the answer to whoever asked for it: 200 once it has ended, else 202 and where to ask again.
pub(super) struct Accepted(pub(super) OperationRow);

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let Self(row) = self;
        let status = match row.status {
            OperationStatus::Pending | OperationStatus::Executing => StatusCode::ACCEPTED,
            OperationStatus::Completed | OperationStatus::Failed | OperationStatus::Cancelled => {
                StatusCode::OK
            }
        };
        let place = HeaderValue::try_from(format!("{PREFIX}/operations/{}", row.operation_id));
        let mut response = (status, Json(row)).into_response();
        if let Ok(place) = place {
            response.headers_mut().insert(header::LOCATION, place);
        }
        response
    }
}
