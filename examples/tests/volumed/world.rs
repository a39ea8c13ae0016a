//! A data directory of its own per test, and daemons on it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub(crate) const MIB: u64 = 1 << 20;

/// Nothing that a test waits for takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Where the routes of the socket seem to be.
const LOCAL: &str = "http://localhost/api/v1";

/// One test's folder. Everything in it goes with it.
#[derive(Debug)]
pub(crate) struct World {
    folder: TempDir,
    program: &'static str,
    /// What else is in the environment of daemons.
    env: Vec<(&'static str, String)>,
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) child: Child,
    /// Lines that it printed once it listened.
    pub(crate) addresses: Vec<String>,
    local: Client,
    /// What it says, which is read all the time: a full pipe would stop it.
    said: JoinHandle<String>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::Builder::new().prefix("volumed-test-").tempdir().unwrap(),
            program: "volumed",
            env: Vec::new(),
        }
    }

    /// One of the appliance, whose sources may lie in `images`.
    pub(crate) fn of_appliance() -> Self {
        let folder = tempfile::Builder::new().prefix("omad-test-").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        Self { folder, program: "omad", env: Vec::new() }
    }

    /// The same, with something more in the environment of its daemons.
    pub(crate) fn with_env(mut self, name: &'static str, value: String) -> Self {
        self.env.push((name, value));
        self
    }

    /// The program.
    pub(crate) fn program(&self) -> &'static str {
        match self.program {
            "omad" => env!("CARGO_BIN_EXE_omad"),
            _ => env!("CARGO_BIN_EXE_volumed"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        // Tests run side by side: no port is one that others have.
        let own: &[[&str; 2]] = match self.program {
            "omad" => &[["--listen", "127.0.0.1:0"], ["--volume-listen", "none"], ["--nbd-listen", "none"]],
            _ => &[],
        };
        let mut command = Command::new(self.program());
        command.arg("--data-dir").arg(self.path("data")).args(args);
        let serves = args.first().is_none_or(|first| first.starts_with('-'));
        for flag in own.iter().filter(|flag| serves && !args.contains(&flag[0])) {
            command.args(flag);
        }
        command
            .env_remove("OMA_DATA_DIR")
            .env_remove("OMA_DATABASE")
            .env_remove("OMA_LOG")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .env_remove("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        ended(self.command(args).spawn().unwrap()).await
    }

    /// A new token.
    pub(crate) async fn token(&self, name: &str, role: &str) -> String {
        let made = self.run(&["token", "add", name, "--role", role]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        made.out.trim().to_owned()
    }

    /// A daemon that listens, on so many addresses beside its socket.
    pub(crate) async fn start(&self, args: &[&str]) -> Daemon {
        let mut child = self.command(args).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let beside = usize::from(self.program == "omad" || args.contains(&"--listen"));
        let ports = ["--volume-listen", "--nbd-listen"];
        let count = 1 + beside + ports.iter().filter(|flag| args.contains(flag)).count();
        let mut addresses = Vec::new();
        while addresses.len() < count {
            match tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap() {
                Some(line) => addresses.push(line),
                None => panic!("it ended: {:?}", ended(child).await),
            }
        }
        let mut pipe = child.stderr.take().unwrap();
        let said = tokio::spawn(async move {
            let mut said = String::new();
            pipe.read_to_string(&mut said).await.unwrap();
            said
        });
        let local =
            Client::builder().unix_socket(self.path(&format!("data/{}.sock", self.program))).build().unwrap();
        Daemon { child, addresses, local, said }
    }
}

impl Daemon {
    /// The address beside the socket, with the routes' prefix.
    pub(crate) fn url(&self) -> String {
        format!("{}/api/v1", self.addresses[1])
    }

    /// Asks over the socket; `None` when nobody answers.
    pub(crate) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let mut request = self.local.request(method, format!("{LOCAL}{path}")).timeout(LIMIT);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        self.try_ask(method, path, None, body.as_ref()).await.expect("an answer")
    }

    /// Asks as a part of the trace that a `traceparent` names.
    pub(crate) async fn ask_within(
        &self,
        traceparent: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let request = self.local.request(method, format!("{LOCAL}{path}")).timeout(LIMIT).json(body);
        let answer = request.header("traceparent", traceparent).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// A text, over the socket.
    pub(crate) async fn text(&self, path: &str) -> String {
        let answer = self.local.get(format!("{LOCAL}{path}")).timeout(LIMIT).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer.text().await.unwrap()
    }

    /// Asks for a change and waits until it has ended well.
    pub(crate) async fn done(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, value) = self.ask(method, &format!("{path}?wait=30s"), body).await;
        assert_eq!((status, &value["status"]), (200, &json!("completed")), "{path}: {value}");
        value
    }

    /// The id of a VM's record.
    pub(crate) async fn vm(&self, name: &str) -> String {
        let vm = json!({
            "instance_uuid": format!("uuid-{name}"), "endpoint": "vcenter.example", "name": name,
            "path": format!("/DC/vm/{name}"), "disks": [{ "key": "disk-2000", "capacity_bytes": MIB }],
        });
        let (status, made) = self.ask(Method::POST, "/vms", Some(vm)).await;
        assert_eq!(status, 200, "{made}");
        made["context_id"].as_str().unwrap().to_owned()
    }

    /// What makes the volume of that VM.
    pub(crate) async fn wanted(&self, name: &str) -> Value {
        json!({ "context_id": self.vm(name).await, "disk_key": "disk-2000" })
    }

    /// The id of a new volume of a new VM.
    pub(crate) async fn volume(&self, name: &str) -> String {
        let wanted = self.wanted(name).await;
        let made = self.done(Method::POST, "/volumes", Some(wanted)).await;
        made["volume_id"].as_str().unwrap().to_owned()
    }

    /// All of a list.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        self.get(&format!("{path}?limit=1000")).await["items"].as_array().unwrap().clone()
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Ends it as an operator would; answers what it said.
    pub(crate) async fn stop(self) -> Ran {
        self.signal("TERM").await;
        let ran = Ran { err: self.said.await.unwrap(), ..ended(self.child).await };
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    }

    /// Ends it as a power failure would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Waits for the end of a program.
pub(crate) async fn ended(mut child: Child) -> Ran {
    let (mut out, mut err) = (String::new(), String::new());
    let all = async {
        if let Some(pipe) = &mut child.stdout {
            pipe.read_to_string(&mut out).await.unwrap();
        }
        if let Some(pipe) = &mut child.stderr {
            pipe.read_to_string(&mut err).await.unwrap();
        }
        child.wait().await.unwrap()
    };
    let status = tokio::time::timeout(LIMIT, all).await.expect("it ends in time");
    Ran { code: status.code(), out, err }
}
