//! What handlers take from a request; whatever cannot be read is answered as a problem.

use axum::extract::{FromRequest, FromRequestParts};

use super::problem::Refused;

/// A body in JSON.
#[derive(Debug, FromRequest)]
#[from_request(via(axum::Json), rejection(Refused))]
pub(crate) struct Body<T>(pub(crate) T);

/// Segments of the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Refused))]
pub(crate) struct InPath<T>(pub(crate) T);

/// The query.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Refused))]
pub(crate) struct InQuery<T>(pub(crate) T);
