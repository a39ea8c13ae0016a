//! Volumes served for reading because an operator wants it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use oma_api::server::{Api, ExportRoutes, Publisher};
use oma_api::{ExportRow, Page, Problem};
use oma_core::conformance::{Trial, sample, trial};
use oma_core::engine::{CancellationToken, ReplicateConfig, ReplicateRequest, Replicator, Services, Silent};
use oma_core::memory::{ManualClock, MemoryBackend, MemoryExportServer, MemorySource, MemoryStore};
use oma_core::record::{VolumeFilter, VolumeTag};
use oma_core::state::ExportStatus;
use oma_core::traits::{Access, ExportServer, VolumeBackend, VolumeRegistry};
use oma_core::{ByteSize, DiskKey, Endpoint, ErrorKind, Timestamp, VmPath, VolumeId, WorkerId};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::daemon::{Memory, open_door};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_export_is_made_read_counted_and_withdrawn", &[], life),
        trial("an_export_for_writing_is_unsupported", &[], no_writing),
        trial("what_cannot_be_exported_says_why", &[], refused),
        trial("an_export_that_is_asked_for_twice_is_made_once", &[], repeated),
        trial("l24_no_export_outlives_the_daemon", &[], the_end),
    ]
}

/// A volume that was replicated to, and the routes.
struct World {
    backend: Arc<MemoryBackend>,
    exports: Memory,
    publisher: Publisher,
    router: Router,
    volume: VolumeId,
    tag: VolumeTag,
}

impl World {
    async fn new() -> Self {
        let vm = VmPath::parse("/DC/vm/web").unwrap();
        let source = Arc::new(MemorySource::new(Endpoint::parse("memory").unwrap()));
        source.add_disk(&vm, &DiskKey::parse("disk-2000").unwrap(), ByteSize::mib(1));
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let (store, backend) = (Arc::new(MemoryStore::new(clock)), Arc::new(MemoryBackend::new()));
        let exports = Memory(MemoryExportServer::new());
        let services =
            Services::new(store.clone(), source, backend.clone(), Arc::new(MemoryExportServer::new()));
        let worker = WorkerId::parse("test").unwrap();
        let replicator = Replicator::new(services, worker, ReplicateConfig::default());
        let request = ReplicateRequest::new(vm);
        let report = replicator.run(&request, &Silent, &CancellationToken::new()).await.unwrap();
        assert!(report.outcome.is_completed());
        let record = store.volumes(VolumeFilter::default()).try_next().await.unwrap().unwrap();
        let instance = store.instance().await.unwrap();
        let tag = VolumeTag { instance: instance.clone(), disk: record.disk, generation: record.generation };
        backend.attach(&record.id, &tag).await.unwrap();
        let publisher = Publisher::new(Arc::new(exports.0.clone()), Arc::new(exports.clone()));
        let routes = ExportRoutes {
            backend: backend.clone(),
            registry: store,
            instance,
            publisher: publisher.clone(),
            jobs: None,
        };
        let router = Api::new("test").exports(routes).router(open_door());
        Self { backend, exports, publisher, router, volume: record.id, tag }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.keyed(method, path, None, body).await
    }

    async fn keyed(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        let mut request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let read = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status, read)
    }

    async fn exported(&self) -> ExportRow {
        let (status, row) = self.ask("POST", "/exports", Some(json!({"volume_id": self.volume}))).await;
        assert_eq!(status, StatusCode::CREATED, "{row}");
        serde_json::from_value(row).unwrap()
    }

    async fn list(&self) -> Vec<ExportRow> {
        self.page("").await.items
    }

    async fn page(&self, part: &str) -> Page<ExportRow> {
        let (status, page) = self.ask("GET", &format!("/exports{part}"), None).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        serde_json::from_value(page).unwrap()
    }

    /// Whether nobody has the volume open.
    async fn is_closed(&self) -> bool {
        self.backend.open(&self.volume, &self.tag, Access::ReadWrite).await.is_ok()
    }
}

async fn life() {
    let world = World::new().await;
    world.backend.device(&world.volume).unwrap();
    let row = world.exported().await;
    assert_eq!((&row.volume_id, row.capacity_bytes), (&world.volume, Some(ByteSize::mib(1))));
    assert_eq!((row.read_only, &row.job_id, row.status), (Some(true), &None, ExportStatus::Running));
    assert!(row.uri.as_ref().unwrap().ends_with(row.export_name.as_str()), "{row:?}");
    assert_eq!(world.exported().await.volume_id, world.volume, "many may read");
    let device = world.exports.0.connect(&row.export_name).unwrap();
    device.read_at(0, BytesMut::zeroed(4096)).await.unwrap();
    device.write_at(0, sample(0, 4096), oma_core::traits::Durability::Cached).await.unwrap_err();
    let path = format!("/exports/{}", row.export_name);
    let now: ExportRow = serde_json::from_value(world.ask("GET", &path, None).await.1).unwrap();
    assert_eq!((now.connections, now.bytes_read), (Some(1), Some(4096)));
    let all = world.list().await;
    assert_eq!(all.len(), 2);
    let first = world.page("?limit=1").await;
    let next = first.next.expect("there is another one");
    assert_eq!((&first.items[..], next.as_str()), (&all[..1], all[0].export_name.as_str()));
    let rest = world.page(&format!("?after={next}")).await;
    assert_eq!((&rest.items[..], rest.next), (&all[1..], None));
    assert!(!world.is_closed().await);
    for row in world.list().await {
        let path = format!("/exports/{}", row.export_name);
        assert_eq!(world.ask("DELETE", &path, None).await.0, StatusCode::NO_CONTENT);
        assert_eq!(world.ask("DELETE", &path, None).await.0, StatusCode::NOT_FOUND);
        assert_eq!(world.ask("GET", &path, None).await.0, StatusCode::NOT_FOUND);
    }
    let error = device.read_at(0, BytesMut::zeroed(4096)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(world.list().await.is_empty());
    drop(device);
    assert!(world.is_closed().await);
}

async fn no_writing() {
    let world = World::new().await;
    let asked = json!({"volume_id": world.volume, "read_only": false});
    let (status, told) = world.ask("POST", "/exports", Some(asked)).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    let problem: Problem = serde_json::from_value(told).unwrap();
    assert!(problem.detail.contains("under a job's lease only"), "{problem}");
    assert!(world.is_closed().await);
}

async fn refused() {
    let world = World::new().await;
    let (status, _) = world.ask("POST", "/exports", Some(json!({"volume_id": "vol-unknown"}))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = world.ask("POST", "/exports", Some(json!({"volume_id": ""}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let asked = json!({"volume_id": world.volume, "writable": true});
    assert_eq!(world.ask("POST", "/exports", Some(asked)).await.0, StatusCode::BAD_REQUEST);
    let writer = world.backend.open(&world.volume, &world.tag, Access::ReadWrite).await.unwrap();
    let asked = json!({"volume_id": world.volume});
    assert_eq!(world.ask("POST", "/exports", Some(asked.clone())).await.0, StatusCode::LOCKED);
    drop(writer);
    world.backend.detach(&world.volume, &world.tag).await.unwrap();
    assert_eq!(world.ask("POST", "/exports", Some(asked)).await.0, StatusCode::CONFLICT);
    assert!(world.list().await.is_empty());
}

async fn repeated() {
    let world = World::new().await;
    let again = async |volume: &str| {
        world.keyed("POST", "/exports", Some("k1"), Some(json!({ "volume_id": volume }))).await
    };
    // Both at once, as when the first answer is late.
    let (one, other) = tokio::join!(again(world.volume.as_str()), again(world.volume.as_str()));
    assert_eq!((one.0, &one), (StatusCode::CREATED, &other));
    assert_eq!(world.list().await.len(), 1);
    assert_eq!(again("vol-other").await.0, StatusCode::CONFLICT);
    world.exported().await;
    assert_eq!(world.list().await.len(), 2, "without a key it is another one");
    let path = format!("/exports/{}", one.1["export_name"].as_str().unwrap());
    assert_eq!(world.ask("DELETE", &path, None).await.0, StatusCode::NO_CONTENT);
    let (status, row) = again(world.volume.as_str()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_ne!(row["export_name"], one.1["export_name"], "what was withdrawn is served anew");
}

async fn the_end() {
    let world = World::new().await;
    world.exported().await;
    world.exported().await;
    world.publisher.close().await;
    assert!(world.list().await.is_empty());
    assert!(world.exports.0.list().try_collect::<Vec<_>>().await.unwrap().is_empty());
    assert!(world.is_closed().await);
    let asked = json!({"volume_id": world.volume});
    assert_eq!(world.ask("POST", "/exports", Some(asked)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(world.is_closed().await);
}
