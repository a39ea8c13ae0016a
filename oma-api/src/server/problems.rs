//! How requests that are not done are answered, for the document.
//!
//! Each status is named, and 500 is not: whoever holds the answers against the document finds a defect in it.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::IntoResponses;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::{ComponentsBuilder, Content, OpenApi, Ref, RefOr, ResponseBuilder};

use crate::{Problem, ProblemRetry};

/// A status, the name of its answer in the document, and what is told there.
type Known = (StatusCode, &'static str, &'static str);

/// What every route may answer.
const EVERYWHERE: [Known; 9] = [
    (StatusCode::BAD_REQUEST, "Invalid", "What was asked for cannot be read, or can never be done"),
    (StatusCode::UNAUTHORIZED, "Unauthenticated", "Nobody has this token, or none was sent"),
    (StatusCode::FORBIDDEN, "Forbidden", "Whoever asks may not do this"),
    (StatusCode::NOT_FOUND, "NotFound", "There is no such thing"),
    (StatusCode::CONFLICT, "Conflict", "It stands otherwise than it would have to for this"),
    (StatusCode::LOCKED, "Busy", "Somebody else is at it; ask again later"),
    (StatusCode::NOT_IMPLEMENTED, "Unsupported", "This deployment cannot do it"),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "Unavailable",
        "What is needed for it is not there now; ask again later",
    ),
    (StatusCode::INSUFFICIENT_STORAGE, "NoSpace", "There is no room for it"),
];

/// What every change may answer besides.
const OF_CHANGES: [Known; 2] = [
    (StatusCode::REQUEST_TIMEOUT, "TooSlow", "The body did not come in time"),
    (StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", "The body is cut, or longer than any is read"),
];

/// What every request with a body may be answered besides.
const OF_BODIES: [Known; 1] =
    [(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnknownKind", "The body is not said to be JSON")];

/// What a change with a condition may be answered besides.
const OF_CONDITIONS: [Known; 1] =
    [(StatusCode::PRECONDITION_FAILED, "Changed", "It is not any more as whoever asks has read it")];

/// What may be answered besides where a password is asked for.
const OF_PASSWORDS: [Known; 1] = [(
    StatusCode::TOO_MANY_REQUESTS,
    "TooMany",
    "Too many attempts; `Retry-After` says when to make the next",
)];

/// The answers of a route whose requests may be refused.
pub(super) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        named(&EVERYWHERE).collect()
    }
}

/// The same where a password is asked for.
pub(super) struct PasswordProblems;

impl IntoResponses for PasswordProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        named(&EVERYWHERE).chain(named(&OF_PASSWORDS)).collect()
    }
}

fn named(known: &[Known]) -> impl Iterator<Item = (String, RefOr<Response>)> {
    let one =
        |(status, name, _): &Known| (status.as_u16().to_string(), RefOr::Ref(Ref::from_response_name(*name)));
    known.iter().map(one)
}

/// The answers that [`Problems`] and this module name.
pub(super) fn components(components: ComponentsBuilder) -> ComponentsBuilder {
    let all = [&EVERYWHERE[..], &OF_CHANGES, &OF_BODIES, &OF_CONDITIONS, &OF_PASSWORDS].concat();
    let content = || Content::new(Some(Ref::from_schema_name("Problem")));
    let answers = all.into_iter().map(|(_, name, told)| {
        let answer = ResponseBuilder::new().description(told);
        (name, answer.content("application/problem+json", content()).build())
    });
    components.schema_from::<Problem>().schema_from::<ProblemRetry>().responses_from_iter(answers)
}

/// The document with what depends on the method and on what is sent.
pub(super) fn described(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        let PathItem { put, post, delete, patch, .. } = item;
        for change in [put, post, delete, patch].into_iter().flatten() {
            change.responses.responses.extend(named(&OF_CHANGES));
            if change.request_body.is_some() {
                change.responses.responses.extend(named(&OF_BODIES));
            }
        }
    }
    document
}

/// What a change answers whose condition does not hold.
pub(super) fn describe_condition(change: &mut Operation) {
    change.responses.responses.extend(named(&OF_CONDITIONS));
}

#[cfg(test)]
mod tests {
    use oma_core::ErrorKind;

    use super::*;
    use crate::problem::KINDS;

    #[test]
    fn every_kind_of_error_has_a_status_that_is_named_but_defects() {
        for (kind, status) in KINDS {
            let is_defect = matches!(kind, ErrorKind::Corrupt | ErrorKind::Internal);
            assert_eq!(
                Problems::responses().contains_key(&status.to_string()),
                !is_defect,
                "{kind}: {status}"
            );
        }
    }
}
