//! The exports of jobs whose volumes the appliance itself writes.

use oma_core::traits::ExportServer;

use super::*;

/// Of the same server as the jobs.
pub(super) fn routes(services: &Services, store: Arc<MemoryStore>) -> ExportRoutes {
    let server: Arc<dyn ExportServer> = services.server.clone();
    ExportRoutes {
        backend: services.backend.clone(),
        registry: store.clone(),
        instance: oma_core::InstanceId::mint(),
        publisher: Publisher::new(server.clone(), Arc::new(Nowhere)),
        jobs: Some(JobExports { records: store, server, pushes: services.pushes.clone() }),
    }
}

#[tokio::test]
async fn an_export_into_which_the_appliance_writes_is_seen_by_all_and_its_own_to_end() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    appliance.stall().await;
    let id = appliance.create("web").await;
    appliance.until_stalled().await;
    let (status, _, page) = appliance.world.send(asked(Method::GET, "/exports", "viewer", None, None)).await;
    let row = &page["items"][0];
    assert_eq!((status, &row["job_id"], &page["next"]), (StatusCode::OK, &json!(id), &Value::Null), "{page}");
    assert_eq!(
        (&row["read_only"], &row["uri"], &row["status"]),
        (&json!(true), &Value::Null, &json!("running"))
    );
    let path = format!("/exports/{}", row["export_name"].as_str().unwrap());
    assert_eq!(appliance.world.get(&path).await, *row);
    let (status, problem) = appliance.world.ask(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("pause or cancel the job"), "{problem}");
    appliance.go_on();
    appliance.until_ended(&id, "completed").await;
    assert_eq!(appliance.world.get("/exports").await["items"], json!([]));
    assert_eq!(appliance.world.ask(Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
}
