//! One of both ends dies while a volume is open.

use std::mem::forget;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use oma_core::conformance::{Trial, sample, trial};
use oma_core::memory::MemoryBackend;
use oma_core::traits::{Access, Durability, VolumeBackend};
use oma_core::{ByteSize, Error, ErrorKind, Retry};
use tokio::runtime::{Builder, Runtime};

use crate::daemon::{Daemon, Way, attached, connect};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, way) in [("tcp", Way::Tcp), ("unix", Way::Unix)] {
        let called = |case: &str| format!("over_{name}::{case}");
        trials.push(trial(&called("a_client_that_dies_frees_the_lock"), &[], move || dead_client(way)));
        trials.push(trial(&called("a_daemon_that_dies_takes_its_devices_with_it"), &[], move || {
            dead_daemon(way)
        }));
        trials.push(trial(&called("l24_a_daemon_that_ends_closes_what_is_open"), &[], move || {
            ended_daemon(way)
        }));
    }
    trials
}

/// All that a process has: its tasks and sockets go with it.
fn process() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn killed(process: Runtime) {
    let limit = Duration::from_secs(10);
    tokio::task::spawn_blocking(move || process.shutdown_timeout(limit)).await.unwrap();
}

/// As `kill -9` of the client: nothing is closed but by the system.
async fn dead_client(way: Way) {
    let backend = Arc::new(MemoryBackend::new());
    let daemon = Daemon::start(backend.clone(), way).await;
    let (id, tag) = attached(&daemon.remote().await, ByteSize::mib(1)).await;
    let client = process();
    let (address, opened) = (daemon.address().to_owned(), (id.clone(), tag.clone()));
    let open = client.spawn(async move {
        let device = connect(&address).await.open(&opened.0, &opened.1, Access::ReadWrite).await.unwrap();
        device.write_at(0, sample(7, 4096), Durability::Durable).await.unwrap();
        forget(device);
    });
    open.await.unwrap();
    let error = daemon.remote().await.open(&id, &tag, Access::ReadWrite).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
    killed(client).await;
    let device = daemon.remote().await.open(&id, &tag, Access::ReadWrite).await.expect("the lock is free");
    assert_eq!(device.read_at(0, BytesMut::zeroed(4096)).await.unwrap(), sample(7, 4096));
}

fn is_gone(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
}

/// As `kill -9` of the daemon, and its start.
async fn dead_daemon(way: Way) {
    let backend = Arc::new(MemoryBackend::new());
    let running = process();
    let volumes = backend.clone();
    let daemon = running.spawn(async move { Daemon::start(volumes, way).await }).await.unwrap();
    let remote = daemon.remote().await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(7, 4096), Durability::Durable).await.unwrap();
    // What the test itself knows of the daemon's inside goes with it.
    drop(daemon);
    killed(running).await;
    assert!(!backend.is_written(&id), "its lock went with it");
    let error = until_it_fails(|| device.write_at(0, sample(8, 4096), Durability::Cached)).await;
    is_gone(&error);
    is_gone(&device.flush().await.unwrap_err());
    is_gone(&remote.get(&id).await.unwrap_err());
    is_gone(&remote.open(&id, &tag, Access::ReadWrite).await.unwrap_err());
    drop(device);
    let daemon = Daemon::start(backend, way).await;
    let device = daemon.remote().await.open(&id, &tag, Access::ReadWrite).await.unwrap();
    assert_eq!(device.read_at(0, BytesMut::zeroed(512)).await.unwrap().len(), 512);
}

async fn ended_daemon(way: Way) {
    let backend = Arc::new(MemoryBackend::new());
    let daemon = Daemon::start(backend.clone(), way).await;
    let remote = daemon.remote().await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    daemon.stop().await;
    assert!(!backend.is_written(&id), "it is closed when the daemon says that it is");
    let error = until_it_fails(|| device.write_at(0, sample(8, 4096), Durability::Cached)).await;
    is_gone(&error);
    let error = until_it_fails(async || match device.flush().await {
        // Once the news of the session's end has come, nobody needs to try again.
        Err(error) if error.retry() == Retry::Never => Err(error),
        _ => Ok(()),
    })
    .await;
    assert!(error.chain().contains("open it again"), "{}", error.chain());
}

async fn until_it_fails<Fut>(call: impl Fn() -> Fut) -> Error
where
    Fut: Future<Output = Result<(), Error>>,
{
    loop {
        match call().await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => return error,
        }
    }
}
