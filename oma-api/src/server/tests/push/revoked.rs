//! Exports that agents write are listed, counted and revoked.

use super::*;

#[tokio::test]
async fn l30_who_may_change_things_sees_the_exports_of_jobs_and_what_went_through() {
    let appliance = Appliance::new().await;
    let mut jobs = Vec::new();
    for name in ["web1", "web2"] {
        let id = appliance.create("agent-a", push(name, "b@1")).await;
        jobs.push((appliance.ready("agent-a", &id).await, id));
    }
    let (told, id) = &jobs[0];
    appliance.open(told).write_at(4096, vec![7; 4096].into(), Durability::Cached).await.unwrap();
    let name = told["disks"][0]["export"].as_str().unwrap().strip_prefix(PLACE).unwrap();
    let row = appliance.get("operator", &format!("/exports/{name}")).await;
    assert_eq!((&row["job_id"], &row["status"]), (&json!(id), &json!("running")), "{row}");
    assert_eq!((&row["uri"], &row["read_only"]), (&told["disks"][0]["export"], &json!(false)), "{row}");
    assert_eq!((&row["bytes_written"], &row["capacity_bytes"]), (&json!(4096), &json!(CAPACITY)), "{row}");

    let all = appliance.get("operator", "/exports").await;
    let names: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|row| row["export_name"].clone()).collect();
    assert_eq!((names.len(), &all["next"]), (2, &Value::Null), "{all}");
    assert!(names.contains(&json!(name)) && names.is_sorted_by_key(|name| name.to_string()), "{names:?}");
    let first = appliance.get("operator", "/exports?limit=1").await;
    assert_eq!((&first["items"][0]["export_name"], &first["next"]), (&names[0], &names[0]), "{first}");
    let after = names[0].as_str().unwrap();
    let rest = appliance.get("operator", &format!("/exports?after={after}")).await;
    assert_eq!((&rest["items"][0]["export_name"], &rest["next"]), (&names[1], &Value::Null), "{rest}");

    // Who knows the name of an export writes there.
    assert_eq!(appliance.get("viewer", "/exports").await["items"], json!([]));
    for (token, status) in [("viewer", StatusCode::NOT_FOUND), ("agent-a", StatusCode::FORBIDDEN)] {
        let seen = appliance.ask(token, Method::GET, &format!("/exports/{name}"), None).await;
        assert_eq!(seen.0, status, "{token}: {}", seen.1);
    }
}

#[tokio::test]
async fn l30_a_client_is_shut_out_and_its_job_ends_by_a_word_of_an_operator() {
    let appliance = Appliance::new().await;
    let id = appliance.create("agent-a", push("web", "b@1")).await;
    let told = appliance.ready("agent-a", &id).await;
    let client = appliance.open(&told);
    client.write_at(0, vec![6; 4096].into(), Durability::Cached).await.unwrap();
    let finished = json!({ "fence": 1, "extents": [[0, CAPACITY / 2]] });
    let said = format!("/replications/{id}/disks/disk-2000/finished");
    assert_eq!(appliance.ask("agent-a", Method::POST, &said, Some(finished)).await.0, StatusCode::NO_CONTENT);
    let name = told["disks"][0]["export"].as_str().unwrap().strip_prefix(PLACE).unwrap();
    let path = format!("/exports/{name}");
    for token in ["viewer", "agent-a"] {
        assert_eq!(
            appliance.ask(token, Method::DELETE, &path, None).await.0,
            StatusCode::FORBIDDEN,
            "{token}"
        );
    }
    client.write_at(CAPACITY / 2, vec![7; 512].into(), Durability::Cached).await.unwrap();

    let (status, problem) = appliance.ask("operator", Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{problem}");
    client.write_at(CAPACITY / 2, vec![8; 512].into(), Durability::Cached).await.unwrap_err();
    drop(client);
    let job = format!("/replications/{id}");
    let ended = appliance.until("agent-a", &job, |job| !job["completed_at"].is_null()).await;
    assert_eq!(ended["status"], json!("failed"), "{ended}");
    assert!(ended["error"].as_str().unwrap().contains("the export of disk-2000 was revoked"), "{ended}");
    assert_eq!(appliance.ask("operator", Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);

    // What was said to be finished was said by whoever wrote it.
    let next = appliance.create("agent-a", push("web", "b@1")).await;
    let told = appliance.ready("agent-a", &next).await;
    assert_eq!(
        (&told["disks"][0]["work"], &told["disks"][0]["blank"]),
        (&json!([[0, CAPACITY]]), &json!(false))
    );
}
