//! The endpoint over HTTP/1.1.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::exchange::{Arrived, Served};
use super::params::Params;
use super::world::World;

/// Where the API is.
pub(crate) const PATH: &str = "/client/api";

/// The connection is cut instead of an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

/// Serves until it is dropped; its connections go with it.
pub(crate) async fn serve(listener: TcpListener, world: Arc<Mutex<World>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let world = world.clone();
        let service = service_fn(move |request| answer(world.clone(), request));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(world: Arc<Mutex<World>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    if request.uri().path() != PATH {
        return Ok(plain(StatusCode::NOT_FOUND));
    }
    let post = request.method() == Method::POST;
    if !post && request.method() != Method::GET {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED));
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let form = request.headers().get(CONTENT_TYPE).is_some_and(is_form);
    let body = request.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
    // A body of another type has no parameters.
    let body = if post && form { String::from_utf8_lossy(&body).into_owned() } else { String::new() };
    let arrived = Arrived { params: Params::parse(&query, &body), post };
    let served = world.lock().unwrap().serve(&arrived);
    Ok(response(served.ok_or(Cut)?))
}

fn is_form(value: &HeaderValue) -> bool {
    value.as_bytes().starts_with(b"application/x-www-form-urlencoded")
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn response(served: Served) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(served.body));
    *response.status_mut() = StatusCode::from_u16(served.status).expect("a status");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(served.content_type));
    if let Some(text) = served.description.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
        headers.insert("X-Description", text);
    }
    if let Some(seconds) = served.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
