//! What handlers take from a request; whatever cannot be read is answered as a problem.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use oma_core::{Error, ErrorKind};
use serde::de::DeserializeOwned;

use super::problem::Refused;

/// How long a body may take to come.
const COMING: Duration = Duration::from_secs(30);

/// A body in JSON.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let Json(body) = in_time(Json::from_request(request, state)).await??;
        Ok(Self(body))
    }
}

/// Refuses to wait for a body that does not come: whoever sends none would keep a connection for ever.
pub(super) async fn in_time<T>(body: impl Future<Output = T>) -> Result<T, Refused> {
    tokio::time::timeout(COMING, body).await.map_err(|_| {
        let error = Error::new(ErrorKind::Invalid, "read", "the body").because("it did not come within 30 s");
        Refused::from(error).with_status(StatusCode::REQUEST_TIMEOUT)
    })
}

/// Segments of the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Refused))]
pub(crate) struct InPath<T>(pub(crate) T);

/// The query.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Refused))]
pub(crate) struct InQuery<T>(pub(crate) T);

/// A body in JSON, or none.
#[derive(Debug)]
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let body = in_time(Bytes::from_request(request, state)).await??;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        let Json(body) = Json::from_bytes(&body)?;
        Ok(Self(body))
    }
}
