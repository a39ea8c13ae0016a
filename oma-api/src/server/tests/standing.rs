//! Whether a daemon is there, and how it stands.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::*;

#[tokio::test]
async fn figures_and_health_are_told() {
    let world = World::new();
    world.volume("web01").await;
    let (status, _, text) = world.send(asked(Method::GET, "/metrics", "viewer", None, None)).await;
    assert_eq!(status, StatusCode::OK);
    let text = text.as_str().unwrap();
    assert!(text.contains("oma_volumes{status=\"created\"} 1\n"), "{text}");
    assert!(text.contains("oma_volume_operations{status=\"executing\"} 0\n"), "{text}");
    assert!(text.contains("# TYPE oma_database_up gauge\noma_database_up 1\n"), "{text}");
    let mut bare = asked(Method::GET, "", "viewer", None, None);
    *bare.uri_mut() = "/metrics".parse().unwrap();
    let (_, _, text) = world.send(bare).await;
    let text = text.as_str().expect("where collectors look");
    // By route, and never by what a path names.
    let counted = "oma_api_requests_total{method=\"GET\",route=\"/api/v1/metrics\",status=\"200\"} 1\n";
    assert!(text.contains(counted) && text.contains("# TYPE oma_api_requests_total counter\n"), "{text}");
    assert!(
        text.contains("oma_api_request_seconds_count{method=\"GET\",route=\"/api/v1/metrics\"} 1\n"),
        "{text}"
    );
    world.send(asked(Method::GET, "/nowhere/at/all", "viewer", None, None)).await;
    world.send(asked(Method::GET, "/volumes/vol-none", "viewer", None, None)).await;
    let (_, _, text) = world.send(asked(Method::GET, "/metrics", "viewer", None, None)).await;
    let text = text.as_str().unwrap();
    assert!(text.contains("route=\"none\",status=\"404\"") && !text.contains("nowhere"), "{text}");
    assert!(text.contains("route=\"/api/v1/volumes/{volume_id}\"") && !text.contains("vol-none"), "{text}");
    assert_eq!(world.get("/health").await["status"], json!("ok"));
    let bare = Request::builder().uri("/health").body(Body::empty()).unwrap();
    assert_eq!(world.send(bare).await.0, StatusCode::OK, "where load balancers look");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ready_is_named_and_asked_again_only_after_a_while() {
    let (broken, looks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let hangs = broken.clone();
    let readiness = Readiness::new()
        .needing("database", || async { Ok(()) })
        .needing("backend", {
            let (broken, looks) = (broken.clone(), looks.clone());
            move || {
                looks.fetch_add(1, Ordering::SeqCst);
                let broken = broken.load(Ordering::SeqCst);
                async move {
                    let error = || Error::new(ErrorKind::Unavailable, "ask", "secret.example");
                    if broken { Err(error()) } else { Ok(()) }
                }
            }
        })
        .needing("worker", move || {
            let hangs = hangs.load(Ordering::SeqCst);
            async move { if hangs { std::future::pending().await } else { Ok(()) } }
        });
    let routes = Api::new("test").readiness(readiness).router(Door::Tokens(Arc::new(Labels)));
    let ready = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let (status, problem) = ready("/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let told = problem["detail"].as_str().unwrap();
    assert!(told.contains("not there: backend, worker;") && !told.contains("secret.example"), "{told}");
    broken.store(false, Ordering::SeqCst);
    assert_eq!(ready("/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(looks.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(3)).await;
    let (status, ready) = ready(&format!("{PREFIX}/ready")).await;
    assert_eq!((status, &ready["parts"]), (StatusCode::OK, &json!(["database", "backend", "worker"])));
}
