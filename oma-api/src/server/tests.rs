use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use oma_core::engine::{
    CancellationToken, ReconcileServices, Reconciler, VolumeService, VolumeServices, VolumesConfig,
};
use oma_core::memory::{MemoryBackend, MemoryStore};
use oma_core::traits::{Inventory, RecoveryPoints};
use oma_core::{Result, WorkerId};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

mod cleanups;
mod conditional;
mod document;
mod lists;
mod push;
mod replications;
mod standing;

/// Knows one token for each role: its label.
#[derive(Debug)]
struct Labels;

#[async_trait::async_trait]
impl Authenticator for Labels {
    async fn principal(&self, token: &str) -> Result<Option<Principal>> {
        let role = token.parse::<Role>().ok();
        Ok(role.map(|role| Principal::new(format!("the {role}"), role)))
    }
}

struct World {
    routes: Router,
    service: VolumeService,
}

impl World {
    fn new() -> Self {
        Self::of("test", Arc::new(MemoryStore::default()), Arc::new(MemoryBackend::new()))
    }

    fn of(worker: &str, store: Arc<MemoryStore>, backend: Arc<MemoryBackend>) -> Self {
        let services = VolumeServices { jobs: store.clone(), volumes: store.clone(), backend };
        Self::over(worker, services, store.clone(), store)
    }

    fn over(
        worker: &str,
        services: VolumeServices,
        inventory: Arc<dyn Inventory>,
        points: Arc<dyn RecoveryPoints>,
    ) -> Self {
        let worker = WorkerId::parse(worker).unwrap();
        let service = VolumeService::new(services, worker, VolumesConfig::default());
        let beside = ReconcileServices { inventory: inventory.clone(), points };
        let reconciler = Reconciler::new(service.clone(), beside);
        let (machine, stop) = (Some("vm-1".to_owned()), CancellationToken::new());
        let routes = VolumeRoutes { service: service.clone(), inventory, reconciler, machine, stop };
        Self {
            routes: Api::new("test")
                .volumes(routes)
                .counted_by(Figures::new())
                .router(Door::Tokens(Arc::new(Labels))),
            service,
        }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, header::HeaderMap, Value) {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (parts.status, parts.headers, value)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = asked(method, path, "operator", None, body);
        let (status, _, value) = self.send(request).await;
        (status, value)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{value}");
        value
    }

    /// Asks for a change and waits until it has ended well.
    async fn done(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, value) = self.ask(method, &format!("{path}?wait=30s"), body).await;
        assert_eq!((status, &value["status"]), (StatusCode::OK, &json!("completed")), "{value}");
        value
    }

    async fn vm(&self, name: &str) -> String {
        let (status, vm) = self.ask(Method::POST, "/vms", Some(described(name))).await;
        assert_eq!(status, StatusCode::OK, "{vm}");
        vm["context_id"].as_str().unwrap().to_owned()
    }

    /// The id of a new volume.
    async fn volume(&self, name: &str) -> String {
        let wanted = json!({ "context_id": self.vm(name).await, "disk_key": "disk-2000" });
        let made = self.done(Method::POST, "/volumes", Some(wanted)).await;
        made["volume_id"].as_str().unwrap().to_owned()
    }
}

fn described(name: &str) -> Value {
    json!({
        "instance_uuid": format!("uuid-{name}"), "endpoint": "vcenter.example", "name": name,
        "path": format!("/DC/vm/{name}"), "disks": [{ "key": "disk-2000", "capacity_bytes": 1 << 20 }],
    })
}

fn asked(method: Method, path: &str, token: &str, key: Option<&str>, body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(format!("{PREFIX}{path}"));
    request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    match body {
        Some(body) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap(),
        None => request.body(Body::empty()).unwrap(),
    }
}

#[tokio::test]
async fn a_volume_lives_from_create_to_delete() {
    let world = World::new();
    let id = world.volume("web01").await;
    let row = world.get(&format!("/volumes/{id}")).await;
    assert_eq!((&row["name"], &row["capacity_bytes"]), (&json!("web01-disk-2000"), &json!(1 << 20)));

    let (status, missing) = world.ask(Method::GET, &format!("/volumes/{id}/device"), None).await;
    assert_eq!((status, &missing["title"]), (StatusCode::NOT_FOUND, &json!("not found")));
    world.done(Method::POST, &format!("/volumes/{id}/attach"), Some(json!({ "vm_id": "vm-1" }))).await;
    let device = world.get(&format!("/volumes/{id}/device")).await;
    let path = device["device_path"].as_str().unwrap();
    let encoded = path.replace('/', "%2F");
    for behind in [format!("/devices/{encoded}/volume"), format!("/devices/volume?path={encoded}")] {
        assert_eq!(world.get(&behind).await["volume_id"], json!(id), "{behind}");
    }
    let vm = row["context_id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/vms/{vm}/volumes")).await[0]["volume_id"], json!(id));
    assert_eq!(world.get(&format!("/vms/{vm}/disks")).await[0]["volume_id"], json!(id));

    let larger = json!({ "size": 2 << 20 });
    world.done(Method::POST, &format!("/volumes/{id}/resize"), Some(larger)).await;
    assert_eq!(world.get(&format!("/volumes/{id}")).await["capacity_bytes"], json!(2 << 20));

    let made = world.done(Method::POST, &format!("/volumes/{id}/snapshots"), None).await;
    let snapshot = made["snapshot_id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/volumes/{id}/snapshots")).await[0]["snapshot_id"], json!(snapshot));
    let back = json!({ "snapshot_id": snapshot });
    world.done(Method::POST, &format!("/volumes/{id}/revert"), Some(back)).await;
    world.done(Method::DELETE, &format!("/volumes/{id}/snapshots/{snapshot}"), None).await;

    let remove =
        async |role: &str| world.send(asked(Method::DELETE, &format!("/vms/{vm}"), role, None, None)).await.0;
    assert_eq!(remove("operator").await, StatusCode::FORBIDDEN);
    assert_eq!(remove("admin").await, StatusCode::CONFLICT, "its volume is there");
    // It is detached first.
    world.done(Method::DELETE, &format!("/volumes/{id}"), None).await;
    let mut kinds: Vec<String> = world.get("/operations").await["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["kind"].as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    assert_eq!(
        kinds,
        ["attach", "create", "delete", "delete_snapshot", "detach", "resize", "revert", "snapshot"]
    );
    let reconciliation = world.get("/reconciliation").await;
    assert_eq!(reconciliation["found"]["findings"], json!([]), "{reconciliation}");
    let plan = reconciliation["plan"].clone();
    let refused = asked(Method::POST, "/reconciliation", "operator", None, Some(plan.clone()));
    assert_eq!(world.send(refused).await.0, StatusCode::FORBIDDEN);
    let allowed = asked(Method::POST, "/reconciliation", "admin", None, Some(plan));
    let (status, _, done) = world.send(allowed).await;
    assert_eq!((status, &done["steps"]), (StatusCode::OK, &json!([])));
    assert_eq!(remove("admin").await, StatusCode::NO_CONTENT);
    assert_eq!(world.ask(Method::GET, &format!("/vms/{vm}"), None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_request_made_twice_with_one_key_is_done_once() {
    let world = World::new();
    let wanted = json!({ "context_id": world.vm("web01").await, "disk_key": "disk-2000" });
    let again = async || {
        let request =
            asked(Method::POST, "/volumes?wait=30s", "operator", Some("key-1"), Some(wanted.clone()));
        world.send(request).await
    };
    let (first, headers, made) = again().await;
    assert_eq!((first, &made["operation_id"]), (StatusCode::OK, &json!("key-1")));
    assert_eq!(headers[header::LOCATION], format!("{PREFIX}/operations/key-1"));
    let (second, _, same) = again().await;
    assert_eq!((second, &same), (StatusCode::OK, &made));
    let other = json!({ "context_id": wanted["context_id"], "disk_key": "disk-2000", "name": "other" });
    let request = asked(Method::POST, "/volumes", "operator", Some("key-1"), Some(other));
    let (status, _, problem) = world.send(request).await;
    assert_eq!((status, &problem["title"]), (StatusCode::CONFLICT, &json!("already exists")));
}

#[tokio::test]
async fn a_key_answers_what_it_stands_for_whatever_became_of_the_volume() {
    let world = World::new();
    let wanted = json!({ "context_id": world.vm("web01").await, "disk_key": "disk-2000" });
    let keyed = |method: Method, path: &str, key: &'static str, body: Option<Value>| {
        asked(method, &format!("{path}?wait=30s"), "operator", Some(key), body)
    };
    let (_, _, made) = world.send(keyed(Method::POST, "/volumes", "create", Some(wanted.clone()))).await;
    let path = format!("/volumes/{}", made["volume_id"].as_str().unwrap());
    let (_, _, attached) = world.send(keyed(Method::POST, &format!("{path}/attach"), "attach", None)).await;
    let (_, _, deleted) = world.send(keyed(Method::DELETE, &path, "delete", None)).await;
    assert_eq!(deleted["status"], json!("completed"));
    // Renamed and grown at the source: what was not said is as it was then.
    let mut vm = described("web01");
    (vm["name"], vm["disks"][0]["capacity_bytes"]) = (json!("web02"), json!(2 << 20));
    world.ask(Method::POST, "/vms", Some(vm)).await;
    for (request, before) in [
        (keyed(Method::POST, "/volumes", "create", Some(wanted)), made),
        (keyed(Method::POST, &format!("{path}/attach"), "attach", None), attached),
        (keyed(Method::DELETE, &path, "delete", None), deleted),
    ] {
        let (status, _, again) = world.send(request).await;
        assert_eq!((status, &again), (StatusCode::OK, &with_name(before, "/DC/vm/web01")));
    }
}

fn with_name(mut row: Value, path: &str) -> Value {
    row["vm_path"] = json!(path);
    row
}

#[tokio::test]
async fn an_operation_is_called_off_or_abandoned_by_its_id() {
    let world = World::new();
    let id = world.volume("web01").await;
    let done = world.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    let operation = done["operation_id"].as_str().unwrap();
    let (status, problem) = world.ask(Method::POST, &format!("/operations/{operation}/pardon"), None).await;
    assert_eq!((status, &problem["title"]), (StatusCode::CONFLICT, &json!("conflict")), "{problem}");
    let path = format!("/operations/{operation}/abandon");
    for (role, body, expected) in [
        ("operator", json!({ "reason": "gone" }), StatusCode::FORBIDDEN),
        ("admin", json!({}), StatusCode::BAD_REQUEST),
        ("admin", json!({ "reason": "gone" }), StatusCode::CONFLICT),
    ] {
        let (status, _, problem) = world.send(asked(Method::POST, &path, role, None, Some(body))).await;
        assert_eq!(status, expected, "{problem}");
    }
}

#[tokio::test]
async fn a_volume_with_a_snapshot_is_not_even_detached_to_be_deleted() {
    let world = World::new();
    let id = world.volume("web01").await;
    world.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    world.done(Method::POST, &format!("/volumes/{id}/snapshots"), None).await;
    let (status, problem) = world.ask(Method::DELETE, &format!("/volumes/{id}"), None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert_eq!(world.get(&format!("/volumes/{id}")).await["status"], json!("attached"));
}

#[tokio::test]
async fn a_deletion_that_is_to_detach_nothing_is_refused_while_the_volume_is_attached() {
    let world = World::new();
    let id = world.volume("web01").await;
    world.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    let delete = async |attached: &str| {
        let path = format!("/volumes/{id}?attached={attached}&wait=30s");
        let (status, _, told) =
            world.send(asked(Method::DELETE, &path, "operator", Some("delete-1"), None)).await;
        (status, told)
    };
    let (status, problem) = delete("refuse").await;
    assert_eq!((status, &problem["title"]), (StatusCode::CONFLICT, &json!("conflict")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("detach it first"), "{problem}");
    assert_eq!(world.get(&format!("/volumes/{id}")).await["status"], json!("attached"));
    let (status, problem) = delete("perhaps").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
    let kinds = async || world.get("/operations").await["items"].as_array().unwrap().len();
    assert_eq!(kinds().await, 2, "nothing was recorded");

    world.done(Method::POST, &format!("/volumes/{id}/detach"), None).await;
    let (status, deleted) = delete("refuse").await;
    assert_eq!((status, &deleted["status"]), (StatusCode::OK, &json!("completed")), "{deleted}");
    for attached in ["refuse", "detach"] {
        assert_eq!(delete(attached).await, (status, deleted.clone()), "the key is known");
    }
}

#[tokio::test]
async fn a_page_of_the_web_asks_nothing_through_an_open_door() {
    let principal = Principal::new("local", Role::Admin);
    let routes = Api::new("test").router(Door::Open(principal));
    let ask = async |name: header::HeaderName, value: &str| {
        let uri = format!("{PREFIX}/openapi.json");
        let request = Request::builder().uri(uri).header(name, value).body(Body::empty()).unwrap();
        routes.clone().oneshot(request).await.unwrap().status()
    };
    for host in ["localhost", "localhost:8090", "127.0.0.1:8090", "127.0.0.1", "[::1]:8090", "[::1]"] {
        assert_eq!(ask(header::HOST, host).await, StatusCode::OK, "{host}");
    }
    for host in ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", "192.0.2.1:8090"] {
        assert_eq!(ask(header::HOST, host).await, StatusCode::FORBIDDEN, "{host}");
    }
    assert_eq!(ask(header::ORIGIN, "https://evil.example").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn l05_a_device_of_another_machine_is_none_of_this_one() {
    let (store, backend) = (Arc::new(MemoryStore::default()), Arc::new(MemoryBackend::new()));
    let (there, here) =
        (World::of("there", store.clone(), backend.clone()), World::of("here", store, backend));
    let id = there.volume("web01").await;
    there.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    let device = there.get(&format!("/volumes/{id}/device")).await;
    let path = device["device_path"].as_str().unwrap().replace('/', "%2F");
    for asked in [format!("/volumes/{id}/device"), format!("/devices/volume?path={path}")] {
        assert_eq!(there.ask(Method::GET, &asked, None).await.0, StatusCode::OK, "{asked}");
        assert_eq!(here.ask(Method::GET, &asked, None).await.0, StatusCode::NOT_FOUND, "{asked}");
    }
}

#[tokio::test]
async fn whoever_does_not_wait_is_told_where_to_ask() {
    let world = World::new();
    let wanted = json!({ "context_id": world.vm("web01").await, "disk_key": "disk-2000" });
    let request = asked(Method::POST, "/volumes", "operator", None, Some(wanted));
    let (status, headers, begun) = world.send(request).await;
    assert_eq!((status, &begun["status"]), (StatusCode::ACCEPTED, &json!("executing")));
    let place = headers[header::LOCATION].to_str().unwrap().strip_prefix(PREFIX).unwrap();
    let ended = world.get(&format!("{place}?wait=30s")).await;
    assert_eq!(ended["status"], json!("completed"));
}

#[tokio::test]
async fn l07_what_the_service_refuses_is_told() {
    let world = World::new();
    let id = world.volume("web01").await;
    let (status, problem) = world.ask(Method::POST, &format!("/volumes/{id}/detach"), None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("not attached"), "{problem}");
    let (status, problem) = world.ask(Method::POST, &format!("/volumes/{id}/pardon"), None).await;
    assert_eq!((status, &problem["title"]), (StatusCode::CONFLICT, &json!("conflict")));
    for (path, body) in [
        (format!("/volumes/{id}/attach"), Some(json!({ "vm_id": "vm-of-somebody" }))),
        (format!("/volumes/{id}/attach-root"), None),
    ] {
        let (status, problem) = world.ask(Method::POST, &path, body).await;
        assert_eq!((status, &problem["title"]), (StatusCode::NOT_IMPLEMENTED, &json!("unsupported")));
    }
    world.service.shutdown().await;
    let (status, problem) = world.ask(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    assert_eq!((status, &problem["title"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("cancelled")));
}

#[tokio::test]
async fn a_body_that_may_be_left_out_may_be_empty() {
    let world = World::new();
    let id = world.volume("web01").await;
    let empty = |kind: &'static str| {
        let mut request =
            asked(Method::POST, &format!("/volumes/{id}/attach?wait=30s"), "operator", None, None);
        request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        request
    };
    for kind in ["application/json", "application/x-www-form-urlencoded"] {
        let (status, _, done) = world.send(empty(kind)).await;
        assert_eq!((status, &done["status"]), (StatusCode::OK, &json!("completed")), "{kind}: {done}");
    }
}

#[tokio::test]
async fn l13_a_volume_is_not_smaller_than_its_disk() {
    let world = World::new();
    let small = json!({ "context_id": world.vm("web01").await, "disk_key": "disk-2000", "size": 1 });
    let (status, problem) = world.ask(Method::POST, "/volumes", Some(small)).await;
    assert_eq!((status, &problem["title"]), (StatusCode::BAD_REQUEST, &json!("invalid")));
    assert_eq!(world.get("/operations").await["items"], json!([]), "nothing was recorded");
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem() {
    let world = World::new();
    let vm = world.vm("web01").await;
    let cases = [
        (
            Method::POST,
            "/volumes".to_owned(),
            Some(json!({ "context_id": vm, "disk_key": "a", "weight": 1 })),
            400,
        ),
        (Method::POST, "/volumes".to_owned(), Some(json!({ "context_id": "a b", "disk_key": "a" })), 400),
        (Method::POST, "/volumes".to_owned(), Some(json!([])), 400),
        (Method::POST, "/volumes".to_owned(), None, 415),
        (Method::GET, "/volumes?limit=many".to_owned(), None, 400),
        (Method::GET, "/operations?status=lost".to_owned(), None, 400),
        (Method::GET, "/volumes/a%20b".to_owned(), None, 400),
        (Method::GET, "/volumes/vol-1".to_owned(), None, 404),
        (Method::GET, "/vms/ctx-1/volumes".to_owned(), None, 404),
        (Method::GET, "/devices/volume".to_owned(), None, 400),
        (Method::GET, "/nothing".to_owned(), None, 404),
        (Method::PUT, "/volumes".to_owned(), None, 405),
        (Method::GET, "/operations/op-1?wait=soon".to_owned(), None, 404),
    ];
    for (method, path, body, expected) in cases {
        let request = asked(method.clone(), &path, "operator", None, body);
        let (status, headers, problem) = world.send(request).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}: {problem}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{method} {path}");
        assert_eq!(problem["status"], json!(expected), "{problem}");
        assert!(problem["type"].as_str().unwrap().starts_with("urn:oma:problem:"), "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    for wait in ["soon", "5", "s", "-1s", "9999999s", "1h"] {
        let id = world.volume("web01").await;
        let (status, problem) =
            world.ask(Method::POST, &format!("/volumes/{id}/attach?wait={wait}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wait}: {problem}");
        world.done(Method::DELETE, &format!("/volumes/{id}"), None).await;
    }
}

#[tokio::test]
async fn l30_every_route_but_health_needs_a_principal_with_a_role() {
    let world = World::new();
    let (_, _, document) = world.send(asked(Method::GET, "/openapi.json", "viewer", None, None)).await;
    let mut asked_for = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.strip_prefix(PREFIX).unwrap().replace(['{', '}'], "");
            let mut bare = asked(method.clone(), &path, "x", None, None);
            bare.headers_mut().remove(header::AUTHORIZATION);
            let statuses = [
                world.send(bare).await.0,
                world.send(asked(method.clone(), &path, "nobody's", None, None)).await.0,
                world.send(asked(method.clone(), &path, "viewer", None, None)).await.0,
            ];
            let changes = method != Method::GET || path == "/reconciliation";
            match path.as_str() {
                "/health" => assert_eq!(statuses, [StatusCode::OK; 3]),
                _ => {
                    assert_eq!(statuses[..2], [StatusCode::UNAUTHORIZED; 2], "{method} {path}");
                    assert_eq!(statuses[2] == StatusCode::FORBIDDEN, changes, "{method} {path}");
                }
            }
            asked_for += 1;
        }
    }
    assert!(asked_for >= 24, "{asked_for}");
}

#[tokio::test]
async fn an_open_door_admits_its_principal_only_as_far_as_its_role() {
    let world = World::new();
    let principal = Principal::new("local", Role::Viewer);
    let routes = Api::new("test").router(Door::Open(principal));
    let request = Request::builder().uri(format!("{PREFIX}/openapi.json")).body(Body::empty()).unwrap();
    assert_eq!(routes.oneshot(request).await.unwrap().status(), StatusCode::OK);
    drop(world);
}
