//! Nothing that was promised is lost, whoever dies.

use std::fs;
use std::time::{Duration, Instant};

use oma_core::conformance::{Trial, trial};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::world::{Daemon, LIMIT, World};

/// Moments at which a daemon dies, spread over what it is asked for.
const MOMENTS: u32 = 12;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l15_a_killed_daemon_finishes_what_it_began", &[], killed),
        trial("l18_an_operation_goes_on_when_whoever_asked_goes_away", &[], disconnected),
        trial("a_daemon_ends_soon_whoever_waits", &[], ends_soon),
    ]
}

/// What one VM is asked for, again and again, whatever died meanwhile: each step has a key of its own.
async fn through(daemon: &Daemon, name: &str) -> Option<()> {
    let wanted = json!({ "context_id": ctx(daemon, name).await?, "disk_key": "disk-2000" });
    let made = step(daemon, Method::POST, "/volumes", &format!("{name}-create"), Some(&wanted)).await?;
    let id = made["volume_id"].as_str().unwrap().to_owned();
    for (change, key) in [("attach", "attach"), ("detach", "detach"), ("attach", "again")] {
        let path = format!("/volumes/{id}/{change}");
        step(daemon, Method::POST, &path, &format!("{name}-{key}"), None).await?;
    }
    Some(())
}

async fn ctx(daemon: &Daemon, name: &str) -> Option<String> {
    let vm = json!({
        "instance_uuid": format!("uuid-{name}"), "endpoint": "vcenter.example", "name": name,
        "path": format!("/DC/vm/{name}"), "disks": [{ "key": "disk-2000", "capacity_bytes": 1 << 20 }],
    });
    let (status, vm) = daemon.try_ask(Method::POST, "/vms", None, Some(&vm)).await?;
    assert_eq!(status, 200, "{vm}");
    Some(vm["context_id"].as_str().unwrap().to_owned())
}

/// A step that is done; `None` when the daemon died.
async fn step(daemon: &Daemon, method: Method, path: &str, key: &str, body: Option<&Value>) -> Option<Value> {
    let begin = Instant::now();
    loop {
        let path = format!("{path}?wait=30s");
        let (status, answer) = daemon.try_ask(method.clone(), &path, Some(key), body).await?;
        match status {
            200 if answer["status"] == json!("completed") => return Some(answer),
            // The job of the step before is ended a moment after its operation, and that of a dead daemon is taken up.
            202 | 409 | 423 | 503 if begin.elapsed() < LIMIT => tokio::task::yield_now().await,
            _ => panic!("{path}: {status} {answer}"),
        }
    }
}

async fn killed() {
    let world = World::new();
    for moment in 0..MOMENTS {
        let daemon = world.start(&[]).await;
        let name = format!("vm-{moment}");
        {
            let dies = async {
                tokio::time::sleep(Duration::from_millis(u64::from(moment) * 9)).await;
                daemon.signal("KILL").await;
            };
            tokio::join!(dies, through(&daemon, &name));
        }
        daemon.kill().await;
        let daemon = world.start(&[]).await;
        through(&daemon, &name).await.expect("nobody kills it");
        daemon.stop().await;
    }
    let daemon = world.start(&[]).await;
    let volumes = daemon.all("/volumes").await;
    assert_eq!(volumes.len(), usize::try_from(MOMENTS).unwrap(), "none twice, none lost");
    assert!(volumes.iter().all(|volume| volume["status"] == json!("attached")), "{volumes:?}");
    let operations = daemon.all("/operations").await;
    assert_eq!(operations.len(), 4 * volumes.len(), "each key once");
    assert!(operations.iter().all(|operation| operation["status"] == json!("completed")), "{operations:?}");
    let found = daemon.get("/reconciliation").await;
    assert_eq!(found["found"]["findings"], json!([]), "{found}");
    assert_eq!(found["found"]["in_order"], json!(volumes.len()), "{found}");
    daemon.stop().await;
    let raws = fs::read_dir(world.path("data/volumes")).unwrap();
    let raws =
        raws.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "raw"));
    assert_eq!(raws.count(), volumes.len());
}

async fn disconnected() {
    let world = World::new();
    let daemon = world.start(&[]).await;
    let wanted = daemon.wanted("web01").await.to_string();
    let mut socket = UnixStream::connect(world.path("data/volumed.sock")).await.unwrap();
    let head = format!(
        "POST /api/v1/volumes?wait=30s HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: gone\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{wanted}",
        wanted.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // It has been read when another request that came later is answered with it; then nobody waits any more.
    let begin = Instant::now();
    while daemon.ask(Method::GET, "/operations/gone", None).await.0 == 404 {
        assert!(begin.elapsed() < LIMIT, "the request was read");
    }
    drop(socket);
    let done = daemon.get("/operations/gone?wait=30s").await;
    assert_eq!(done["status"], json!("completed"));
    daemon.stop().await;
}

async fn ends_soon() {
    let world = World::new();
    let daemon = world.start(&[]).await;
    let id = daemon.volume("web01").await;
    daemon.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    // A connection that says nothing, and one that is in the middle of a request.
    let _silent = UnixStream::connect(world.path("data/volumed.sock")).await.unwrap();
    let mut half = UnixStream::connect(world.path("data/volumed.sock")).await.unwrap();
    half.write_all(b"GET /api/v1/volumes HTTP/1.1\r\nHost:").await.unwrap();
    let begin = Instant::now();
    daemon.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}
