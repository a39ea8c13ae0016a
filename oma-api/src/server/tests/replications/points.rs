//! Recovery points over the routes.

use oma_core::traits::AuditLog as _;

use super::*;

impl Appliance {
    /// Replicates with points, so often; the ids of the points, newest first.
    async fn with_points(&self, name: &str, epochs: u32) -> Vec<String> {
        self.add(name, &["disk-2000"]).await;
        for _ in 0..epochs {
            let mut wanted = request(name);
            wanted["keep_points"] = json!(5);
            let (status, job) = self.world.ask(Method::POST, "/replications", Some(wanted)).await;
            assert_eq!(status, StatusCode::CREATED, "{job}");
            self.until_ended(job["job_id"].as_str().unwrap(), "completed").await;
        }
        let listed = self.world.get(&format!("/points?vm_path=/DC/vm/{name}")).await;
        ids(&listed)
    }

    async fn send(&self, method: Method, path: &str, role: &str, key: Option<&str>) -> (StatusCode, Value) {
        let (status, _, value) = self.world.send(asked(method, path, role, key, None)).await;
        (status, value)
    }
}

fn ids(listed: &Value) -> Vec<String> {
    let id = |row: &Value| row["point_id"].as_str().unwrap().to_owned();
    listed["items"].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn points_are_listed_vm_by_vm_and_page_by_page() {
    let appliance = Appliance::new().driven();
    let (web, db) = (appliance.with_points("web", 3).await, appliance.with_points("db", 2).await);
    assert_eq!((web.len(), db.len()), (3, 2));
    let first = appliance.world.get(&format!("/points/{}", web[0])).await;
    assert_eq!((&first["status"], &first["epoch"]), (&json!("ready"), &json!(3)));
    assert_eq!(
        (&first["vm_path"], &first["disks"][0]["disk_key"]),
        (&json!("/DC/vm/web"), &json!("disk-2000"))
    );

    let whole = appliance.world.get("/points").await;
    let expected: Vec<_> = web.iter().chain(&db).cloned().collect();
    assert_eq!((ids(&whole), &whole["next"]), (expected.clone(), &Value::Null));
    let (mut read, mut after) = (Vec::new(), String::new());
    loop {
        let part = appliance.world.get(&format!("/points?limit=2{after}")).await;
        read.extend(ids(&part));
        let Some(next) = part["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(read, expected);
    let job = appliance.world.get(&format!("/replications/{}", first["job_id"].as_str().unwrap())).await;
    let of_vm = format!("/vms/{}/points", job["context_id"].as_str().unwrap());
    assert_eq!(ids(&appliance.world.get(&of_vm).await), web);
    assert_eq!(ids(&appliance.world.get(&format!("{of_vm}?after={}", web[1])).await), web[2..]);
    for (asked, expected) in [
        ("/points?vm_path=/DC/vm/none".to_owned(), StatusCode::NOT_FOUND),
        ("/vms/ctx-none/points".to_owned(), StatusCode::NOT_FOUND),
        (format!("/points?after={}", RecoveryPointId::mint()), StatusCode::BAD_REQUEST),
        (format!("{of_vm}?after={}", db[0]), StatusCode::BAD_REQUEST),
        (format!("/points/{}", RecoveryPointId::mint()), StatusCode::NOT_FOUND),
    ] {
        assert_eq!(appliance.send(Method::GET, &asked, "viewer", None).await.0, expected, "{asked}");
    }
}

#[tokio::test]
async fn volumes_go_back_to_a_point_by_a_job_and_the_next_replication_is_right() {
    let appliance = Appliance::new().driven();
    let points = appliance.with_points("web", 2).await;
    let path = format!("/points/{}/revert", points[1]);
    let request = asked(Method::POST, &path, "operator", Some("back"), None);
    let (status, headers, begun) = appliance.world.send(request).await;
    assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::OK), "{begun}");
    assert_eq!(headers[header::LOCATION], format!("{PREFIX}/replications/job-back"));
    assert_eq!(begun["kind"], json!("revert"));
    let waited = format!("{path}?wait=1m");
    let (status, ended) = appliance.send(Method::POST, &waited, "operator", Some("back")).await;
    assert_eq!((status, &ended["job_id"]), (StatusCode::OK, &json!("job-back")), "{ended}");
    assert!(ended["error"].as_str().unwrap().starts_with("went back to epoch 1"), "{ended}");
    assert_eq!(appliance.job("job-back").await, ended);
    let progress = appliance.world.get("/replications/job-back/progress").await;
    assert_eq!((&progress["total_bytes"], &progress["durable_bytes"]), (&json!(CAPACITY), &json!(CAPACITY)));

    let other = format!("/points/{}/revert", points[0]);
    let (status, taken) = appliance.send(Method::POST, &other, "operator", Some("back")).await;
    assert_eq!((status, &taken["title"]), (StatusCode::CONFLICT, &json!("already exists")));
    for steer in ["retry", "pause", "cancel"] {
        let (status, refused) = appliance.post(&format!("/replications/job-back/{steer}")).await;
        assert_eq!(status, StatusCode::CONFLICT, "{steer}: {refused}");
    }
    let id = appliance.create("web").await;
    let again = appliance.until_ended(&id, "completed").await;
    assert_eq!(again["epoch"], json!(3));
}

#[tokio::test]
async fn nothing_is_gone_back_to_and_no_newest_point_deleted_while_a_job_of_the_vm_lives() {
    let appliance = Appliance::new().driven();
    let points = appliance.with_points("web", 2).await;
    let vm = VmPath::parse(path("web")).unwrap();
    let disk = appliance.source.disk(&vm, &DiskKey::parse("disk-2000").unwrap()).unwrap();
    disk.write_at(0, axum::body::Bytes::from(vec![9; 10_000]), Durability::Cached).await.unwrap();
    appliance.stall().await;
    let id = appliance.create("web").await;
    appliance.until_stalled().await;
    let (status, refused) =
        appliance.send(Method::POST, &format!("/points/{}/revert", points[0]), "operator", None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains(&id), "{refused}");
    let newest = format!("/points/{}", points[0]);
    assert_eq!(appliance.send(Method::DELETE, &newest, "operator", None).await.0, StatusCode::CONFLICT);
    appliance.go_on();
    appliance.until_ended(&id, "completed").await;
}

#[tokio::test]
async fn a_point_is_deleted_with_its_snapshots_and_the_trail_tells_who_did() {
    let appliance = Appliance::new().driven();
    let points = appliance.with_points("web", 2).await;
    let path = format!("/points/{}", points[1]);
    let (status, left) = appliance.send(Method::DELETE, &path, "operator", None).await;
    assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT), "{left}");
    let waited = format!("{path}?wait=1m");
    let (status, gone) = appliance.send(Method::DELETE, &waited, "operator", None).await;
    assert!(matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_FOUND), "{gone}");
    assert_eq!(appliance.send(Method::DELETE, &waited, "operator", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ids(&appliance.world.get("/points").await), points[..1]);
    let trail = appliance
        .trail
        .audit_entries(&AuditFilter::default(), oma_core::audit::AuditFrom::default(), 100)
        .await
        .unwrap();
    let deleted = trail.iter().find(|record| record.action == "DELETE /points/{point_id}").unwrap();
    assert_eq!((deleted.actor.as_deref(), &deleted.resource_id), (Some("the operator"), &points[1]));
}

#[tokio::test]
async fn l30_a_viewer_changes_no_point_and_an_agent_sees_none() {
    let appliance = Appliance::new().driven();
    let points = appliance.with_points("web", 1).await;
    let one = format!("/points/{}", points[0]);
    let (revert, job) = (format!("{one}/revert"), appliance.world.get(&one).await["job_id"].clone());
    let report = format!("/replications/{}/report", job.as_str().unwrap());
    for (method, path) in [(Method::DELETE, &one), (Method::POST, &revert)] {
        assert_eq!(appliance.send(method, path, "viewer", None).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    for path in ["/points", &one, "/vms/ctx-1/points", "/vms/ctx-1/forecast", &report] {
        assert_eq!(appliance.send(Method::GET, path, "agent", None).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(appliance.send(Method::GET, &one, "viewer", None).await.0, StatusCode::OK);
    assert_eq!(appliance.job(job.as_str().unwrap()).await["status"], json!("completed"));
}

#[tokio::test]
async fn the_report_of_a_replication_and_the_forecast_of_a_vm_are_told() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    let mut wanted = request("web");
    wanted["verify"] = json!("full");
    let (status, job) = appliance.world.ask(Method::POST, "/replications", Some(wanted)).await;
    assert_eq!(status, StatusCode::CREATED, "{job}");
    let id = job["job_id"].as_str().unwrap();
    let ended = appliance.until_ended(id, "completed").await;
    let told = appliance.world.get(&format!("/replications/{id}/report")).await;
    let sealed: oma_core::seal::SealedReport = serde_json::from_value(told).unwrap();
    assert_eq!((sealed.report.job.as_ref().map(JobId::as_str), sealed.seal), (Some(id), None));
    let early = format!("/vms/{}/forecast", ended["context_id"].as_str().unwrap());
    let without = appliance.create("web").await;
    appliance.until_ended(&without, "completed").await;
    for path in [
        &format!("/replications/{without}/report"),
        "/replications/job-none/report",
        &early,
        "/vms/ctx-none/forecast",
    ] {
        assert_eq!(
            appliance.send(Method::GET, path, "viewer", None).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    for _ in 0..2 {
        let id = appliance.create("web").await;
        appliance.until_ended(&id, "completed").await;
    }
    let forecast = appliance.world.get(&early).await;
    assert_eq!((&forecast["vm_path"], forecast["epochs"].as_u64() >= Some(2)), (&json!("/DC/vm/web"), true));
}
