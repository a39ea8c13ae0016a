use std::pin::Pin;
use std::task::Poll;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use oma_core::audit::AuditFilter;
use oma_core::memory::{MemoryBackend, MemoryExportServer, MemoryStore};
use oma_core::record::VolumeTag;
use oma_core::traits::{AuditLog as _, Drained, Export, Provisioning, VolumeBackend, VolumeSpec};
use oma_core::{DiskRef, Generation, OperationId};
use tokio::task::yield_now;
use tower::ServiceExt as _;

use super::*;
use crate::backend::Open;
use crate::server::{Api, BackendRoutes, Door, Role};

/// Turns of the runtime within which a volume is opened, published and told of; fewer would do.
const TURNS: usize = 20;

/// A server that takes some turns for each call.
#[derive(Debug)]
struct Slow(MemoryExportServer);

#[async_trait]
impl ExportServer for Slow {
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        for _ in 0..3 {
            yield_now().await;
        }
        let published = self.0.publish(spec).await;
        yield_now().await;
        published
    }

    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        yield_now().await;
        self.0.withdraw(name, deadline).await
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        self.0.list()
    }

    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        self.0.statistics(name).await
    }
}

impl ExportAddress for Slow {
    fn uri(&self, name: &ExportName, _: Origin) -> Result<String> {
        Ok(format!("memory:{name}"))
    }
}

/// A daemon with a volume of another deployment.
struct World {
    backend: Arc<MemoryBackend>,
    exports: MemoryExportServer,
    publisher: Publisher,
    api: Api,
    routes: Router,
    volume: VolumeId,
    tag: VolumeTag,
}

impl World {
    async fn new() -> Self {
        let (backend, exports) = (Arc::new(MemoryBackend::new()), MemoryExportServer::new());
        let slow = || Arc::new(Slow(exports.clone()));
        let publisher = Publisher::new(slow(), slow());
        let instance = InstanceId::mint();
        let routes = BackendRoutes { backend: backend.clone(), instance, publisher: publisher.clone() };
        let api = Api::new("test").backend(routes);
        let routes = api.router(Door::Open(Principal::new("test", Role::Operator)));
        let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
        let tag = VolumeTag { instance: InstanceId::mint(), disk, generation: Generation::FIRST };
        let spec = VolumeSpec {
            operation: OperationId::mint(),
            tag: tag.clone(),
            name: "web".to_owned(),
            capacity: ByteSize::mib(1),
            provisioning: Provisioning::Thin,
        };
        let volume = backend.create(&spec).await.unwrap().id;
        backend.attach(&volume, &tag).await.unwrap();
        Self { backend, exports, publisher, api, routes, volume, tag }
    }

    fn open(&self) -> Pin<Box<impl Future<Output = Response> + use<>>> {
        let body = Open { tag: self.tag.clone().into(), access: Access::ReadWrite.into() };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/api/v1/backend/volumes/{}/open", self.volume))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(serde_json::to_vec(&body).unwrap()))
            .unwrap();
        let answer = self.routes.clone().oneshot(request);
        Box::pin(async move { answer.await.unwrap() })
    }

    async fn renew(&self, principal: &str, session: &str) -> StatusCode {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/api/v1/backend/sessions/{session}/renew"))
            .body(Body::empty())
            .unwrap();
        let door = Door::Open(Principal::new(principal, Role::Operator));
        self.api.router(door).oneshot(request).await.unwrap().status()
    }

    async fn is_open(&self) -> bool {
        let served = self.exports.list().count().await;
        served > 0 || self.backend.is_written(&self.volume) || !self.publisher.of_sessions().is_empty()
    }

    /// Whoever asked has gone.
    async fn closes(&self, when: &str) {
        for _ in 0..1000 {
            if !self.is_open().await {
                return;
            }
            yield_now().await;
        }
        panic!("{when}: a volume is still open");
    }
}

/// One poll.
async fn once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// Nobody reads on, from one turn of the runtime on: before the keeper began, while the server publishes, when the news is there and
/// not read yet, when it was read.
#[tokio::test]
async fn l24_a_caller_that_goes_away_at_any_moment_leaves_no_session_and_no_export() {
    let mut answered = 0;
    for polls in 0..TURNS {
        for rest in 0..TURNS {
            let world = World::new().await;
            let mut asked = world.open();
            let mut answer = None;
            for _ in 0..polls {
                if let Poll::Ready(response) = once(&mut asked).await {
                    assert_eq!(response.status(), StatusCode::OK);
                    answer = Some(response);
                    break;
                }
                yield_now().await;
            }
            for _ in 0..rest {
                yield_now().await;
            }
            if answer.is_some() {
                answered += 1;
                assert!(world.is_open().await, "as long as the answer is there");
            }
            drop((asked, answer));
            world.closes(&format!("after {polls} polls and {rest} turns")).await;
        }
    }
    assert!(answered > 0, "nobody was ever answered");
}

/// As of a client that was stopped, or cut off from this daemon without a word.
#[tokio::test(start_paused = true)]
async fn l17_a_session_lasts_while_it_is_renewed_and_is_closed_a_lease_after() {
    let world = World::new().await;
    let response = world.open().await;
    let session = world.publisher.of_sessions().remove(0).0.session;
    for _ in 0..3 {
        tokio::time::sleep(LEASE * 3 / 4).await;
        assert_eq!(world.renew("test", &session).await, StatusCode::NO_CONTENT);
        assert_eq!(world.renew("somebody else", &session).await, StatusCode::NOT_FOUND);
    }
    tokio::time::sleep(LEASE * 3 / 4).await;
    assert!(world.is_open().await);
    assert_eq!(world.renew("somebody else", &session).await, StatusCode::NOT_FOUND);
    tokio::time::sleep(LEASE / 4).await;
    world.closes("a lease after it was renewed last").await;
    assert_eq!(world.renew("test", &session).await, StatusCode::NOT_FOUND, "it is not opened again");
    assert!(!world.is_open().await);
    drop(response);
}

/// A volume stays open whatever becomes of the trail.
#[tokio::test]
async fn what_keeps_a_session_is_no_change_and_leaves_no_entry() {
    let mut world = World::new().await;
    let trail = Arc::new(MemoryStore::default());
    world.api = world.api.audited(trail.clone());
    let response = world.open().await;
    let session = world.publisher.of_sessions().remove(0).0.session;
    for _ in 0..3 {
        assert_eq!(world.renew("test", &session).await, StatusCode::NO_CONTENT);
    }
    let path = format!("/api/v1/backend/sessions/{session}");
    let request = Request::builder().method(Method::DELETE).uri(path).body(Body::empty()).unwrap();
    let door = Door::Open(Principal::new("test", Role::Admin));
    let ended = world.api.router(door).oneshot(request).await.unwrap();
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    let entries =
        trail.audit_entries(&AuditFilter::All, oma_core::audit::AuditFrom::default(), 10).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| &entry.action[..]).collect();
    assert_eq!(actions, ["DELETE /backend/sessions/{id}"]);
    drop(response);
}

#[tokio::test]
async fn l24_what_is_open_is_closed_when_the_daemon_ends_whoever_reads() {
    let world = World::new().await;
    let response = world.open().await;
    world.publisher.close().await;
    assert!(!world.is_open().await);
    let text = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert!(text.starts_with(b"{\"uri\":\"memory:oma-"), "{text:?}");
    let refused = world.open().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!world.is_open().await);
}
