//! What answers for an appliance is none, or hangs.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use oma_api::WhenAttached;
use oma_api::client::{Appliance, RemoteConfig, VolumeWanted};
use oma_core::conformance::{Trial, trial};
use oma_core::{DiskKey, ErrorKind, ExtentSet, JobId, OperationId, Retry, Timestamp, TokenId, VolumeId};
use tokio::net::TcpListener;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_an_appliance_is_to_wait_for_is_waited_for", &[], waits),
        trial("only_an_answer_with_nothing_says_that_all_is_done", &[], nothing),
    ]
}

/// What is asked for, and an appliance that answers it so.
async fn answering<F>(
    answer: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> (Arc<Mutex<Vec<String>>>, Appliance)
where
    F: Future<Output = Response> + Send,
{
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let router = Router::new().fallback(async move |request: Request| {
        seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        answer().await
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = RemoteConfig { answer_limit: Duration::from_millis(200), ..RemoteConfig::new(address) };
    (asked, Appliance::new(&config, None).await.unwrap())
}

async fn waits() {
    let (asked, appliance) = answering(pending::<Response>).await;
    let (key, id): (OperationId, VolumeId) = ("op-1".parse().unwrap(), "vol-1".parse().unwrap());
    let within = Duration::from_millis(300);
    let errors = [
        appliance.operation(&key, within).await.unwrap_err(),
        appliance.change_volume(&key, &id, VolumeWanted::Detached, within).await.unwrap_err(),
        appliance
            .change_volume(&key, &id, VolumeWanted::Deleted(WhenAttached::Refuse), within)
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Exhausted));
        assert!(error.chain().contains("has not answered within 0.5 s"), "{}", error.chain());
    }
    let routes = [
        "GET /api/v1/operations/op-1?wait=300ms",
        "POST /api/v1/volumes/vol-1/detach?wait=300ms",
        "DELETE /api/v1/volumes/vol-1?wait=300ms&attached=refuse",
    ];
    assert_eq!(*asked.lock().unwrap(), routes);
}

async fn nothing() {
    let job = JobId::mint(Timestamp::from_millis(0));
    let (disk, token): (DiskKey, TokenId) = ("disk-1".parse().unwrap(), TokenId::mint());
    for status in [StatusCode::OK, StatusCode::ACCEPTED] {
        let (_, proxy) = answering(move || async move { (status, "{}").into_response() }).await;
        for done in
            [proxy.revoke_token(&token).await, proxy.finished(&job, &disk, 1, ExtentSet::default()).await]
        {
            let error = done.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
            assert!(error.chain().contains("is no daemon of OMA"), "{}", error.chain());
        }
    }
    let (_, appliance) = answering(|| async { StatusCode::NO_CONTENT.into_response() }).await;
    appliance.revoke_token(&token).await.unwrap();
    appliance.finished(&job, &disk, 1, ExtentSet::default()).await.unwrap();
}
