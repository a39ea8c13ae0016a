//! A change of what its caller has read, or none (RFC 9110 §8.8.3, §13.1).
//!
//! ```text
//!  GET    /things/7                      200, ETag: "a1"      the tag names exactly what is answered
//!  GET    /things/7   If-None-Match: a1  304                  nothing new
//!  POST   /things/7/… If-Match: a1       done, or 412         it is not any more what was read
//! ```
//!
//! Of two callers of one daemon with the same tag one comes first, and the other's tag is old then. What the engine does meanwhile is
//! held by the rules of the states, as for a change without a condition.

use std::fmt;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts as _, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use oma_core::{Error, ErrorKind, Retry};
use serde::Serialize;
use tokio::time::timeout;
use tower::ServiceExt as _;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::{ObjectBuilder, OpenApi, RefOr, Required, ResponseBuilder, Type};

use super::PREFIX;
use super::access::Principal;
use super::audit::Client;
use super::origin::Origin;
use super::problem::{Answer, Refused};
use super::problems;
use super::turns::Turns;

/// How long a change with a condition waits for one of the same thing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks conditions.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    /// The routes by which what is about to be changed is read once more, for the same principal.
    pub(super) looks: Router,
    pub(super) turns: Turns,
}

/// Tags what is read, and does a change only while its condition holds. Behind the door, since it looks on behalf of a principal.
pub(super) async fn checked(State(conditions): State<Conditions>, request: Request, next: Next) -> Response {
    let thing = thing(&request);
    match *request.method() {
        Method::GET if thing.as_deref() == Some(request.uri().path()) => return tagged(request, next).await,
        Method::GET | Method::HEAD => return next.run(request).await,
        _ if !request.headers().contains_key(header::IF_MATCH) => return next.run(request).await,
        _ => {}
    }
    let (mut asked, body) = request.into_parts();
    // By the id as it is meant, however it is written.
    let id = RawPathParams::from_request_parts(&mut asked, &()).await;
    let id = id.ok().and_then(|id| id.iter().next().map(|(_, id)| id.to_owned())).unwrap_or_default();
    let turn = timeout(PATIENCE, conditions.turns.take(&format!("{:?}/{id}", kind(&asked)))).await;
    let Ok(_alone) = turn else {
        let error = Error::new(ErrorKind::Busy, "change", asked.uri.path());
        let told = "another change of it with If-Match is under way; wait for its end, then read it again";
        return Refused::from(error.because(told).with_retry(Retry::Later)).into_response();
    };
    match conditions.hold(&asked, thing).await {
        Ok(()) => next.run(Request::from_parts(asked, body)).await,
        Err(refused) => refused,
    }
}

impl Conditions {
    /// Refuses a change whose condition does not hold.
    async fn hold(&self, asked: &Parts, thing: Option<String>) -> Result<(), Response> {
        let path = asked.uri.path();
        let wanted = wanted(&asked.headers, &header::IF_MATCH).map_err(IntoResponse::into_response)?;
        let Some(thing) = thing else {
            return Err(failed(path, "nothing is read there that a tag could be of; leave If-Match out"));
        };
        let looked = Request::get(&thing).body(Body::empty()).map_err(|error| internal(&thing, error))?;
        let looked = self.looks.clone().oneshot(on_behalf(looked, &asked.extensions)).await;
        let now = match looked {
            Ok(now) if now.status() == StatusCode::OK => now,
            Ok(refused) if refused.status() != StatusCode::METHOD_NOT_ALLOWED => return Err(refused),
            _ => {
                return Err(failed(path, "nothing is read there that a tag could be of; leave If-Match out"));
            }
        };
        let (parts, body) = now.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(|error| internal(&thing, error))?;
        match wanted.is_any() || wanted.names(&tag_of(&parts.headers, &body)) {
            true => Ok(()),
            false => Err(failed(path, "it is not as its caller read it; read it again, then decide")),
        }
    }
}

/// The path of what a request is about: `/things/7` of `/things/{id}` and of whatever is behind.
fn thing(request: &Request) -> Option<String> {
    let route = request.extensions().get::<MatchedPath>()?.as_str().strip_prefix(PREFIX)?;
    let is_one = route.split('/').nth(2).is_some_and(|segment| segment.starts_with('{'));
    let mut segments = request.uri().path().strip_prefix(PREFIX)?.split('/').skip(1);
    let (kind, id) = (segments.next()?, segments.next()?);
    is_one.then(|| format!("{PREFIX}/{kind}/{id}"))
}

fn kind(asked: &Parts) -> Option<&str> {
    asked.uri.path().strip_prefix(PREFIX)?.split('/').nth(1)
}

fn on_behalf(mut look: Request, asked: &Extensions) -> Request {
    let extensions = look.extensions_mut();
    extensions.extend(asked.get::<Principal>().cloned().map(one).unwrap_or_default());
    extensions.extend(asked.get::<ConnectInfo<Client>>().copied().map(one).unwrap_or_default());
    extensions.extend(asked.get::<Origin>().copied().map(one).unwrap_or_default());
    look
}

fn one<T: Clone + Send + Sync + 'static>(value: T) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(value);
    extensions
}

/// The answer with its tag, or 304 when the caller has it.
async fn tagged(request: Request, next: Next) -> Response {
    let known = wanted(request.headers(), &header::IF_NONE_MATCH).unwrap_or_default();
    let answer = next.run(request).await;
    let is_json =
        answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json");
    if answer.status() != StatusCode::OK || !is_json {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let body = match to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => return internal("the answer", error),
    };
    let tag = tag_of(&parts.headers, &body);
    // One that its handler chose says nothing of the figures in the answer.
    let is_known = !parts.headers.contains_key(header::ETAG) && (known.is_any() || known.means(&tag));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    if is_known {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(body))
}

/// The tag that its handler chose, or that of the bytes that are answered.
fn tag_of(headers: &HeaderMap, body: &[u8]) -> String {
    let chosen = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    chosen.map_or_else(|| tag(body), str::to_owned)
}

fn tag(told: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(told).to_hex()[..32])
}

/// An answer whose tag is of what a change depends on only: without figures that move by themselves.
pub(super) fn tagged_by<T: Serialize>(what: &impl fmt::Display, row: T) -> Response {
    let tag = HeaderValue::try_from(tag(what.to_string().as_bytes()));
    let mut answer = Json(row).into_response();
    answer.headers_mut().extend(tag.ok().map(|tag| (header::ETAG, tag)));
    answer
}

/// The tags that a condition names.
#[derive(Default)]
struct Wanted(Vec<String>);

impl Wanted {
    fn is_any(&self) -> bool {
        self.0.iter().any(|tag| tag == "*")
    }

    fn names(&self, tag: &str) -> bool {
        self.0.iter().any(|wanted| wanted == tag)
    }

    /// The same where a weak one will do (§8.8.3.2), such as a proxy makes of one when it compresses.
    fn means(&self, tag: &str) -> bool {
        self.0.iter().any(|wanted| wanted.trim_start_matches("W/") == tag)
    }
}

/// None of ours has a comma in it.
fn wanted(headers: &HeaderMap, name: &HeaderName) -> Answer<Wanted> {
    let read = |value: &HeaderValue| value.to_str().map(str::to_owned);
    let values: Result<Vec<String>, _> = headers.get_all(name).iter().map(read).collect();
    let values = values.map_err(|_| {
        Error::new(ErrorKind::Invalid, "read header", name)
            .because("it has characters other than those of ASCII; give the ETag that was answered")
    })?;
    let tags = values.iter().flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned());
    Ok(Wanted(tags.collect()))
}

fn failed(path: &str, reason: &'static str) -> Response {
    let error = Error::new(ErrorKind::Conflict, "change", path).because(reason);
    Refused::from(error).with_status(StatusCode::PRECONDITION_FAILED).into_response()
}

fn internal(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Response {
    Refused::from(Error::new(ErrorKind::Internal, "read", what).with_source(error)).into_response()
}

/// The document with the headers of this module.
pub(super) fn described(mut document: OpenApi) -> OpenApi {
    let read: Vec<String> = document
        .paths
        .paths
        .iter()
        .filter(|(_, item)| item.get.is_some())
        .map(|(path, _)| path.clone())
        .collect();
    for (path, item) in &mut document.paths.paths {
        let Some(thing) = thing_of(path).filter(|thing| read.iter().any(|path| path == thing)) else {
            continue;
        };
        if thing == path {
            item.get.iter_mut().for_each(describe_tag);
        }
        let PathItem { put, post, delete, patch, .. } = item;
        [put, post, delete, patch].into_iter().flatten().for_each(describe_condition);
    }
    document
}

/// The path of the thing that a route is about, as the document writes it.
fn thing_of(path: &str) -> Option<&str> {
    let route = path.strip_prefix(PREFIX)?;
    let mut ends = route.match_indices('/').map(|(at, _)| at).skip(2);
    let thing = &path[..PREFIX.len() + ends.next().unwrap_or(route.len())];
    thing.ends_with('}').then_some(thing)
}

fn describe_tag(look: &mut Operation) {
    let tag = HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some("Of what is answered, but for figures that move by themselves; for `If-Match` of a change, and `If-None-Match`"));
    let Some(RefOr::T(answer)) = look.responses.responses.get_mut("200") else { return };
    answer.headers.insert("ETag".to_owned(), RefOr::T(tag.build()));
    let known =
        parameter("If-None-Match", "Tags that are known: 304 when what would be answered has one of them");
    look.parameters.get_or_insert_default().push(RefOr::T(known));
    let unchanged = ResponseBuilder::new().description("What is known is still so");
    look.responses.responses.insert("304".to_owned(), RefOr::T(unchanged.build()));
}

fn describe_condition(change: &mut Operation) {
    let told =
        "The `ETag` of what was read: it is changed only while that is so, and 412 is answered otherwise";
    change.parameters.get_or_insert_default().push(RefOr::T(parameter("If-Match", told)));
    problems::describe_condition(change);
}

fn parameter(name: &str, told: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(told))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}
