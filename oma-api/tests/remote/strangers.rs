//! What answers is no volume daemon, or another one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use futures_util::TryStreamExt;
use oma_api::client::{RemoteBackend, RemoteConfig};
use oma_core::conformance::{Trial, trial};
use oma_core::memory::MemoryExportServer;
use oma_core::traits::{Access, VolumeBackend};
use oma_core::{Error, ErrorKind, Result, Retry};
use tokio::net::TcpListener;

use crate::daemon::{Memory, tag};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l21_what_a_proxy_answers_is_not_believed_of_a_volume", &[], a_proxy),
        trial("l21_an_answer_that_cannot_be_read_says_nothing_of_a_volume", &[], garbled),
        trial("a_list_that_is_cut_short_is_no_list", &[], cut_short),
        trial("another_version_is_unsupported", &[], another_version),
        trial("l21_another_daemon_is_not_believed_of_volumes_of_the_first", &[], another_daemon),
        trial("a_redirection_is_not_followed", &[], redirected),
        trial("who_never_finishes_tls_is_given_up", &[], silent),
        trial("an_address_that_can_never_work_is_invalid", &[], addresses),
    ]
}

/// A server that answers whatever a test says.
struct Stranger {
    answer: Arc<Mutex<fn() -> Response>>,
    remote: RemoteBackend,
}

fn capabilities() -> Response {
    let told = r#"{"zeroed_on_create":true,"resize":true,"content_stamp":true,"snapshots":"instant"}"#;
    ([("oma-backend", "1")], told).into_response()
}

async fn connect(address: String) -> Result<RemoteBackend> {
    let config = RemoteConfig { connect_limit: Duration::from_millis(300), ..RemoteConfig::new(address) };
    RemoteBackend::connect(&config, None, Arc::new(Memory(MemoryExportServer::new()))).await
}

async fn answering(answer: Arc<Mutex<fn() -> Response>>) -> String {
    let router = Router::new().fallback(async move || {
        let answer = *answer.lock().unwrap();
        answer()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

impl Stranger {
    /// It passes for a daemon at first.
    async fn new() -> Self {
        let answer: Arc<Mutex<fn() -> Response>> = Arc::new(Mutex::new(capabilities));
        let remote = connect(answering(answer.clone()).await).await.unwrap();
        Self { answer, remote }
    }

    fn says(&self, answer: fn() -> Response) {
        *self.answer.lock().unwrap() = answer;
    }

    /// What each kind of call answers that something is read of.
    async fn errors(&self) -> Vec<Error> {
        let (id, tag) = ("vol-1".parse().unwrap(), tag());
        vec![
            self.remote.get(&id).await.unwrap_err(),
            self.remote.content_stamp(&id).await.unwrap_err(),
            self.remote.attach(&id, &tag).await.unwrap_err(),
            self.remote.open(&id, &tag, Access::ReadOnly).await.unwrap_err(),
            self.remote.list(&tag.instance).try_collect::<Vec<_>>().await.unwrap_err(),
            self.remote.snapshots(&id).try_collect::<Vec<_>>().await.unwrap_err(),
        ]
    }

    async fn is_answered(&self, kind: ErrorKind, retry: Retry) {
        let mut errors = self.errors().await;
        errors.push(self.remote.delete(&"vol-1".parse().unwrap(), &tag()).await.unwrap_err());
        for error in errors {
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{}", error.chain());
        }
    }
}

async fn a_proxy() {
    let stranger = Stranger::new().await;
    stranger.says(|| (StatusCode::BAD_GATEWAY, Html("<h1>Bad gateway</h1>")).into_response());
    stranger.is_answered(ErrorKind::Unavailable, Retry::Later).await;
    let answers: [fn() -> Response; 5] = [
        || (StatusCode::NOT_FOUND, Html("<h1>Not found</h1>")).into_response(),
        || Html("<h1>Welcome</h1>").into_response(),
        || (StatusCode::OK, "null").into_response(),
        || StatusCode::NO_CONTENT.into_response(),
        || {
            let problem = r#"{"type":"urn:oma:problem:not-found","title":"not found","status":404,"detail":"find x: not found","operation":"find","resource":"x","retry":"never"}"#;
            (StatusCode::NOT_FOUND, problem).into_response()
        },
    ];
    for answer in answers {
        stranger.says(answer);
        stranger.is_answered(ErrorKind::Unavailable, Retry::Later).await;
    }
    stranger.says(|| (StatusCode::FORBIDDEN, Html("<h1>No</h1>")).into_response());
    stranger.is_answered(ErrorKind::PermissionDenied, Retry::Never).await;
}

async fn garbled() {
    let stranger = Stranger::new().await;
    let answers: [fn() -> Response; 3] = [
        || ([("oma-backend", "1")], Html("<h1>Welcome</h1>\n")).into_response(),
        || (StatusCode::CONFLICT, [("oma-backend", "1")], "[]\n").into_response(),
        || ([("oma-backend", "1")], "x".repeat((1 << 20) + 2)).into_response(),
    ];
    for answer in answers {
        stranger.says(answer);
        for error in stranger.errors().await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
        }
    }
}

const ENTRY: &str =
    r#"{"entry":{"volume_id":"vol-1","name":"n","capacity_bytes":1,"tag":null,"device_path":null}}"#;

async fn cut_short() {
    let stranger = Stranger::new().await;
    let tag = tag();
    let answers: [fn() -> Response; 3] = [
        || ([("oma-backend", "1")], "").into_response(),
        || ([("oma-backend", "1")], format!("{ENTRY}\n")).into_response(),
        || ([("oma-backend", "1")], "{\"end\":{\"entries\":1}}\n").into_response(),
    ];
    for answer in answers {
        stranger.says(answer);
        let error = stranger.remote.list(&tag.instance).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unavailable, Retry::Later),
            "{}",
            error.chain()
        );
    }
}

async fn another_daemon() {
    let stranger = Stranger::new().await;
    stranger.says(|| ([("oma-backend", "1"), ("oma-backend-daemon", "reinstalled")], "null").into_response());
    for error in stranger.errors().await {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Never));
        assert!(error.chain().contains("reinstalled"), "{}", error.chain());
    }
    let config = RemoteConfig {
        daemon: Some("ours".parse().unwrap()),
        ..RemoteConfig::new(answering(stranger.answer.clone()).await)
    };
    let error = RemoteBackend::connect(&config, None, Arc::new(Memory(MemoryExportServer::new()))).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable, "at the first answer");
}

async fn another_version() {
    let stranger = Stranger::new().await;
    stranger.says(|| ([("oma-backend", "2")], "null").into_response());
    stranger.is_answered(ErrorKind::Unsupported, Retry::Never).await;
}

async fn redirected() {
    let stranger = Stranger::new().await;
    stranger.says(|| Redirect::temporary("http://127.0.0.1:9/").into_response());
    stranger.is_answered(ErrorKind::Unavailable, Retry::Later).await;
}

/// Somebody who takes the connection and says nothing.
async fn silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let error = connect(address).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later), "{}", error.chain());
}

async fn addresses() {
    for (address, kind) in [
        ("", ErrorKind::Invalid),
        ("volumes.example", ErrorKind::Invalid),
        ("ftp://volumes.example", ErrorKind::Invalid),
        ("http://volumes.example", ErrorKind::Invalid),
        ("https://user:s3cret@volumes.example", ErrorKind::Invalid),
        ("https://volumes.example/?token=s3cret", ErrorKind::Invalid),
        ("unix:relative.sock", ErrorKind::Invalid),
        ("unix:/nowhere/daemon.sock", ErrorKind::Unavailable),
    ] {
        let error = connect(address.to_owned()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
        let shown = error.chain();
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    let config = RemoteConfig {
        ca_file: Some("/nowhere/ca.pem".into()),
        ..RemoteConfig::new("https://volumes.example")
    };
    let opener = Arc::new(Memory(MemoryExportServer::new()));
    let error = RemoteBackend::connect(&config, None, opener).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
    assert!(error.chain().contains("/nowhere/ca.pem"), "{}", error.chain());
}
