//! Push mode: the appliance and the agent as programs, and other tools in the agent's place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use oma_core::conformance::{Requirement, Trial, trial};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::pki::Pki;
use crate::world::{Daemon, LIMIT, Ran, World, ended};

const KEYS: [&str; 2] = ["disk-2000", "disk-2001"];
const SIZE: usize = 24 << 20;
const VM: &str = "/DC/vm/web01";
/// An agent that is killed so often.
const KILLS: u64 = 10;

pub(crate) fn trials() -> Vec<Trial> {
    let nbdcopy = [Requirement::Program("curl"), Requirement::Program("jq"), Requirement::Program("nbdcopy")];
    let qemu = [Requirement::Program("curl"), Requirement::Program("jq"), Requirement::Program("qemu-img")];
    let bitmaps =
        [Requirement::Program("qemu-img"), Requirement::Program("qemu-io"), Requirement::Program("qemu-nbd")];
    vec![
        trial("l09_an_agent_pushes_only_what_a_dirty_bitmap_names", &bitmaps, bitmap),
        trial("an_agent_pushes_a_vm_from_epoch_to_epoch", &[], epochs),
        trial("an_agent_needs_https_and_nbd_with_tls_only", &[], over_tls),
        trial("an_agent_needs_an_appliance_that_certifies_and_is_trusted", &[], own),
        trial("l15_an_agent_and_an_appliance_that_are_killed_end_what_they_began", &[], killed),
        trial("l09_an_agent_leaves_a_job_alone_that_another_one_is_at_work_on", &[], left_alone),
        trial("l30_an_agents_token_opens_its_own_job_only", &[], own_jobs),
        trial("other_tools_push_by_the_commands_of_the_documentation", &nbdcopy, || foreign(false)),
        trial("qemu_img_pushes_by_the_commands_of_the_documentation", &qemu, || foreign(true)),
    ]
}

/// Bytes that no two places share.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..SIZE / 8).flat_map(|_| next()).collect()
}

impl World {
    fn disk(&self, key: &str) -> String {
        self.text(&format!("images/{key}.raw"))
    }

    fn make_disks(&self) {
        for (seed, key) in (1..).zip(KEYS) {
            let mut content = noise(seed);
            content[1 << 20..3 << 20].fill(0);
            fs::write(self.disk(key), content).unwrap();
        }
    }

    /// Another content in a part of each disk.
    fn change(&self, seed: u8) {
        for key in KEYS {
            let mut content = fs::read(self.disk(key)).unwrap();
            content[5 << 20..6 << 20].fill(seed);
            fs::write(self.disk(key), content).unwrap();
        }
    }

    /// An agent of the VM, to be spawned.
    fn agent(&self, api: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
        command.args(["--api", api, "--vm-path", VM]).args(args);
        for key in KEYS {
            command.arg("--disk").arg(format!("{key}={}", self.disk(key)));
        }
        command.env_remove("OMA_API").env_remove("OMA_LOG").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn socket(&self) -> String {
        format!("unix:{}", self.text("data/omad.sock"))
    }

    async fn pushed(&self, args: &[&str]) -> Ran {
        ended(self.agent(&self.socket(), args).spawn().unwrap()).await
    }

    /// The last epoch is committed, its volumes hold what the disks do, and nothing is served any more.
    async fn assert_pushed(&self, daemon: &Daemon, epoch: u64) {
        let jobs = daemon.all("/replications").await;
        let last = &jobs[0];
        assert_eq!((&last["status"], &last["epoch"]), (&json!("completed"), &json!(epoch)), "{last}");
        let id = last["job_id"].as_str().unwrap();
        let rows = daemon.get(&format!("/replications/{id}/disks")).await;
        for (key, row) in KEYS.iter().zip(rows.as_array().unwrap()) {
            assert_eq!((&row["consistent"], &row["epoch"]), (&json!(true), &json!(epoch)), "{row}");
            let volume = fs::read(row["volume_path"].as_str().unwrap()).unwrap();
            assert!(volume == fs::read(self.disk(key)).unwrap(), "{row} differs from its source");
        }
        assert_eq!(rows.as_array().unwrap().len(), KEYS.len());
    }
}

async fn epochs() {
    let world = World::of_appliance();
    world.make_disks();
    let daemon = world.start(&[]).await;
    for epoch in 1..=3_u8 {
        let ran = world.pushed(&["--verify", "changed"]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains(&format!("epoch {epoch} is complete")), "{ran:?}");
        world.assert_pushed(&daemon, u64::from(epoch)).await;
        world.change(epoch);
    }
    // What did not change is compared, and does not go over the link.
    let jobs = daemon.all("/replications").await;
    let last = daemon.get(&format!("/replications/{}/progress", jobs[0]["job_id"].as_str().unwrap())).await;
    let written = last["disks"][0]["written_bytes"].as_u64().unwrap();
    assert!((1 << 20..2 << 20).contains(&written), "{last}");
    assert_eq!(last["durable_bytes"], last["total_bytes"], "{last}");
    let wrong = world.agent(&world.socket(), &["--disk", "disk-2000=/none"]).spawn().unwrap();
    assert_eq!(ended(wrong).await.code, Some(2));
    daemon.stop().await;
}

/// A program that is to end well.
async fn tool(program: &str, args: &[&str]) {
    let ran = Command::new(program).args(args).output().await.unwrap();
    assert!(ran.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

async fn bitmap() {
    let world = World::of_appliance();
    let daemon = world.start(&[]).await;
    let (image, socket, raw) = (world.text("d.qcow2"), world.text("q.sock"), world.text("d.raw"));
    tool("qemu-img", &["create", "-q", "-f", "qcow2", &image, "16M"]).await;
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1M 4M", &image]).await;
    tool("qemu-img", &["bitmap", "--add", &image, "b0"]).await;
    let uri = format!("nbd+unix:///d?socket={socket}");
    let api = world.socket();
    for (change_id, bitmap, total) in [("b0", None, 16 << 20), ("b1", Some("b0"), 65536_u64)] {
        let mut server = Command::new("qemu-nbd");
        server.args(["-f", "qcow2", "-r", "-t", "-x", "d", "-B", "b0", "-k", &socket, &image]);
        let mut server = server.kill_on_drop(true).spawn().unwrap();
        let begun = Instant::now();
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            assert!(begun.elapsed() < LIMIT, "qemu-nbd does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut agent = Command::new(env!("CARGO_BIN_EXE_agent"));
        agent.args(["--api", &api, "--vm-path", VM, "--source", &uri, "--change-id", change_id]);
        agent.args(bitmap.into_iter().flat_map(|name| ["--bitmap", name]));
        agent.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        through(agent.spawn().unwrap()).await;
        server.kill().await.unwrap();
        let job = daemon.all("/replications").await.remove(0);
        let path = format!("/replications/{}", job["job_id"].as_str().unwrap());
        let progress = daemon.get(&format!("{path}/progress")).await;
        assert_eq!((&job["status"], &progress["total_bytes"]), (&json!("completed"), &json!(total)), "{job}");
        tool("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &image, &raw]).await;
        let rows = daemon.get(&format!("{path}/disks")).await;
        let volume = fs::read(rows[0]["volume_path"].as_str().unwrap()).unwrap();
        assert!(volume == fs::read(&raw).unwrap(), "{change_id} differs");
        tool("qemu-io", &["-f", "qcow2", "-c", "write -P 9 3M 64k", &image]).await;
    }
    daemon.stop().await;
}

/// As [`epochs`], from another machine as far as that can be seen from here.
async fn over_tls() {
    let world = World::of_appliance();
    world.make_disks();
    let pki = Pki::new("push");
    let (server, client) = (pki.directory("server"), pki.directory("client"));
    pki.make_server(&server);
    pki.make_client(&client);
    let settings = format!(
        "[api]\ntls_certificate = \"{0}/server-cert.pem\"\ntls_key = \"{0}/server-key.pem\"\n\
         [nbd]\ntls_certificates = \"{0}\"\n",
        server.display()
    );
    let file = world.text("omad.toml");
    fs::write(&file, settings).unwrap();
    let daemon = world.start(&["--config", &file, "--nbd-listen", "127.0.0.1:0"]).await;
    let token = world.text("token");
    write_private(&token, &agent_token(&daemon, "host-7").await);
    let (ca, certificates) = (format!("{}/ca-cert.pem", client.display()), client.display().to_string());
    let address = daemon.addresses[1].clone();
    assert!(address.starts_with("https://"), "{address}");
    let args = ["--token-file", &token, "--ca", &ca, "--certificates", &certificates];
    let ran = ended(world.agent(&address, &args).spawn().unwrap()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    world.assert_pushed(&daemon, 1).await;
    // Whom this machine does not trust is not told the token.
    let ran = ended(world.agent(&address, &["--token-file", &token]).spawn().unwrap()).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("is not who this client trusts"), "{ran:?}");
    daemon.stop().await;
}

/// Nobody has given the appliance a certificate: it has certified the agent, whose user trusts it.
async fn own() {
    let world = World::of_appliance();
    world.make_disks();
    let daemon = world.own("oma.example").await;
    let (token, certificates) = (world.text("token"), world.text("host-7"));
    write_private(&token, &agent_token(&daemon, "host-7").await);
    assert_eq!(world.oma_here(&["certificate", "make", "host-7", &certificates]).await.code, Some(0));
    let address = daemon.addresses[1].clone();
    let agent = || {
        let mut agent = world.agent(&address, &["--token-file", &token, "--certificates", &certificates]);
        agent.env("XDG_CONFIG_HOME", world.path("config"));
        ended(agent.spawn().unwrap())
    };
    let stranger = agent().await;
    assert!(
        stranger.code == Some(1)
            && stranger.err.contains("is not who this client trusts")
            && stranger.err.contains(&world.text("config/oma/trusted")),
        "{stranger:?}"
    );
    let trusted = world.asked(&["trust", "--api", &address, "--fingerprint", &world.fingerprint()]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    let ran = agent().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    world.assert_pushed(&daemon, 1).await;
    daemon.stop().await;
}

/// A file that its owner alone may read.
pub(crate) fn write_private(path: &str, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A token of a new user of the role agent.
async fn agent_token(daemon: &Daemon, name: &str) -> String {
    let user = json!({ "email": format!("{name}@example.com"), "role": "agent" });
    let (status, user) = daemon.ask(Method::POST, "/users", Some(user)).await;
    assert_eq!(status, 201, "{user}");
    let token = json!({ "name": name, "role": "agent", "user_id": user["id"] });
    let (status, token) = daemon.ask(Method::POST, "/tokens", Some(token)).await;
    assert_eq!(status, 201, "{token}");
    token["secret"].as_str().unwrap().to_owned()
}

/// `kill -9` of the agent again and again, of the appliance twice, wherever they are; then the same commands once more.
async fn killed() {
    let world = World::of_appliance();
    world.make_disks();
    let mut daemon = world.start(&[]).await;
    for kill in 0..KILLS {
        let mut agent: Child = world.agent(&world.socket(), &[]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(20 + 53 * kill % 300)).await;
        if matches!(kill, 3 | 6) {
            daemon.kill().await;
            daemon = world.start(&[]).await;
        }
        agent.kill().await.unwrap();
        if kill == KILLS / 2 {
            world.change(7);
        }
    }
    through(world.agent(&world.socket(), &[]).spawn().unwrap()).await;
    let before = daemon.all("/replications").await.remove(0)["job_id"].clone();
    // An agent that stays goes on by itself.
    world.change(8);
    let agent = world.agent(&world.socket(), &[]).spawn().unwrap();
    until_ready(&daemon, &before).await;
    daemon.kill().await;
    daemon = world.start(&[]).await;
    through(agent).await;
    let jobs = daemon.all("/replications").await;
    let ended = |job: &Value| !job["completed_at"].is_null();
    assert!(jobs.iter().all(ended), "{jobs:?}");
    let epoch = jobs[0]["epoch"].as_u64().unwrap();
    world.assert_pushed(&daemon, epoch).await;
    assert_eq!(daemon.all("/volumes").await.len(), KEYS.len());
    daemon.stop().await;
}

/// The agent ends well.
async fn through(agent: Child) {
    let ran = tokio::time::timeout(LIMIT * 6, agent.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Waits until there is another job than that one, with exports or past them.
async fn until_ready(daemon: &Daemon, before: &Value) {
    let begun = Instant::now();
    loop {
        let job = daemon.all("/replications").await.remove(0)["job_id"].clone();
        if job != *before {
            let push = daemon.get(&format!("/replications/{}/push", job.as_str().unwrap())).await;
            if push["ready"] == json!(true) || push["status"] == json!("completed") {
                return;
            }
        }
        assert!(begun.elapsed() < LIMIT, "no job is ready");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A job of another content, whose agent was heard just now, or is waited for.
async fn left_alone() {
    let world = World::of_appliance();
    world.make_disks();
    let daemon = world.start(&[]).await;
    let disk = |key: &str| json!({ "key": key, "capacity_bytes": SIZE, "change_id": "b@1" });
    let request = json!({ "vm_path": VM, "push": { "disks": KEYS.map(disk) } });
    let (status, job) = daemon.ask(Method::POST, "/replications", Some(request)).await;
    assert_eq!(status, 201, "{job}");
    until_ready(&daemon, &Value::Null).await;
    let ran = world.pushed(&["--patience", "2s"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("another agent is at work"), "{ran:?}");
    let path = format!("/replications/{}", job["job_id"].as_str().unwrap());
    let seen = daemon.get(&path).await;
    assert!(seen["completed_at"].is_null(), "{seen}");
    // Whoever knows better cancels it.
    assert_eq!(daemon.ask(Method::POST, &format!("{path}/cancel"), None).await.0, 202);
    let ran = world.pushed(&[]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let epoch = daemon.all("/replications").await[0]["epoch"].as_u64().unwrap();
    world.assert_pushed(&daemon, epoch).await;
    daemon.stop().await;
}

async fn own_jobs() {
    let world = World::of_appliance();
    let daemon = world.start(&[]).await;
    let (own, other) = (agent_token(&daemon, "a").await, agent_token(&daemon, "b").await);
    let http = reqwest::Client::new();
    let ask = async |token: &str, method: Method, path: &str, body: Option<Value>| {
        let request = http.request(method, format!("{}{path}", daemon.url())).bearer_auth(token);
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let disk = json!({ "key": "disk-2000", "capacity_bytes": 1 << 20, "change_id": "b@1" });
    let request = json!({ "vm_path": VM, "push": { "disks": [disk] } });
    let (status, job) = ask(&own, Method::POST, "/replications", Some(request)).await;
    assert_eq!(status, 201, "{job}");
    let id = job["job_id"].as_str().unwrap();
    for (method, path) in
        [(Method::GET, ""), (Method::GET, "/push"), (Method::GET, "/progress"), (Method::POST, "/cancel")]
    {
        let path = format!("/replications/{id}{path}");
        assert_eq!(ask(&other, method.clone(), &path, None).await.0, 404, "{path}");
        let (status, seen) = ask(&own, method, &path, None).await;
        assert!(matches!(status, 200 | 202), "{path}: {seen}");
    }
    assert_eq!(ask(&own, Method::GET, "/volumes", None).await.0, 403);
    assert_eq!(ask("oma_nobody", Method::GET, &format!("/replications/{id}"), None).await.0, 401);
    daemon.stop().await;
}

/// The commands that docs/push.md shows, with a disk of ours.
async fn foreign(qemu: bool) {
    let world = World::of_appliance();
    world.make_disks();
    let daemon = world.start(&[]).await;
    let token = world.text("token");
    write_private(&token, &agent_token(&daemon, "host-7").await);
    let document = include_str!("../../../docs/push.md");
    let (_, rest) = document.split_once("<!-- the commands").unwrap();
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    let mut script = rest.split_once("```").unwrap().0.to_owned();
    if qemu {
        let line = script.lines().find(|line| line.trim_start().starts_with("nbdcopy")).unwrap().to_owned();
        let other = line.split_once("# or: ").unwrap().1.to_owned();
        script = script.replace(&line, &other);
    }
    let begun = Instant::now();
    for epoch in 1..=2_u64 {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &script]).kill_on_drop(true);
        shell.env("OMA", daemon.url()).env("TOKEN", &token).env("DISK", world.disk(KEYS[0]));
        let ran = tokio::time::timeout(LIMIT, shell.output()).await.unwrap().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let job = daemon.all("/replications").await.remove(0);
        assert_eq!((&job["status"], &job["epoch"]), (&json!("completed"), &json!(epoch)), "{job}");
        let rows = daemon.get(&format!("/replications/{}/disks", job["job_id"].as_str().unwrap())).await;
        let volume = fs::read(rows[0]["volume_path"].as_str().unwrap()).unwrap();
        assert!(volume == fs::read(world.disk(KEYS[0])).unwrap(), "epoch {epoch} differs");
        world.change(9);
    }
    assert!(begun.elapsed() < LIMIT * 2);
    daemon.stop().await;
}
