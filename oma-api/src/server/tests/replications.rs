//! Replications over the routes, with a worker beside them.

mod exports;
mod lists;
mod logs;
mod points;

use std::time::Duration;

use futures_util::StreamExt as _;
use oma_core::audit::AuditFilter;
use oma_core::engine::{
    PointService, ReplicateConfig, Replicator, RetryConfig, Services, Worker, WorkerConfig,
};
use oma_core::memory::{MemoryExportServer, MemorySource};
use oma_core::record::RetryPolicy;
use oma_core::traits::{BlockDevice as _, DiskSource, Durability};
use oma_core::{ByteSize, DiskKey, Endpoint, ExportName, Extent, JobId, RecoveryPointId, VmPath};

use super::*;
use crate::SourceRequest;

const CAPACITY: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// One source in memory, whatever is named; a disk at `forbidden` may not be read.
#[derive(Debug)]
struct OneSource(Arc<MemorySource>);

impl SourceOpener for OneSource {
    fn open(&self, vm: &VmPath, source: &SourceRequest) -> Result<Arc<dyn DiskSource>> {
        if source.disks.iter().any(|disk| disk.source == "forbidden") {
            return Err(Error::new(ErrorKind::PermissionDenied, "read the disks of", vm).because("not here"));
        }
        Ok(self.0.clone())
    }
}

/// Nobody pushes here.
#[derive(Debug)]
struct Nowhere;

impl ExportAddress for Nowhere {
    fn uri(&self, name: &ExportName, _: Origin) -> Result<String> {
        Ok(name.to_string())
    }
}

struct Appliance {
    world: World,
    source: Arc<MemorySource>,
    worker: Worker,
    /// What is changed leaves its entries there.
    trail: Arc<MemoryStore>,
    stop: CancellationToken,
}

impl Appliance {
    fn new() -> Self {
        let (store, backend) = (Arc::new(MemoryStore::default()), Arc::new(MemoryBackend::new()));
        let source = Arc::new(MemorySource::new(Endpoint::parse("vcenter.example").unwrap()));
        let services = Services::new(
            store.clone(),
            source.clone(),
            backend.clone(),
            Arc::new(MemoryExportServer::new()),
        );
        let retry = RetryConfig { attempts: 1, ..RetryConfig::default() };
        let config = ReplicateConfig { retry, ..ReplicateConfig::default() };
        let name = WorkerId::parse("test").unwrap();
        let points = PointService::new(services.clone(), name.clone(), config);
        let replicator = Replicator::new(services, name, config);
        let exports = exports::routes(replicator.services(), store.clone());
        let sources: Arc<dyn SourceOpener> = Arc::new(OneSource(source.clone()));
        let hour = Duration::from_secs(3600);
        let attempts = RetryPolicy { attempts: 2, first: hour, longest: hour };
        let pace = Duration::from_millis(5);
        let config = WorkerConfig { attempts, pace, ..WorkerConfig::default() };
        let worker = Worker::new(replicator.clone(), Arc::new(RecordedRequests(sources.clone())), config);
        let stop = CancellationToken::new();
        let routes = ReplicationRoutes {
            replicator,
            worker: Some(worker.clone()),
            points: Some(points.clone()),
            job_log: store.clone(),
            logs: store.clone(),
            overview: store.clone(),
            sources,
            exports: Arc::new(Nowhere),
            accounts: None,
            agent_jobs: AgentJobs::default(),
            stop: stop.clone(),
        };
        let World { service, .. } = World::of("test", store.clone(), backend);
        let points = PointRoutes { service: points, stop: stop.clone() };
        let api =
            Api::new("test").replications(routes).points(points).exports(exports).audited(store.clone());
        let world = World { routes: api.router(Door::Tokens(Arc::new(Labels))), service };
        Self { world, source, worker, trail: store, stop }
    }

    /// With somebody who drives jobs.
    fn driven(self) -> Self {
        let (worker, stop) = (self.worker.clone(), self.stop.clone());
        tokio::spawn(async move { worker.run(&stop).await });
        self
    }

    async fn add(&self, name: &str, keys: &[&str]) {
        let vm = VmPath::parse(path(name)).unwrap();
        for key in keys {
            let key = DiskKey::parse(*key).unwrap();
            let disk = self.source.add_disk(&vm, &key, ByteSize::new(CAPACITY));
            disk.write_at(4096, axum::body::Bytes::from(vec![7; 10_000]), Durability::Cached).await.unwrap();
        }
    }

    async fn create(&self, name: &str) -> String {
        let (status, job) = self.world.ask(Method::POST, "/replications", Some(request(name))).await;
        assert_eq!(status, StatusCode::CREATED, "{job}");
        job["job_id"].as_str().unwrap().to_owned()
    }

    async fn job(&self, id: &str) -> Value {
        self.world.get(&format!("/replications/{id}")).await
    }

    /// Waits until the end of a job is in its log.
    async fn until_told(&self, id: &str) {
        let waited = async {
            loop {
                let lines = self.world.get(&format!("/replications/{id}/logs")).await;
                if lines.to_string().contains("is committed") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap();
    }

    async fn post(&self, path: &str) -> (StatusCode, Value) {
        self.world.ask(Method::POST, path, None).await
    }

    async fn until(&self, id: &str, is: impl Fn(&Value) -> bool) -> Value {
        let waited = async {
            loop {
                let job = self.job(id).await;
                if is(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waited).await {
            Ok(job) => job,
            Err(_) => panic!("still {}", self.job(id).await),
        }
    }

    async fn until_ended(&self, id: &str, status: &str) -> Value {
        let job = self.until(id, |job| !job["completed_at"].is_null()).await;
        assert_eq!(job["status"], json!(status), "{job}");
        job
    }

    async fn stall(&self) {
        self.source.faults(&DiskKey::parse("disk-2000").unwrap()).stall_reads_in(whole());
    }

    async fn until_stalled(&self) {
        self.source.faults(&DiskKey::parse("disk-2000").unwrap()).until_stalled_in(whole()).await;
    }

    fn go_on(&self) {
        self.source.faults(&DiskKey::parse("disk-2000").unwrap()).clear();
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Appliance {
    /// What is told there until its end. What was stalled goes on with the first of it.
    async fn followed(&self, path: &str) -> String {
        let asked = asked(Method::GET, path, "viewer", None, None);
        let response = self.world.routes.clone().oneshot(asked).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let mut body = response.into_body().into_data_stream();
        let mut told = String::new();
        let read = async {
            while let Some(part) = body.next().await {
                told.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
                self.go_on();
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap();
        told
    }
}

fn whole() -> Extent {
    Extent::new(0, CAPACITY).unwrap()
}

fn path(name: &str) -> String {
    format!("/DC/vm/{name}")
}

fn request(name: &str) -> Value {
    json!({ "vm_path": path(name), "source": { "disks": [{ "key": "disk-2000", "source": "disk" }] } })
}

#[tokio::test]
async fn a_replication_is_recorded_driven_and_looked_at() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    let id = appliance.create("web").await;
    let ended = appliance.until_ended(&id, "completed").await;
    assert_eq!((&ended["vm_path"], &ended["epoch"]), (&json!("/DC/vm/web"), &json!(1)));
    assert_eq!((&ended["replication_type"], &ended["worker"]), (&json!("initial"), &Value::Null));
    let disks = appliance.world.get(&format!("/replications/{id}/disks")).await;
    assert_eq!((&disks[0]["consistent"], &disks[0]["epoch"]), (&json!(true), &json!(1)));
    let context = ended["context_id"].as_str().unwrap();
    let history = appliance.world.get(&format!("/vms/{context}/disks/disk-2000/cbt_history")).await;
    assert_eq!(
        (&history["items"][0]["job_id"], &history["items"][0]["sync_success"]),
        (&json!(id), &json!(true))
    );

    let again = appliance.create("web").await;
    let second = appliance.until_ended(&again, "completed").await;
    assert_eq!((&second["epoch"], &second["replication_type"]), (&json!(2), &json!("incremental")));
    for list in ["/replications".to_owned(), format!("/vms/{context}/jobs")] {
        let first = appliance.world.get(&format!("{list}?limit=1")).await;
        assert_eq!((&first["items"][0]["job_id"], &first["next"]), (&json!(again), &json!(again)));
        let rest = appliance.world.get(&format!("{list}?after={again}")).await;
        assert_eq!((&rest["items"][0]["job_id"], &rest["next"]), (&json!(id), &Value::Null));
    }
    let live = appliance.world.get("/replications?live=true").await;
    assert_eq!(live["items"], json!([]));
}

#[tokio::test]
async fn the_same_key_answers_the_same_job_and_another_request_is_refused() {
    let appliance = Appliance::new();
    appliance.add("web", &["disk-2000"]).await;
    let ask = async |body: Value| {
        let request = asked(Method::POST, "/replications", "operator", Some("my-key"), Some(body));
        let (status, headers, job) = appliance.world.send(request).await;
        (status, headers.get(header::LOCATION).cloned(), job)
    };
    let first = ask(request("web")).await;
    assert_eq!((first.0, &first.2["job_id"]), (StatusCode::CREATED, &json!("job-my-key")));
    assert_eq!(first.1.clone().unwrap(), "/api/v1/replications/job-my-key");
    assert_eq!(ask(request("web")).await, first);
    let mut other = request("web");
    other["verify"] = json!("full");
    assert_eq!(ask(other).await.0, StatusCode::CONFLICT);
    // Without the key it is another job, of a VM that has a live one.
    let (status, refused) = appliance.world.ask(Method::POST, "/replications", Some(request("web"))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(refused["detail"].as_str().unwrap().contains("job-my-key"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_replicated_is_refused_and_nothing_is_recorded() {
    let appliance = Appliance::new();
    let unknown = appliance.world.ask(Method::POST, "/replications", Some(request("none"))).await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND, "{}", unknown.1);
    appliance.add("web", &["disk-2000"]).await;
    let mut forbidden = request("web");
    forbidden["source"]["disks"][0]["source"] = json!("forbidden");
    let forbidden = appliance.world.ask(Method::POST, "/replications", Some(forbidden)).await;
    assert_eq!(forbidden.0, StatusCode::FORBIDDEN, "{}", forbidden.1);
    let mut misspelt = request("web");
    misspelt["verify_all"] = json!("full");
    let misspelt = appliance.world.ask(Method::POST, "/replications", Some(misspelt)).await;
    assert_eq!(misspelt.0, StatusCode::BAD_REQUEST, "{}", misspelt.1);
    let viewer = asked(Method::POST, "/replications", "viewer", None, Some(request("web")));
    assert_eq!(appliance.world.send(viewer).await.0, StatusCode::FORBIDDEN);
    assert_eq!(appliance.world.get("/replications").await["items"], json!([]));
    for path in ["/replications/job-none", "/replications/job-none/progress", "/vms/ctx-none/jobs"] {
        assert_eq!(appliance.world.ask(Method::GET, path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(
        appliance.world.ask(Method::GET, "/replications?after=job-none", None).await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_replication_rests_goes_on_and_is_cancelled() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    appliance.stall().await;
    let id = appliance.create("web").await;
    appliance.until_stalled().await;
    let (status, paused) = appliance.post(&format!("/replications/{id}/pause")).await;
    assert_eq!((status, &paused["wanted"]), (StatusCode::ACCEPTED, &json!("pause")), "{paused}");
    appliance.until(&id, |job| job["worker"].is_null()).await;
    appliance.go_on();
    let (status, resumed) = appliance.post(&format!("/replications/{id}/resume")).await;
    assert_eq!((status, &resumed["wanted"]), (StatusCode::ACCEPTED, &json!("run")), "{resumed}");
    appliance.until_ended(&id, "completed").await;

    appliance.stall().await;
    appliance
        .source
        .reset_tracking(&VmPath::parse(path("web")).unwrap(), &DiskKey::parse("disk-2000").unwrap());
    let id = appliance.create("web").await;
    appliance.until_stalled().await;
    let (status, _) = appliance.post(&format!("/replications/{id}/cancel")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    appliance.until_ended(&id, "cancelled").await;
    for step in ["cancel", "pause", "resume"] {
        let (status, refused) = appliance.post(&format!("/replications/{id}/{step}")).await;
        assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    }
}

#[tokio::test]
async fn a_failed_replication_is_retried_at_once_or_begun_again() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    appliance.stall().await;
    let id = appliance.create("web").await;
    appliance.until_stalled().await;
    let (status, refused) = appliance.post(&format!("/replications/{id}/retry")).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    appliance.post(&format!("/replications/{id}/pause")).await;
    appliance.until(&id, |job| job["worker"].is_null()).await;
    appliance.go_on();
    appliance.source.disconnect();
    appliance.post(&format!("/replications/{id}/resume")).await;
    let waiting = appliance.until(&id, |job| job["attempts"] == json!(1)).await;
    assert!(!waiting["due_at"].is_null() && !waiting["error"].is_null(), "{waiting}");
    // An hour is cut short, for the last attempt.
    let (status, _) = appliance.post(&format!("/replications/{id}/retry")).await;
    assert_eq!(status, StatusCode::CREATED);
    appliance.until_ended(&id, "failed").await;
    appliance.source.reconnect();
    let (status, again) = appliance.post(&format!("/replications/{id}/retry")).await;
    assert_eq!(status, StatusCode::CREATED, "{again}");
    let again = again["job_id"].as_str().unwrap().to_owned();
    assert_ne!(again, id);
    appliance.until_ended(&again, "completed").await;
}

#[tokio::test]
async fn a_replication_is_followed_until_it_has_ended() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    appliance.stall().await;
    let id = appliance.create("web").await;
    appliance.until_stalled().await;
    let told = appliance.followed(&format!("/replications/{id}/events")).await;
    let rows: Vec<Value> = told
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(rows.len() >= 2, "{told}");
    let last = rows.last().unwrap();
    assert_eq!(last["status"], json!("completed"));
    let progress = appliance.world.get(&format!("/replications/{id}/progress")).await;
    assert_eq!(progress, *last);
}

#[tokio::test]
async fn change_ids_are_answered_by_the_routes_of_the_original() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    appliance.add("db", &["disk-2000", "disk-2001"]).await;
    let missing = appliance.world.ask(Method::GET, "/replications/changeid?vm_path=/DC/vm/web", None).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
    let discovered = json!({ "vm_path": path("web"), "source": {} });
    let (status, vm) = appliance.world.ask(Method::POST, "/vms/discover", Some(discovered)).await;
    assert_eq!((status, &vm["job_id"]), (StatusCode::OK, &Value::Null), "{vm}");
    let none = appliance.world.get("/replications/changeid?vm_path=/DC/vm/web").await;
    assert_eq!((&none["change_id"], &none["disk_id"]), (&Value::Null, &json!("disk-2000")));
    let id = appliance.create("web").await;
    appliance.until_ended(&id, "completed").await;
    let known = appliance.world.get("/replications/changeid?vm_path=/DC/vm/web&disk_id=disk-2000").await;
    let change_id = known["change_id"].as_str().unwrap().to_owned();

    let report = async |change_id: &str| {
        let body = json!({ "change_id": change_id });
        appliance.world.ask(Method::POST, &format!("/replications/{id}/changeid"), Some(body)).await
    };
    let (status, confirmed) = report(&change_id).await;
    assert_eq!((status, &confirmed["change_id"]), (StatusCode::OK, &json!(change_id)));
    assert_eq!(report("another/1").await.0, StatusCode::CONFLICT);
    let unchanged = appliance.world.get("/replications/changeid?vm_path=/DC/vm/web").await;
    assert_eq!(unchanged["change_id"], json!(change_id));

    let discovered = json!({ "vm_path": path("db"), "source": {} });
    appliance.world.ask(Method::POST, "/vms/discover", Some(discovered)).await;
    let (status, which) =
        appliance.world.ask(Method::GET, "/replications/changeid?vm_path=/DC/vm/db", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(which["detail"].as_str().unwrap().contains("disk-2000, disk-2001"), "{which}");
    let (status, _) = appliance
        .world
        .ask(Method::GET, "/replications/changeid?vm_path=/DC/vm/db&disk_id=disk-9", None)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_ended_replication_is_removed_and_a_live_one_is_not() {
    let appliance = Appliance::new();
    appliance.add("web", &["disk-2000"]).await;
    let id = appliance.create("web").await;
    let delete = async || appliance.world.ask(Method::DELETE, &format!("/replications/{id}"), None).await;
    assert_eq!(delete().await.0, StatusCode::CONFLICT);
    let (worker, stop) = (appliance.worker.clone(), appliance.stop.clone());
    tokio::spawn(async move { worker.run(&stop).await });
    let ended = appliance.until_ended(&id, "completed").await;
    assert_eq!(delete().await.0, StatusCode::NO_CONTENT);
    assert_eq!(delete().await.0, StatusCode::NO_CONTENT);
    assert_eq!(
        appliance.world.ask(Method::GET, &format!("/replications/{id}"), None).await.0,
        StatusCode::NOT_FOUND
    );
    let known = appliance.world.get("/replications/changeid?vm_path=/DC/vm/web").await;
    assert!(!known["change_id"].is_null(), "{known} after {ended}");
}

#[tokio::test]
async fn the_document_has_what_agents_and_operators_share() {
    let document = Appliance::new().world.get("/openapi.json").await;
    let job = &document["paths"][format!("{PREFIX}/replications/{{job_id}}")];
    assert!(job["delete"].is_object(), "{job}");
    assert!(job["get"]["responses"]["304"].is_object(), "{job}");
    assert!(job["get"]["responses"]["200"]["headers"]["ETag"].is_object(), "{job}");
    for (path, method) in [("", "delete"), ("/cancel", "post"), ("/pause", "post"), ("/retry", "post")] {
        let change = &document["paths"][format!("{PREFIX}/replications/{{job_id}}{path}")][method];
        assert!(change["parameters"].to_string().contains("If-Match"), "{path}: {change}");
    }
}
