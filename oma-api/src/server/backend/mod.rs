//! Volumes of this daemon for deployments that keep their records elsewhere: the calls of [`VolumeBackend`], passed on.
//!
//! Whoever asks records its intents itself (L15) and proves with each call whose the volume is (L02). What this daemon's own deployment
//! has is refused here: it is changed by the routes of volumes, which keep the records of it. A request that is given up is a call
//! that is dropped: the backend has done it or not, and the same call again tells which.

mod lines;
mod session;
mod sessions;
mod snapshots;
mod volumes;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use oma_core::record::VolumeTag;
use oma_core::traits::VolumeBackend;
use oma_core::{Error, ErrorKind, InstanceId, Result, VolumeId};
use utoipa_axum::router::OpenApiRouter;

use super::Api;
use super::publish::Publisher;
use crate::backend::{DAEMON_HEADER, PROTOCOL, PROTOCOL_HEADER};

/// What the backend routes work with.
#[derive(Clone, Debug)]
pub struct BackendRoutes {
    /// The volumes.
    pub backend: Arc<dyn VolumeBackend>,
    /// This daemon's own deployment.
    pub instance: InstanceId,
    /// Serves volumes that are open.
    pub publisher: Publisher,
}

impl Api {
    /// Volumes as a backend for other deployments: [`RemoteBackend`](crate::client::RemoteBackend) is their side.
    #[must_use]
    pub fn backend(self, routes: BackendRoutes) -> Self {
        self.with(group(routes))
    }
}

fn group(routes: BackendRoutes) -> OpenApiRouter {
    OpenApiRouter::new()
        .merge(volumes::group())
        .merge(snapshots::group())
        .merge(sessions::group())
        .layer(middleware::from_fn_with_state(routes.clone(), mark))
        .with_state(routes)
}

/// Marks an answer as one of these routes, and as one of this daemon.
async fn mark(State(routes): State<BackendRoutes>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(PROTOCOL_HEADER), HeaderValue::from_static(PROTOCOL));
    if let Ok(daemon) = HeaderValue::from_str(routes.instance.as_str()) {
        headers.insert(HeaderName::from_static(DAEMON_HEADER), daemon);
    }
    response
}

impl BackendRoutes {
    /// The mark, if it is another deployment's.
    fn foreign(
        &self,
        operation: &'static str,
        volume: impl std::fmt::Display,
        tag: impl Into<VolumeTag>,
    ) -> Result<VolumeTag> {
        let tag = tag.into();
        if tag.instance != self.instance {
            return Ok(tag);
        }
        let reason = "it is of the volume daemon's own deployment, which keeps records of it; change it by the routes of volumes";
        Err(Error::new(ErrorKind::PermissionDenied, operation, volume).because(reason))
    }

    /// Asks the backend for something that is refused while a volume is open.
    async fn patiently<T, F, Fut>(&self, volume: &VolumeId, ask: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.publisher.patiently(volume, ask).await
    }
}
