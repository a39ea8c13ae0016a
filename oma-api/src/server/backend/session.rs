//! A volume that is open for as long as somebody reads the answer to the open.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use oma_core::record::VolumeTag;
use oma_core::traits::BlockDevice;
use oma_core::{Error, ErrorKind, Result, VolumeId};
use tokio::time::timeout;

use super::super::access::Principal;
use super::super::origin::Origin;
use super::super::publish::{Opener, Published, Publisher, Purpose};
use crate::backend::Session;

/// A line without anything goes out so often: by it a connection that leads nowhere any more is found out.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Lets go of the volume when the answer is at its end, or nobody reads it any more.
struct Held(Arc<Published>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// Who opens a volume, and from where.
#[derive(Debug, FromRequestParts)]
pub(super) struct Asker {
    origin: Origin,
    #[from_request(via(Extension))]
    principal: Principal,
}

/// Publishes an open volume; the answer says where.
pub(super) async fn session(
    publisher: &Publisher,
    volume: &VolumeId,
    tag: VolumeTag,
    device: Arc<dyn BlockDevice>,
    asker: Asker,
) -> Result<Response> {
    let opener = Opener::new(&asker.principal, tag.instance);
    let session_id = opener.session.clone();
    let held = Held(publisher.publish(volume.clone(), device, Purpose::Session(opener)).await?);
    let lease_ms = u64::try_from(held.0.lease().as_millis()).unwrap_or(u64::MAX);
    let told = Session { uri: publisher.uri(&held.0.name, asker.origin)?, session_id, lease_ms };
    let told = serde_json::to_string(&told);
    let told = told.map_err(|error| Error::new(ErrorKind::Internal, "tell of", volume).with_source(error))?;
    let first = stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from(told + "\n")) });
    let beats = stream::unfold(held, async |held| {
        let is_open = timeout(HEARTBEAT, held.0.closed()).await.is_err();
        is_open.then(|| (Ok(Bytes::from_static(b"\n")), held))
    });
    let mut response = Body::from_stream(first.chain(beats)).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
