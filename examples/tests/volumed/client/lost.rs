//! Answers that are lost on the way.

use std::fs;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::{REPLICATE, refused, sample};
use crate::push::write_private;
use crate::world::{Daemon, World};

/// Passes on what is said, but for the answer to the first change.
pub(super) struct Thief {
    address: String,
    /// To whom; it may move.
    appliance: Arc<Mutex<String>>,
    /// Changes that were asked for.
    asked: Arc<AtomicU32>,
    /// The first of them is passed on.
    taken: Arc<Notify>,
    /// It is answered.
    pub(super) answered: Arc<Notify>,
    /// Whoever asked is told that the answer is lost.
    told: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Thief {
    async fn before(appliance: &Daemon) -> Self {
        let thief = Self::that_waits(appliance).await;
        thief.tells();
        thief
    }

    /// One that keeps whoever asked waiting.
    pub(super) async fn that_waits(appliance: &Daemon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let appliance = Arc::new(Mutex::new(place(appliance)));
        let (asked, taken) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (answered, told) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let to = appliance.clone();
        let way = Way {
            asked: asked.clone(),
            taken: taken.clone(),
            answered: answered.clone(),
            told: told.clone(),
        };
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = to.lock().unwrap().clone();
                // Nobody is there while an appliance is begun anew.
                if let Ok(server) = TcpStream::connect(&to).await {
                    tokio::spawn(pass_on(client, server, way.clone()));
                }
            }
        });
        Self { address, appliance, asked, taken, answered, told, task }
    }

    pub(super) fn tells(&self) {
        self.told.add_permits(1);
    }

    fn count(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn command(&self, world: &World, args: &[&str]) -> Command {
        let mut command = world.oma(args);
        command.args(["--api", &self.address, "--token-file", &world.text("token"), "--json"]);
        command.args(["--data-dir", "/nowhere"]).stdin(fs::File::open(world.path("typed")).unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn place(daemon: &Daemon) -> String {
    daemon.addresses[1].strip_prefix("http://").unwrap().to_owned()
}

/// What all connections of a thief know.
#[derive(Clone)]
struct Way {
    asked: Arc<AtomicU32>,
    taken: Arc<Notify>,
    answered: Arc<Notify>,
    told: Arc<Semaphore>,
}

async fn pass_on(mut client: TcpStream, mut server: TcpStream, way: Way) {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut steals = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let said = &from_client[..length];
                if [&b"POST "[..], b"PATCH ", b"DELETE "].iter().any(|method| said.starts_with(method)) {
                    steals = way.asked.fetch_add(1, Ordering::SeqCst) == 0;
                }
                if server.write_all(said).await.is_err() {
                    return;
                }
                if steals {
                    way.taken.notify_one();
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                if steals {
                    way.answered.notify_one();
                    return drop(way.told.acquire().await);
                }
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A VM that was replicated, and who may ask for anything.
pub(super) async fn world() -> World {
    let world = World::of_appliance();
    fs::write(world.path("images/web01.raw"), sample(1)).unwrap();
    world.told_well(&REPLICATE).await;
    write_private(&world.text("token"), &world.token("ada", "admin").await);
    fs::write(world.path("typed"), "correct horse battery\n").unwrap();
    world
}

pub(super) fn well(done: &Output) -> Value {
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The appliance is killed as soon as it is asked for a change. Whoever waits is told by the next one what became of it.
pub(super) async fn followed() {
    let world = world().await;
    let mut daemon = world.serves().await;
    let id = daemon.all("/volumes").await[0]["volume_id"].as_str().unwrap().to_owned();
    let before = daemon.all("/operations").await.len();
    for round in 1..=6 {
        let (what, then) = if round % 2 == 0 { ("attach", "attached") } else { ("detach", "detached") };
        let thief = Thief::before(&daemon).await;
        let child = thief.command(&world, &["volumes", what, &id]).spawn().unwrap();
        thief.taken.notified().await;
        for _ in 1..round {
            // A little later each time.
            daemon.try_ask(Method::GET, "/volumes", None, None).await;
        }
        daemon.kill().await;
        daemon = world.serves().await;
        *thief.appliance.lock().unwrap() = place(&daemon);
        let done = well(&child.wait_with_output().await.unwrap());
        assert_eq!(done["status"], json!("completed"), "{done}");
        assert!(thief.count() > 1, "it was asked again");
        assert_eq!(daemon.get(&format!("/volumes/{id}")).await["status"], json!(then));
        assert_eq!(daemon.all("/operations").await.len(), before + round, "each change is one operation");
    }
    daemon.stop().await;
}

pub(super) async fn asked_again() {
    let world = world().await;
    let daemon = world.serves().await;
    let asked = async |args: &[&str]| -> Output {
        let thief = Thief::before(&daemon).await;
        let done = thief.command(&world, args).output().await.unwrap();
        assert_eq!(thief.count(), 2, "{args:?}: {done:?}");
        done
    };
    let volume = daemon.all("/volumes").await.remove(0);
    let id = volume["volume_id"].as_str().unwrap();
    let before = daemon.all("/operations").await.len();
    let done = well(&asked(&["volumes", "detach", id]).await);
    assert_eq!(done["status"], json!("completed"), "{done}");
    assert_eq!(daemon.all("/operations").await.len(), before + 1);
    let done = well(&asked(&["volumes", "delete", id]).await);
    assert_eq!(done["status"], json!("pending"), "{done}");
    assert_eq!(daemon.all("/operations").await.len(), before + 2);
    assert_eq!(well(&asked(&["volumes", "pardon", id]).await)["status"], json!("cancelled"));

    let add = ["users", "add", "eve@example.com", "--role", "operator", "--password-stdin"];
    assert_eq!(well(&asked(&add).await)[0]["email"], json!("eve@example.com"));
    let change = ["users", "change", "eve@example.com", "--role", "viewer"];
    assert_eq!(well(&asked(&change).await)[0]["role"], json!("viewer"));
    // A secret is told once: the token whose answer was lost is named, so that it can be revoked.
    let lost = asked(&["users", "token", "eve@example.com"]).await;
    refused(&lost, 4, "`oma users revoke tok-");
    let tokens = daemon.all("/tokens").await;
    let of_eve: Vec<_> = tokens.iter().filter(|token| token["role"] == json!("viewer")).collect();
    assert_eq!(of_eve.len(), 1, "{tokens:?}");
    let revoked = well(&asked(&["users", "revoke", of_eve[0]["id"].as_str().unwrap()]).await);
    assert!(revoked["revoked_at"].is_string(), "{revoked}");
    daemon.stop().await;
}
