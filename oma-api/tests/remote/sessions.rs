//! Operators see what is open, and end it; whoever goes away leaves nothing open.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::{StreamExt, TryStreamExt};
use oma_api::SessionRow;
use oma_api::server::Role;
use oma_core::ErrorKind;
use oma_core::conformance::{Trial, trial};
use oma_core::memory::MemoryBackend;
use oma_core::traits::{Access, ExportServer, VolumeBackend};

use crate::daemon::{Daemon, Way, attached, tag};

const SESSIONS: &str = "/backend/sessions";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("operators_see_who_has_which_volume_open", &[], listed),
        trial("a_client_renews_what_it_has_open_within_each_lease", &[], renewed),
        trial("an_admin_ends_a_session_and_the_volume_is_closed", &[], ended),
    ]
}

async fn rows(daemon: &Daemon) -> Vec<SessionRow> {
    let (status, body) = daemon.ask(Role::Operator, Method::GET, SESSIONS).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn listed() {
    let daemon = Daemon::start(Arc::new(MemoryBackend::new()), Way::Tcp).await;
    let (remote, mark) = (daemon.remote().await, tag());
    assert_eq!(rows(&daemon).await, []);
    let id = attached(&remote, &mark).await;
    let device = remote.open(&id, &mark, Access::ReadWrite).await.unwrap();
    let found = rows(&daemon).await;
    let [row] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&row.volume_id, &row.deployment, row.read_only), (&id, &mark.instance, false));
    assert_eq!(row.principal, "test");
    assert!(row.opened_at.ends_with('Z'), "{row:?}");
    // Who knows the name of an export opens it.
    let exports: Vec<_> = daemon.exports.0.list().try_collect().await.unwrap();
    assert!(!serde_json::to_string(row).unwrap().contains(exports[0].name.as_str()), "{row:?}");
    let (status, _) = daemon.ask(Role::Viewer, Method::GET, SESSIONS).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    drop(device);
    while !rows(&daemon).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

async fn renewed() {
    for way in [Way::Tcp, Way::Unix] {
        let daemon = Daemon::leasing(Arc::new(MemoryBackend::new()), way, Duration::from_secs(2)).await;
        let (remote, mark) = (daemon.remote().await, tag());
        let id = attached(&remote, &mark).await;
        let device = remote.open(&id, &mark, Access::ReadWrite).await.unwrap();
        let first = rows(&daemon).await.remove(0);
        let mut heard = vec![first.renewed_at];
        while heard.len() < 4 {
            let now = rows(&daemon).await.pop().expect("it is kept").renewed_at;
            if heard.last() != Some(&now) {
                heard.push(now);
            }
            tokio::task::yield_now().await;
        }
        assert!(heard.is_sorted(), "{heard:?}");
        drop(device);
    }
}

async fn ended() {
    let backend = Arc::new(MemoryBackend::new());
    let daemon = Daemon::start(backend.clone(), Way::Unix).await;
    let (remote, mark) = (daemon.remote().await, tag());
    let id = attached(&remote, &mark).await;
    let device = remote.open(&id, &mark, Access::ReadWrite).await.unwrap();
    let session = rows(&daemon).await.remove(0).session_id;
    let path = format!("{SESSIONS}/{session}");
    let (status, body) = daemon.ask(Role::Operator, Method::DELETE, &path).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let (status, body) = daemon.ask(Role::Admin, Method::DELETE, &format!("{SESSIONS}/another")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert_eq!(rows(&daemon).await.len(), 1, "nobody ended it");
    // In memory a client shares the device itself, which keeps the volume open.
    let busy = remote.open(&id, &mark, Access::ReadWrite).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{}", busy.chain());
    let (status, body) = daemon.ask(Role::Admin, Method::DELETE, &path).await;
    assert_eq!((status, body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(rows(&daemon).await, []);
    assert_eq!(daemon.exports.0.list().count().await, 0);
    drop(device);
    assert!(!backend.is_written(&id), "it is closed");
    let (status, _) = daemon.ask(Role::Admin, Method::DELETE, &path).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "once");
}
