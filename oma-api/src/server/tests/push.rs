//! Push mode over the routes: agents with accounts, a worker beside them, exports in this process.

use std::collections::BTreeSet;
use std::time::Duration;

use oma_core::audit::AuditFilter;
use oma_core::engine::{ReplicateConfig, Replicator, Services, Worker, WorkerConfig};
use oma_core::memory::{MemoryExportServer, MemorySource};
use oma_core::record::{Email, PasswordHash, TokenHash, TokenSpec, UserSpec};
use oma_core::state::TokenKind;
use oma_core::traits::{Accounts, AuditLog, BlockDevice, DiskSource, Durability, VolumeRegistry as _};
use oma_core::{Endpoint, ExportName, TokenId, VmPath};

use super::*;
use crate::SourceRequest;

mod own;
mod revoked;

const CAPACITY: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
const PLACE: &str = "nbds://oma.example/";

/// Nothing is read on this side.
#[derive(Debug)]
struct NoSource;

impl SourceOpener for NoSource {
    fn open(&self, vm: &VmPath, _: &SourceRequest) -> Result<Arc<dyn DiskSource>> {
        Err(Error::new(ErrorKind::PermissionDenied, "read the disks of", vm).because("not here"))
    }
}

#[derive(Debug)]
struct Place;

impl ExportAddress for Place {
    fn uri(&self, name: &ExportName, _: Origin) -> Result<String> {
        Ok(format!("{PLACE}{name}"))
    }
}

struct Appliance {
    routes: Router,
    store: Arc<MemoryStore>,
    server: Arc<MemoryExportServer>,
    stop: CancellationToken,
}

impl Appliance {
    /// With these users and a token each: their names. Somebody drives jobs.
    async fn new() -> Self {
        Self::bounded(AgentJobs::default()).await
    }

    /// As [`Appliance::new`], agents with so many jobs.
    async fn bounded(agent_jobs: AgentJobs) -> Self {
        let (store, server) = (Arc::new(MemoryStore::default()), Arc::new(MemoryExportServer::new()));
        for (name, role) in [
            ("agent-a", Role::Agent),
            ("agent-b", Role::Agent),
            ("viewer", Role::Viewer),
            ("operator", Role::Operator),
        ] {
            let email = Email::parse(&format!("{name}@example.com")).unwrap();
            let password_hash = PasswordHash::none();
            let user = UserSpec { email, full_name: String::new(), role, password_hash };
            let user = store.add_user(&user).await.unwrap();
            store.mint(user.id, &token(name, role)).await.unwrap();
        }
        let source = Arc::new(MemorySource::new(Endpoint::parse("none").unwrap()));
        let services = Services::new(store.clone(), source, Arc::new(MemoryBackend::new()), server.clone());
        let replicator =
            Replicator::new(services, WorkerId::parse("test").unwrap(), ReplicateConfig::default());
        let services = replicator.services();
        let exports = ExportRoutes {
            backend: services.backend.clone(),
            registry: store.clone(),
            instance: store.instance().await.unwrap(),
            publisher: Publisher::new(server.clone(), Arc::new(Place)),
            jobs: Some(JobExports {
                records: store.clone(),
                server: server.clone(),
                pushes: services.pushes.clone(),
            }),
        };
        let sources: Arc<dyn SourceOpener> = Arc::new(NoSource);
        let config = WorkerConfig { pace: Duration::from_millis(5), ..WorkerConfig::default() };
        let worker = Worker::new(replicator.clone(), Arc::new(RecordedRequests(sources.clone())), config);
        let stop = CancellationToken::new();
        let routes = ReplicationRoutes {
            replicator,
            worker: Some(worker.clone()),
            points: None,
            job_log: store.clone(),
            logs: store.clone(),
            overview: store.clone(),
            sources,
            exports: Arc::new(Place),
            accounts: Some(store.clone()),
            agent_jobs,
            stop: stop.clone(),
        };
        let api = Api::new("test").replications(routes).exports(exports).audited(store.clone());
        let routes = api.router(Door::Tokens(Arc::new(AccountTokens::new(store.clone()))));
        tokio::spawn({
            let stop = stop.clone();
            async move { worker.run(&stop).await }
        });
        Self { routes, store, server, stop }
    }

    async fn ask(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.send(asked(method, path, token, None, body)).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, token: &str, path: &str) -> Value {
        let (status, value) = self.ask(token, Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        value
    }

    async fn create(&self, token: &str, request: Value) -> String {
        let (status, job) = self.ask(token, Method::POST, "/replications", Some(request)).await;
        assert_eq!(status, StatusCode::CREATED, "{job}");
        job["job_id"].as_str().unwrap().to_owned()
    }

    async fn report(&self, token: &str, id: &str, change_id: &str) -> (StatusCode, Value) {
        self.report_of(token, id, change_id, json!(1)).await
    }

    /// Reports a disk that was copied in this attempt.
    async fn report_of(&self, token: &str, id: &str, change_id: &str, fence: Value) -> (StatusCode, Value) {
        let body = json!({ "change_id": change_id, "disk_id": "disk-2000", "fence": fence });
        self.ask(token, Method::POST, &format!("/replications/{id}/changeid"), Some(body)).await
    }

    /// Waits until something that is asked for is as it should be.
    async fn until(&self, token: &str, path: &str, is: impl Fn(&Value) -> bool) -> Value {
        let waited = async {
            loop {
                let found = self.get(token, path).await;
                if is(&found) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waited).await {
            Ok(found) => found,
            Err(_) => panic!("still {}", self.get(token, path).await),
        }
    }

    async fn ready(&self, token: &str, id: &str) -> Value {
        self.until(token, &format!("/replications/{id}/push"), |push| push["ready"] == json!(true)).await
    }

    fn open(&self, push: &Value) -> Arc<dyn BlockDevice> {
        let name = push["disks"][0]["export"].as_str().unwrap().strip_prefix(PLACE).unwrap();
        self.server.connect(&ExportName::parse(name).unwrap()).unwrap()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn token(name: &str, role: Role) -> TokenSpec {
    TokenSpec {
        id: TokenId::mint(),
        kind: TokenKind::Api,
        name: name.to_owned(),
        role,
        hash: TokenHash::of(name),
        jobs: BTreeSet::new(),
        lifetime: Duration::from_secs(3600),
        address: None,
    }
}

fn push(name: &str, change_id: &str) -> Value {
    let disk = json!({ "key": "disk-2000", "capacity_bytes": CAPACITY, "change_id": change_id });
    json!({ "vm_path": format!("/DC/vm/{name}"), "push": { "disks": [disk] } })
}

#[tokio::test]
async fn an_agent_pushes_in_full_and_then_what_changed() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    let told = appliance.ready("agent-a", &id).await;
    let disk = &told["disks"][0];
    assert_eq!((&disk["base_change_id"], &disk["blank"]), (&Value::Null, &json!(true)), "{told}");
    assert_eq!((&disk["work"], &told["fence"]), (&json!([[0, CAPACITY]]), &json!(1)));
    let target = appliance.open(&told);
    target.write_at(4096, vec![7; 4096].into(), Durability::Cached).await.unwrap();
    // In this process a client that stays keeps the volume open.
    drop(target);
    let finished = json!({ "fence": 1, "extents": [[0, 8192]] });
    let path = format!("/replications/{id}/disks/disk-2000/finished");
    let (status, _) = appliance.ask("agent-a", Method::POST, &path, Some(finished)).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let progress = format!("/replications/{id}/progress");
    let far = appliance.until("agent-a", &progress, |told| told["durable_bytes"] == json!(8192)).await;
    assert_eq!((&far["total_bytes"], &far["disks"][0]["written_bytes"]), (&json!(CAPACITY), &json!(4096)));
    assert_eq!(appliance.report("agent-a", &id, "b@2").await.0, StatusCode::CONFLICT);
    let (status, noted) = appliance.report("agent-a", &id, "b@1").await;
    assert_eq!((status, &noted["change_id"]), (StatusCode::ACCEPTED, &Value::Null), "{noted}");
    let job = format!("/replications/{id}");
    appliance.until("agent-a", &job, |job| job["status"] == json!("completed")).await;
    let (status, kept) = appliance.report("agent-a", &id, "b@1").await;
    assert_eq!((status, &kept["change_id"]), (StatusCode::OK, &json!("b@1")));
    let known = appliance.get("agent-a", "/replications/changeid?vm_path=/DC/vm/web").await;
    assert_eq!(known["change_id"], json!("b@1"));

    let mut next = push("web", "b@2");
    next["push"]["disks"][0]["changed"] = json!([{ "since": "b@1", "extents": [[65536, 4096]] }]);
    let id = appliance.create("agent-a", next).await;
    let told = appliance.ready("agent-a", &id).await;
    let disk = &told["disks"][0];
    assert_eq!((&disk["base_change_id"], &disk["work"]), (&json!("b@1"), &json!([[65536, 4096]])), "{told}");
    assert_eq!((&disk["fresh"], &disk["work_bytes"]), (&json!(true), &json!(4096)));
    assert_eq!(appliance.report("agent-a", &id, "b@2").await.0, StatusCode::ACCEPTED);
    let job = format!("/replications/{id}");
    let ended = appliance.until("agent-a", &job, |job| job["status"] == json!("completed")).await;
    assert_eq!(ended["epoch"], json!(2));
}

#[tokio::test]
async fn l30_an_agents_job_is_nobody_elses_but_of_those_who_look_after_all() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    appliance.ready("agent-a", &id).await;
    let body = |path: &str| match path.rsplit('/').next() {
        Some("changeid") => Some(json!({ "change_id": "b@1" })),
        Some("finished") => Some(json!({ "fence": 1, "extents": [[0, 512]] })),
        Some("failed") => Some(json!({ "fence": 1, "reason": "tired" })),
        _ => None,
    };
    for (method, path) in [
        (Method::GET, "/replications/JOB"),
        (Method::GET, "/replications/JOB/push"),
        (Method::GET, "/replications/JOB/disks"),
        (Method::GET, "/replications/JOB/progress"),
        (Method::GET, "/replications/JOB/events"),
        (Method::GET, "/replications/JOB/steps"),
        (Method::GET, "/replications/JOB/logs"),
        (Method::GET, "/replications/JOB/logs/follow"),
        (Method::POST, "/replications/JOB/changeid"),
        (Method::POST, "/replications/JOB/disks/disk-2000/finished"),
        (Method::POST, "/replications/JOB/failed"),
        (Method::POST, "/replications/JOB/cancel"),
    ] {
        let asked = async |id: &str| {
            appliance.ask("agent-b", method.clone(), &path.replace("JOB", id), body(path)).await
        };
        let ((status, hidden), (_, absent)) = (asked(&id).await, asked("job-none").await);
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {hidden}");
        assert_eq!(hidden.to_string().replace(&id, "job-none"), absent.to_string(), "{path}");
    }
    assert_eq!(appliance.get("agent-b", "/replications").await["items"], json!([]));
    let (status, _) =
        appliance.ask("agent-b", Method::GET, "/replications/changeid?vm_path=/DC/vm/web", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for path in ["/vms/ctx-1/jobs", "/openapi.json"] {
        assert_eq!(
            appliance.ask("agent-a", Method::GET, path, None).await.0,
            StatusCode::FORBIDDEN,
            "{path}"
        );
    }
    for step in ["pause", "resume", "retry"] {
        let path = format!("/replications/{id}/{step}");
        assert_eq!(appliance.ask("agent-a", Method::POST, &path, None).await.0, StatusCode::FORBIDDEN);
    }
    let failed = format!("/replications/{id}/failed");
    let reason = || body(&failed);
    assert_eq!(appliance.ask("viewer", Method::POST, &failed, reason()).await.0, StatusCode::FORBIDDEN);
    // Who knows the name of an export writes there.
    let seen = appliance.get("viewer", &format!("/replications/{id}/push")).await;
    assert_eq!((&seen["job_id"], &seen["disks"][0]["export"]), (&json!(id), &Value::Null), "{seen}");
    for teller in ["agent-a", "operator"] {
        let seen = appliance.get(teller, &format!("/replications/{id}/push")).await;
        assert!(seen["disks"][0]["export"].as_str().unwrap().starts_with(PLACE), "{seen}");
    }
    let own = appliance.get("agent-a", "/replications?live=true").await;
    assert_eq!(own["items"][0]["job_id"], json!(id));
}

#[tokio::test]
async fn l30_an_agent_reads_what_is_told_of_its_own_job() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    appliance.ready("agent-a", &id).await;
    let is_told = |page: &Value| !page["items"].as_array().unwrap().is_empty();
    for path in ["steps", "logs"] {
        let path = format!("/replications/{id}/{path}");
        let told = appliance.until("agent-a", &path, is_told).await;
        assert_eq!(told["items"][0], appliance.get("operator", &path).await["items"][0], "{path}");
    }
    let job = format!("/replications/{id}");
    appliance.ask("agent-a", Method::POST, &format!("{job}/cancel"), None).await;
    appliance.until("agent-a", &job, |job| job["status"] == json!("cancelled")).await;
    let (status, _) = appliance.ask("agent-a", Method::GET, &format!("{job}/logs/follow"), None).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn an_agent_has_only_so_many_live_jobs() {
    let appliance = Appliance::bounded(AgentJobs::new(2)).await;
    let first = appliance.create("agent-a", push("web1", "b@1")).await;
    appliance.create("agent-a", push("web2", "b@1")).await;
    let third = || Some(push("web3", "b@1"));
    let (status, told) = appliance.ask("agent-a", Method::POST, "/replications", third()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(told.to_string().contains("2 jobs that have not ended"), "{told}");
    // Its own again is no other one, and others have their own bound, or none.
    let key = first.strip_prefix("job-").unwrap();
    let again = asked(Method::POST, "/replications", "agent-a", Some(key), Some(push("web1", "b@1")));
    assert_eq!(appliance.send(again).await.0, StatusCode::CREATED);
    appliance.create("agent-b", push("b", "b@1")).await;
    for name in ["x1", "x2", "x3"] {
        appliance.create("operator", push(name, "b@1")).await;
    }
    let job = format!("/replications/{first}");
    appliance.ask("agent-a", Method::POST, &format!("{job}/cancel"), None).await;
    appliance.until("agent-a", &job, |job| job["status"] == json!("cancelled")).await;
    appliance.create("agent-a", push("web3", "b@1")).await;
}

#[tokio::test]
async fn l15_a_new_token_of_its_user_finds_the_live_job_of_its_vm() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    let user = appliance.store.bearer(&TokenHash::of("agent-a")).await.unwrap().unwrap().user.id;
    appliance.store.mint(user, &token("agent-a anew", Role::Agent)).await.unwrap();
    let path = format!("/replications/{id}");
    let asked = async |token: &str| {
        let (status, told) =
            appliance.ask(token, Method::POST, "/replications", Some(push("web", "b@2"))).await;
        assert_eq!(status, StatusCode::CONFLICT, "{told}");
        (appliance.ask(token, Method::GET, &path, None).await.0, told)
    };
    assert_eq!(appliance.ask("agent-a anew", Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    let (seen, told) = asked("agent-a anew").await;
    assert!(told.to_string().contains(&id), "{told}");
    assert_eq!(seen, StatusCode::OK);
    // Another's stays another's.
    let (seen, told) = asked("agent-b").await;
    assert!(!told.to_string().contains(&id), "{told}");
    assert_eq!(seen, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn l15_whoever_only_looks_on_is_no_agent_that_lives() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    appliance.ready("agent-a", &id).await;
    let path = format!("/replications/{id}/push");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_mins(4)).await;
        let seen = appliance.get("operator", &path).await;
        assert_eq!(seen["quiet_seconds"].as_u64().unwrap() / 60 % 4, 0, "{seen}");
        appliance.get("viewer", &path).await;
    }
    tokio::time::sleep(Duration::from_mins(4)).await;
    let seen = appliance.get("operator", &path).await;
    assert!(seen["error"].as_str().unwrap().contains("no sign of life"), "{seen}");
}

#[tokio::test]
async fn l30_an_agent_pushes_its_own_and_touches_nothing_of_others() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    let refused = async |token: &str, request: Value| {
        appliance.ask(token, Method::POST, "/replications", Some(request)).await.0
    };
    // The VM of another agent, by its path and by its identity.
    assert_eq!(refused("agent-b", push("web", "b@1")).await, StatusCode::CONFLICT);
    let mut as_a = push("web2", "b@1");
    as_a["push"]["endpoint"] = json!("agent-1");
    assert_eq!(refused("agent-b", as_a).await, StatusCode::FORBIDDEN);
    // What the appliance reads.
    let reading = json!({ "vm_path": "/DC/vm/x", "source": { "disks": [{ "key": "disk-2000", "source": "/etc/shadow" }] } });
    assert_eq!(refused("agent-b", reading.clone()).await, StatusCode::FORBIDDEN);
    let mut both = reading;
    both["push"] = push("x", "b@1")["push"].clone();
    assert_eq!(refused("operator", both).await, StatusCode::BAD_REQUEST);
    // An id of another's job, with what that was asked for.
    let key = id.strip_prefix("job-").unwrap();
    let taken = asked(Method::POST, "/replications", "agent-b", Some(key), Some(push("web", "b@1")));
    assert_eq!(appliance.send(taken).await.0, StatusCode::CONFLICT);
    let (status, _) = appliance.ask("agent-b", Method::GET, &format!("/replications/{id}"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // Its own again is its own.
    let again = asked(Method::POST, "/replications", "agent-a", Some(key), Some(push("web", "b@1")));
    let (status, job) = appliance.send(again).await;
    assert_eq!((status, &job["job_id"]), (StatusCode::CREATED, &json!(id)));
    for (field, value) in [("verify", "full"), ("trust_changes", "spot-check")] {
        let mut only_the_agent = push("db", "b@1");
        only_the_agent[field] = json!(value);
        assert_eq!(refused("agent-b", only_the_agent).await, StatusCode::BAD_REQUEST);
    }
    for (field, value) in [("priority", json!(1)), ("target", json!("one"))] {
        let mut an_operators = push("db", "b@1");
        an_operators[field] = value;
        assert_eq!(refused("agent-b", an_operators).await, StatusCode::FORBIDDEN, "{field}");
    }
    let mut none = push("db", "b@1");
    none["push"]["disks"] = json!([]);
    assert_eq!(refused("agent-b", none).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn l16_a_word_of_another_attempt_is_a_conflict_and_one_of_none_is_refused() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    appliance.ready("agent-a", &id).await;
    let words = [
        ("failed", json!({ "reason": "tired", "fence": 7 })),
        ("disks/disk-2000/finished", json!({ "extents": [[0, 512]], "fence": 7 })),
        ("changeid", json!({ "change_id": "b@1", "fence": 7 })),
    ];
    for (path, mut body) in words {
        let path = format!("/replications/{id}/{path}");
        let (status, told) = appliance.ask("agent-a", Method::POST, &path, Some(body.clone())).await;
        assert_eq!(status, StatusCode::CONFLICT, "{path}: {told}");
        assert!(told.to_string().contains("look again"), "{told}");
        body.as_object_mut().unwrap().remove("fence");
        let (status, told) = appliance.ask("agent-a", Method::POST, &path, Some(body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
        assert!(told.to_string().contains("fence"), "{told}");
    }
    let told = appliance.ready("agent-a", &id).await;
    assert_eq!(
        (&told["disks"][0]["reported"], &told["disks"][0]["work_bytes"]),
        (&json!(false), &json!(CAPACITY))
    );
}

#[tokio::test]
async fn an_agent_gives_up_or_cancels_and_every_word_is_in_the_trail() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    appliance.ready("agent-a", &id).await;
    let failed = format!("/replications/{id}/failed");
    let long = Some(json!({ "fence": 1, "reason": "" }));
    assert_eq!(appliance.ask("agent-a", Method::POST, &failed, long).await.0, StatusCode::BAD_REQUEST);
    let reason = Some(json!({ "fence": 1, "reason": "the disk is dead" }));
    assert_eq!(appliance.ask("agent-a", Method::POST, &failed, reason).await.0, StatusCode::ACCEPTED);
    let job = format!("/replications/{id}");
    let ended = appliance.until("agent-a", &job, |job| job["status"] == json!("failed")).await;
    assert!(ended["error"].as_str().unwrap().contains("the disk is dead"), "{ended}");
    let late = appliance.report("agent-a", &id, "b@1").await;
    assert_eq!(late.0, StatusCode::CONFLICT, "{}", late.1);
    let retry = appliance.ask("operator", Method::POST, &format!("{job}/retry"), None).await;
    assert_eq!(retry.0, StatusCode::CONFLICT, "{}", retry.1);

    let id = appliance.create("agent-a", push("web", "b@2")).await;
    let target = appliance.open(&appliance.ready("agent-a", &id).await);
    let job = format!("/replications/{id}");
    assert_eq!(
        appliance.ask("agent-a", Method::POST, &format!("{job}/cancel"), None).await.0,
        StatusCode::ACCEPTED
    );
    appliance.until("agent-a", &job, |job| job["status"] == json!("cancelled")).await;
    target.write_at(0, vec![1; 512].into(), Durability::Cached).await.unwrap_err();
    assert_eq!(appliance.report("agent-a", &id, "b@2").await.0, StatusCode::CONFLICT);

    let trail = appliance
        .store
        .audit_entries(&AuditFilter::default(), oma_core::audit::AuditFrom::default(), 1000)
        .await
        .unwrap();
    let actions: Vec<String> = trail.iter().map(|record| record.action.clone()).collect();
    for action in
        ["POST /replications", "POST /replications/{job_id}/failed", "POST /replications/{job_id}/cancel"]
    {
        assert!(actions.iter().any(|known| known == action), "{action} in {actions:?}");
    }
}
