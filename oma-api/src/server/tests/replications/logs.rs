//! What a replication told while it went on.

use super::*;

#[tokio::test]
async fn the_steps_and_lines_of_a_replication_are_listed_page_by_page() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    let id = appliance.create("web").await;
    appliance.until_ended(&id, "completed").await;
    appliance.stop.cancel();
    appliance.until_told(&id).await;
    let whole = appliance.world.get(&format!("/replications/{id}/steps")).await;
    let names: Vec<_> = whole["items"].as_array().unwrap().iter().map(|step| step["name"].clone()).collect();
    assert_eq!(json!(names), json!(["freeze", "provision", "publish", "plan", "copy", "withdraw", "commit"]));
    assert_eq!((&whole["items"][0]["status"], &whole["next"]), (&json!("completed"), &Value::Null));
    let part = appliance.world.get(&format!("/replications/{id}/steps?limit=3")).await;
    assert_eq!((part["items"].as_array().unwrap().len(), &part["next"]), (3, &json!("3")));
    let rest = appliance.world.get(&format!("/replications/{id}/steps?after=3")).await;
    assert_eq!(rest["items"][0], whole["items"][3]);

    let lines = appliance.world.get(&format!("/replications/{id}/logs")).await;
    let lines = lines["items"].as_array().unwrap();
    assert_eq!(lines.last().unwrap()["message"], json!("epoch 1 is committed"));
    let first = appliance.world.get(&format!("/replications/{id}/logs?limit=1")).await;
    assert_eq!(first["next"], json!(lines[0]["line"].to_string()));
    let next = first["next"].as_str().unwrap();
    let behind = appliance.world.get(&format!("/replications/{id}/logs?after={next}&limit=1")).await;
    assert_eq!(behind["items"][0], lines[1]);
    let planned = appliance.world.get(&format!("/replications/{id}/logs?step=4")).await;
    assert_eq!(planned["items"][0]["fields"]["disk"], json!("disk-2000"), "{planned}");
    let errors = appliance.world.get(&format!("/replications/{id}/logs?level=ERROR")).await;
    assert_eq!(errors["items"], json!([]));
}

#[tokio::test]
async fn what_is_no_filter_or_no_page_of_a_log_is_refused() {
    let appliance = Appliance::new();
    appliance.add("web", &["disk-2000"]).await;
    let id = appliance.create("web").await;
    for (path, expected) in [
        (format!("/replications/{id}/logs?level=loud"), StatusCode::BAD_REQUEST),
        (format!("/replications/{id}/logs?after=x"), StatusCode::BAD_REQUEST),
        (format!("/replications/{id}/steps?after=-1"), StatusCode::BAD_REQUEST),
        ("/replications/job-none/steps".to_owned(), StatusCode::NOT_FOUND),
        ("/replications/job-none/logs".to_owned(), StatusCode::NOT_FOUND),
        ("/replications/job-none/logs/follow".to_owned(), StatusCode::NOT_FOUND),
    ] {
        let (status, problem) = appliance.world.ask(Method::GET, &path, None).await;
        assert_eq!(
            (status, problem["status"].as_u64()),
            (expected, Some(expected.as_u16().into())),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_log_of_a_replication_is_followed_until_its_end_is_told() {
    let appliance = Appliance::new().driven();
    appliance.add("web", &["disk-2000"]).await;
    appliance.stall().await;
    let id = appliance.create("web").await;
    appliance.until_stalled().await;
    let path = format!("/replications/{id}/logs/follow");
    let told = appliance.followed(&path).await;
    let of = |prefix: &'static str| -> Vec<String> {
        told.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    let rows: Vec<Value> = of("data: ").iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(rows.last().unwrap()["message"], json!("epoch 1 is committed"));
    let numbers: Vec<_> = rows.iter().map(|row| row["line"].to_string()).collect();
    assert_eq!(of("id: "), numbers);
    // Whoever comes back hears the rest only.
    let behind = &numbers[numbers.len() - 2];
    let mut again = asked(Method::GET, &path, "viewer", None, None);
    again.headers_mut().insert("last-event-id", behind.parse().unwrap());
    let response = appliance.world.routes.clone().oneshot(again).await.unwrap();
    let rest = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&rest).matches("event: line").count(), 1);
}
