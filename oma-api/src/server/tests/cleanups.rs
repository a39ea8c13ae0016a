//! Cleanups over the routes.

use std::time::Duration;

use oma_core::engine::{CleanupRequest, CleanupService, CleanupServices, VolumeChange, VolumeRequest};
use oma_core::memory::{ManualClock, MemoryExportServer};
use oma_core::record::{
    CleanupAction, CleanupSpec, CleanupVolume, JobEnd, JobSpec, Presence, SourceDisk, SourceIdentity,
    SourceVm,
};
use oma_core::state::ReplicationType;
use oma_core::traits::{Cleanups, JobStore, Provisioning, VolumeRegistry};
use oma_core::{
    ByteSize, CleanupId, DiskKey, DiskRef, Endpoint, InstanceUuid, JobId, OperationId, Timestamp, VmPath,
};

use super::*;

struct Site {
    world: World,
    store: Arc<MemoryStore>,
    service: CleanupService,
    jobs: u32,
}

impl Site {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let (store, backend) = (Arc::new(MemoryStore::new(clock)), Arc::new(MemoryBackend::new()));
        let world = World::of("test", store.clone(), backend);
        let services = CleanupServices {
            inventory: store.clone(),
            exports: store.clone(),
            points: store.clone(),
            cleanups: store.clone(),
            server: Arc::new(MemoryExportServer::new()),
        };
        let service = CleanupService::new(world.service.clone(), services);
        let routes = CleanupRoutes { service: service.clone(), stop: CancellationToken::new() };
        let api = Api::new("test").cleanups(routes).audited(store.clone());
        let world = World { routes: api.router(Door::Tokens(Arc::new(Labels))), service: world.service };
        Self { world, store, service, jobs: 0 }
    }

    /// A job of a VM of its own, which has failed unless it is to live.
    async fn job(&mut self, fails: bool) -> JobId {
        self.jobs += 1;
        let path = VmPath::parse(format!("/DC/vm/web{}", self.jobs)).unwrap();
        let key = DiskKey::parse("disk-2000").unwrap();
        let disk = SourceDisk {
            key: key.clone(),
            label: String::new(),
            location: "web.vmdk".to_owned(),
            capacity: ByteSize::mib(1),
            unit_number: None,
        };
        let endpoint = Endpoint::parse("vcenter").unwrap();
        let identity = SourceIdentity { instance_uuid: InstanceUuid::from_path(&path), endpoint };
        let vm = SourceVm { identity, name: "web".to_owned(), path, disks: vec![disk] };
        let vm = self.store.record(&vm).await.unwrap();
        let id = JobId::parse(format!("job-{}", self.jobs)).unwrap();
        let spec = JobSpec::new(id.clone(), vm.id, ReplicationType::Initial, vec![key]);
        self.store.insert(spec).await.unwrap();
        if fails {
            let worker = WorkerId::parse("test").unwrap();
            let lease = self.store.claim(&id, &worker, Duration::from_secs(30)).await.unwrap();
            self.store.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
        }
        id
    }

    async fn planned(&self, job: &JobId) -> Value {
        let (status, plan) = self.world.ask(Method::POST, "/cleanups", Some(json!({ "job_id": job }))).await;
        assert_eq!(status, StatusCode::CREATED, "{plan}");
        plan
    }

    async fn execute(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, value) = self.world.send(asked(Method::POST, path, "admin", None, None)).await;
        (status, value)
    }

    async fn post(&self, path: &str, role: &str, key: Option<&str>, body: Value) -> (StatusCode, Value) {
        let (status, _, value) = self.world.send(asked(Method::POST, path, role, key, Some(body))).await;
        (status, value)
    }
}

fn id(plan: &Value) -> String {
    plan["cleanup_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn l26_a_plan_is_read_then_executed_and_kept_with_its_counts() {
    let mut site = Site::new();
    let job = site.job(true).await;
    let plan = site.planned(&job).await;
    assert_eq!((&plan["status"], &plan["first"]), (&json!("planned"), &json!([])));
    assert_eq!(plan["items"][0]["kind"], json!("job"));
    let names: Vec<_> = plan["steps"].as_array().unwrap().iter().map(|step| step["name"].clone()).collect();
    assert_eq!(names, ["delete_job", "check"]);
    assert!(site.store.get(&job).await.unwrap().is_some(), "a plan changes nothing");
    let path = format!("/cleanups/{}/execute?wait=1m", id(&plan));
    let (status, done) = site.execute(&path).await;
    assert_eq!((status, &done["status"]), (StatusCode::OK, &json!("completed")), "{done}");
    assert!(done["left"].as_object().unwrap().values().all(|count| *count == json!(0)));
    assert_eq!(site.world.get(&format!("/cleanups/{}", id(&plan))).await, done);
    assert_eq!(site.execute(&path).await, (StatusCode::OK, done));
    assert!(site.store.get(&job).await.unwrap().is_none());
    let again = site.planned(&job).await;
    assert_eq!(again["steps"].as_array().unwrap().len(), 1, "a second run finds nothing to do: {again}");
}

#[tokio::test]
async fn a_live_job_is_to_be_cancelled_first() {
    let mut site = Site::new();
    let job = site.job(false).await;
    let plan = site.planned(&job).await;
    assert!(plan["first"][0].as_str().unwrap().contains("cancel it"), "{plan}");
    let (status, problem) = site.execute(&format!("/cleanups/{}/execute", id(&plan))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("cancel it"), "{problem}");
}

#[tokio::test]
async fn l26_a_plan_of_a_world_that_changed_is_refused() {
    let mut site = Site::new();
    let job = site.job(true).await;
    let plan = site.planned(&job).await;
    site.store.delete(&job).await.unwrap();
    let path = format!("/cleanups/{}/execute", id(&plan));
    let (status, problem) = site.execute(&path).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    let now = site.world.get(&format!("/cleanups/{}", id(&plan))).await;
    assert_eq!(now["status"], json!("refused"));
    assert!(now["error"].as_str().unwrap().contains("not as the plan saw it"), "{now}");
}

#[tokio::test]
async fn l26_what_is_refused_while_it_is_carried_out_is_no_success() {
    let mut site = Site::new();
    let job = site.job(true).await;
    let request = CleanupRequest::new(job);
    let planned = site.service.plan(&request).await.unwrap();
    let disk =
        DiskRef { context: planned.spec.plan.context.clone(), key: DiskKey::parse("disk-2000").unwrap() };
    let create = VolumeChange::Create {
        name: "web".to_owned(),
        capacity: ByteSize::mib(1),
        provisioning: Provisioning::Thin,
    };
    let create = VolumeRequest { id: OperationId::mint(), disk: disk.clone(), volume: None, change: create };
    site.world.service.submit(create.clone()).await.unwrap();
    site.world.service.wait(&create.id, Duration::from_secs(30)).await.unwrap();
    let record = site.store.volume_of(&disk).await.unwrap().unwrap();
    // Begun over a volume that is another one since.
    let volume = CleanupVolume { held_epoch: true, ..CleanupVolume::of(&record, Presence::Missing) };
    let mut spec = CleanupSpec { id: CleanupId::mint(), ..planned.spec };
    spec.plan.steps = vec![CleanupAction::Delete { volume }, CleanupAction::Check];
    site.store.insert_cleanup(&spec).await.unwrap();
    site.store.begin_cleanup(&spec.id).await.unwrap();
    let (status, problem) = site.execute(&format!("/cleanups/{}/execute?wait=1m", spec.id)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("not as the plan saw it"), "{problem}");
    assert_eq!(site.store.volume_of(&disk).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_daemon_that_ends_begins_no_cleanup_and_says_so() {
    let mut site = Site::new();
    let job = site.job(true).await;
    let plan = site.planned(&job).await;
    site.service.shutdown().await;
    let (status, problem) = site.execute(&format!("/cleanups/{}/execute?wait=1m", id(&plan))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    let now = site.world.get(&format!("/cleanups/{}", id(&plan))).await;
    assert_eq!(now["status"], json!("planned"));
}

#[tokio::test]
async fn the_same_request_with_the_same_key_answers_the_same_plan() {
    let mut site = Site::new();
    let (job, other) = (site.job(true).await, site.job(true).await);
    let body = json!({ "job_id": job });
    let first = site.post("/cleanups", "operator", Some("k-1"), body.clone()).await;
    assert_eq!((first.0, &first.1["cleanup_id"]), (StatusCode::CREATED, &json!("cleanup-k-1")));
    assert_eq!(site.post("/cleanups", "operator", Some("k-1"), body).await, first);
    let (status, _) = site.post("/cleanups", "operator", Some("k-1"), json!({ "job_id": other })).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = site.post("/cleanups", "operator", Some("ü"), json!({ "job_id": other })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn cleanups_are_listed_by_pages() {
    let mut site = Site::new();
    let mut plans = Vec::new();
    for _ in 0..3 {
        let job = site.job(true).await;
        plans.push(site.planned(&job).await);
    }
    let page = site.world.get("/cleanups?limit=2").await;
    assert_eq!(page["items"], json!([plans[2], plans[1]]));
    let rest = site.world.get(&format!("/cleanups?after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((&rest["items"], &rest["next"]), (&json!([plans[0]]), &Value::Null));
    let page = site.world.get("/cleanups?limit=2&order=oldest").await;
    assert_eq!(page["items"], json!([plans[0], plans[1]]));
    let next = page["next"].as_str().unwrap();
    let rest = site.world.get(&format!("/cleanups?order=oldest&after={next}")).await;
    assert_eq!((&rest["items"], &rest["next"]), (&json!([plans[2]]), &Value::Null));
    let (status, _) = site.world.ask(Method::GET, &format!("/cleanups?after={next}"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "of the other order");
    let of_job = site.world.get("/cleanups?job_id=job-2&status=planned").await;
    assert_eq!(of_job["items"], json!([plans[1]]));
    assert_eq!(site.world.get("/cleanups?status=executing").await["items"], json!([]));
    let (status, _) = site.world.ask(Method::GET, "/cleanups?after=cleanup-none", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn l30_a_viewer_reads_plans_an_operator_makes_them_an_admin_executes_them_and_every_change_is_in_the_trail()
 {
    let mut site = Site::new();
    let job = site.job(true).await;
    let (status, _) = site.post("/cleanups", "viewer", None, json!({ "job_id": job })).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let plan = site.planned(&job).await;
    let path = format!("/cleanups/{}", id(&plan));
    for role in ["viewer", "operator"] {
        let (status, _) = site.post(&format!("{path}/execute"), role, None, Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let (status, _, _) = site.world.send(asked(Method::GET, &path, "viewer", None, None)).await;
    assert_eq!(status, StatusCode::OK);
    site.execute(&format!("{path}/execute?wait=1m")).await;
    let all = oma_core::audit::AuditFilter::default();
    let trail = oma_core::traits::AuditLog::audit_entries(
        &*site.store,
        &all,
        oma_core::audit::AuditFrom::default(),
        10,
    )
    .await
    .unwrap();
    let told: Vec<_> =
        trail.iter().rev().map(|record| (record.actor.as_deref().unwrap(), record.action.as_str())).collect();
    let execute = "POST /cleanups/{cleanup_id}/execute";
    let failed = format!("{execute} failed");
    let expected = [
        ("the operator", "POST /cleanups"),
        ("the operator", execute),
        ("the operator", &failed),
        ("the admin", execute),
    ];
    assert_eq!(told, expected, "{trail:#?}");
}

#[tokio::test]
async fn what_is_not_there_or_not_asked_well_is_told() {
    let site = Site::new();
    for (body, expected) in [
        (json!({ "job_id": "job-none" }), StatusCode::NOT_FOUND),
        (json!({ "job_id": "a b" }), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({ "job_id": "job-1", "volumes": "burn" }), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({ "job_id": "job-1", "force": true }), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let (status, problem) = site.world.ask(Method::POST, "/cleanups", Some(body)).await;
        assert!(status == expected || status == StatusCode::BAD_REQUEST, "{problem}");
        assert_eq!(status == StatusCode::NOT_FOUND, expected == StatusCode::NOT_FOUND);
    }
    for path in ["/cleanups/cleanup-none", "/cleanups/cleanup-none/execute"] {
        let method = if path.ends_with("execute") { Method::POST } else { Method::GET };
        let (status, _, _) = site.world.send(asked(method, path, "admin", None, None)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}
