//! A daemon that hangs while its machine answers.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use futures_util::{StreamExt, TryStreamExt};
use oma_api::client::{RemoteBackend, RemoteConfig};
use oma_core::conformance::{Trial, trial};
use oma_core::memory::MemoryExportServer;
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, SnapshotSpec, VolumeBackend};
use oma_core::{ByteSize, Error, ErrorKind, JobId, Retry, SnapshotId, Timestamp, VolumeId};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::daemon::{Memory, spec, tag};

/// Long enough for an answer that comes, on a machine with much to do.
const LIMIT: Duration = Duration::from_millis(1500);

const MARK: [(&str, &str); 1] = [("oma-backend", "1")];
const VOLUME: &str = r#"{"volume_id":"vol-1","name":"n","capacity_bytes":1,"tag":null,"device_path":null}"#;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l21_what_a_hanging_daemon_does_not_answer_in_time_is_not_known", &[], looks),
        trial("a_change_is_waited_for_as_long_as_it_takes", &[], changes),
    ]
}

/// Tells what it can do, lists one volume and hangs; a change is answered when one is let through.
async fn hanging(done: Arc<Semaphore>) -> RemoteBackend {
    let told = r#"{"zeroed_on_create":true,"resize":true,"content_stamp":true,"snapshots":"instant"}"#;
    let one = || async {
        let entry = Bytes::from(format!("{{\"entry\":{VOLUME}}}\n"));
        let lines = stream::once(async { Ok::<_, std::io::Error>(entry) }).chain(stream::pending());
        (MARK, Body::from_stream(lines)).into_response()
    };
    let prefix = "/api/v1/backend";
    let router = Router::new()
        .route(&format!("{prefix}/capabilities"), get(async move || (MARK, told)))
        .route(&format!("{prefix}/volumes"), get(one).post(change))
        .route(&format!("{prefix}/volumes/{{id}}/{{verb}}"), post(change).get(pending::<Response>))
        .route(&format!("{prefix}/volumes/{{id}}/open"), post(pending::<Response>))
        .fallback(pending::<Response>)
        .with_state(done);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = RemoteConfig { answer_limit: LIMIT, ..RemoteConfig::new(address) };
    RemoteBackend::connect(&config, None, Arc::new(Memory(MemoryExportServer::new()))).await.unwrap()
}

async fn change(State(done): State<Arc<Semaphore>>) -> Response {
    done.acquire().await.unwrap().forget();
    (MARK, VOLUME).into_response()
}

fn is_late(error: &Error) {
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::Exhausted),
        "{}",
        error.chain()
    );
    assert!(error.chain().contains("has not answered within 1.5 s"), "{}", error.chain());
}

async fn looks() {
    let remote = hanging(Arc::new(Semaphore::new(0))).await;
    let (id, tag): (VolumeId, VolumeTag) = ("vol-1".parse().unwrap(), tag());
    let job = JobId::mint(Timestamp::from_millis(0));
    let snapshot = SnapshotSpec { id: SnapshotId::mint(&job), volume: id.clone(), tag: tag.clone(), job };
    let mut listed = remote.list(&tag.instance);
    assert_eq!(listed.next().await.unwrap().unwrap().id, id, "what came before it hung");
    let (a, b, c, d, e, f) = tokio::join!(
        remote.get(&id),
        remote.content_stamp(&id),
        remote.open(&id, &tag, Access::ReadWrite),
        remote.open_snapshot(&snapshot),
        remote.snapshots(&id).try_collect::<Vec<_>>(),
        listed.next(),
    );
    is_late(&a.unwrap_err());
    is_late(&b.unwrap_err());
    is_late(&c.unwrap_err());
    is_late(&d.unwrap_err());
    is_late(&e.unwrap_err());
    is_late(&f.expect("it is not whole").unwrap_err());
    assert!(listed.next().await.is_none());
}

async fn changes() {
    let done = Arc::new(Semaphore::new(0));
    let remote = hanging(done.clone()).await;
    let (id, tag): (VolumeId, VolumeTag) = ("vol-1".parse().unwrap(), tag());
    let mut calls = JoinSet::new();
    let (client, wanted) = (remote.clone(), spec(&tag));
    calls.spawn(async move { client.create(&wanted).await });
    let (client, of, mark) = (remote.clone(), id.clone(), tag.clone());
    calls.spawn(async move { client.attach(&of, &mark).await });
    let (client, of, mark) = (remote.clone(), id.clone(), tag.clone());
    calls.spawn(async move { client.resize(&of, &mark, ByteSize::mib(2)).await });
    // Twice as long as what is due at once is waited for.
    is_late(&remote.get(&id).await.unwrap_err());
    is_late(&remote.get(&id).await.unwrap_err());
    assert!(calls.try_join_next().is_none(), "they wait");
    done.add_permits(3);
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap().unwrap().id, id);
    }
}
