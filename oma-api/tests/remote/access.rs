//! Who is let in, and whose volumes may be changed.

use std::sync::Arc;

use futures_util::TryStreamExt;
use oma_api::client::Token;
use oma_api::server::{Door, Role, TokenFile};
use oma_core::conformance::{Trial, trial};
use oma_core::memory::MemoryBackend;
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, SnapshotSpec, VolumeBackend};
use oma_core::{ByteSize, Error, ErrorKind, JobId, SnapshotId, Timestamp};
use tempfile::TempDir;

use crate::daemon::{Daemon, Way, attached, spec, tag};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_token_that_is_missing_or_wrong_is_denied", &[], denied),
        trial("a_viewer_looks_and_changes_nothing", &[], a_viewer),
        trial("l02_volumes_of_the_daemons_own_deployment_are_changed_by_its_own_routes_only", &[], own),
        trial("a_device_path_names_the_machine_that_it_is_on", &[], elsewhere),
    ]
}

async fn behind_tokens() -> (TempDir, TokenFile, Daemon) {
    let folder = TempDir::new().unwrap();
    let file = TokenFile::new(folder.path().join("tokens"));
    let door = Door::Tokens(Arc::new(file.clone()));
    (folder, file, Daemon::behind(Arc::new(MemoryBackend::new()), Way::Tcp, door).await)
}

fn is_denied(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
}

async fn denied() {
    let (_folder, file, daemon) = behind_tokens().await;
    let known = Token::new(file.add("replicator", Role::Operator, None).await.unwrap().reveal()).unwrap();
    is_denied(&daemon.connect(&daemon.address, None).await.unwrap_err());
    let wrong = Token::new("oma_s3cret").unwrap();
    let error = daemon.connect(&daemon.address, Some(wrong)).await.unwrap_err();
    is_denied(&error);
    assert!(!format!("{error:?} {}", error.chain()).contains("s3cret"), "{error:?}");
    let remote = daemon.connect(&daemon.address, Some(known)).await.unwrap();
    assert!(!format!("{remote:?}").contains("oma_"), "{remote:?}");
    let volume = remote.create(&spec(&tag())).await.unwrap();
    file.remove("replicator").await.unwrap();
    is_denied(&remote.get(&volume.id).await.unwrap_err());
    let listed: Result<Vec<_>, _> = remote.list(&tag().instance).try_collect().await;
    is_denied(&listed.unwrap_err());
}

async fn a_viewer() {
    let (_folder, file, daemon) = behind_tokens().await;
    let viewer = Token::new(file.add("graphs", Role::Viewer, None).await.unwrap().reveal()).unwrap();
    let remote = daemon.connect(&daemon.address, Some(viewer)).await.unwrap();
    let (tag, id) = (tag(), "vol-1".parse().unwrap());
    assert_eq!(remote.get(&id).await.unwrap(), None);
    is_denied(&remote.create(&spec(&tag)).await.unwrap_err());
    is_denied(&remote.open(&id, &tag, Access::ReadOnly).await.unwrap_err());
    is_denied(&remote.delete(&id, &tag).await.unwrap_err());
}

async fn own() {
    let backend = Arc::new(MemoryBackend::new());
    let daemon = Daemon::start(backend.clone(), Way::Tcp).await;
    let remote = daemon.remote().await;
    let own = VolumeTag { instance: daemon.instance.clone(), ..tag() };
    let id = attached(&*backend, &own).await;
    let before = backend.get(&id).await.unwrap().unwrap();
    let job = JobId::mint(Timestamp::from_millis(0));
    let snapshot = SnapshotSpec { id: SnapshotId::mint(&job), volume: id.clone(), tag: own.clone(), job };
    is_denied(&remote.create(&spec(&own)).await.unwrap_err());
    is_denied(&remote.retag(&id, &own).await.unwrap_err());
    is_denied(&remote.attach(&id, &own).await.unwrap_err());
    is_denied(&remote.detach(&id, &own).await.unwrap_err());
    is_denied(&remote.open(&id, &own, Access::ReadOnly).await.unwrap_err());
    is_denied(&remote.resize(&id, &own, ByteSize::mib(2)).await.unwrap_err());
    is_denied(&remote.revert(&id, &own, &snapshot).await.unwrap_err());
    is_denied(&remote.snapshot(&snapshot).await.unwrap_err());
    is_denied(&remote.open_snapshot(&snapshot).await.unwrap_err());
    is_denied(&remote.delete_snapshot(&snapshot).await.unwrap_err());
    let error = remote.delete(&id, &own).await.unwrap_err();
    is_denied(&error);
    assert!(error.chain().contains("by the routes of volumes"), "{}", error.chain());
    assert_eq!(backend.get(&id).await.unwrap(), Some(before), "nothing was done");
    let listed: Vec<_> = remote.list(&daemon.instance).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1, "whoever may look may see them");
}

async fn elsewhere() {
    let backend = Arc::new(MemoryBackend::new());
    let daemon = Daemon::start(backend.clone(), Way::Unix).await;
    let remote = daemon.remote().await;
    let id = attached(&remote, &tag()).await;
    let there = backend.get(&id).await.unwrap().unwrap().device_path.unwrap();
    let here = remote.get(&id).await.unwrap().unwrap().device_path.unwrap();
    assert_eq!(here, format!("{}:{there}", daemon.address));
}
