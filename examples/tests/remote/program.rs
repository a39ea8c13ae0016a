//! The daemon as its program.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use bytes::BytesMut;
use oma_api::SessionRow;
use oma_api::client::RemoteBackend;
use oma_core::conformance::{self, BackendSubject, Trial, sample, trial};
use oma_core::traits::{Access, Durability, VolumeBackend};
use oma_core::{ByteSize, ErrorKind};
use oma_nbd::{ClientConfig, Uri};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::daemon::{attached, connect};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = conformance::cases("volumed", &conformance::volume_backend_cases(), async || {
        let folder = TempDir::new().unwrap();
        let program = Program::local(&folder).await;
        let (backend, second) = (program.remote().await, program.remote().await);
        BackendSubject {
            backend: Arc::new(backend),
            second: Arc::new(second),
            guard: Box::new((program, folder)),
        }
    });
    trials.push(trial("l15_a_volumed_that_is_killed_keeps_what_was_flushed", &[], killed));
    trials.push(trial("a_volumed_that_is_told_to_end_closes_what_is_open", &[], ended));
    trials.push(trial("l09_a_session_that_an_admin_ended_never_flushes_again", &[], taken));
    trials
}

/// A running `volumed`, killed when it is dropped.
pub(crate) struct Program {
    /// Lines that it printed once it listened, its socket's first.
    pub(crate) addresses: Vec<String>,
    child: Child,
    _said: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// With these arguments it listens at so many addresses.
    pub(crate) async fn start(folder: &TempDir, args: &[&str], count: usize) -> Self {
        Self::start_with(folder, args, count, |_| ()).await
    }

    /// The same, with whatever else it is to have.
    pub(crate) async fn start_with(
        folder: &TempDir,
        args: &[&str],
        count: usize,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volumed"));
        command.arg("--data-dir").arg(folder.path()).args(args).env_remove("OMA_DATABASE");
        command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = Vec::new();
        while addresses.len() < count {
            addresses.push(said.next_line().await.unwrap().expect("it tells where it serves"));
        }
        Self { addresses, child, _said: said }
    }

    /// On its socket only.
    pub(crate) async fn local(folder: &TempDir) -> Self {
        Self::start(folder, &[], 1).await
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().await.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    pub(crate) async fn remote(&self) -> RemoteBackend {
        connect(&self.addresses[0]).await
    }
}

async fn killed() {
    let folder = TempDir::new().unwrap();
    let mut program = Program::local(&folder).await;
    let remote = program.remote().await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(7, 4096), Durability::Durable).await.unwrap();
    program.child.kill().await.unwrap();
    let error = device.write_at(0, sample(8, 4096), Durability::Durable).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert_eq!(remote.get(&id).await.unwrap_err().kind(), ErrorKind::Unavailable);
    drop(device);
    let _program = Program::local(&folder).await;
    let device = remote.open(&id, &tag, Access::ReadOnly).await.expect("the same client goes on");
    assert_eq!(device.read_at(0, BytesMut::zeroed(4096)).await.unwrap(), sample(7, 4096));
}

async fn ended() {
    let folder = TempDir::new().unwrap();
    let mut program = Program::local(&folder).await;
    let remote = program.remote().await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    program.signal("TERM").await;
    program.ended().await;
    let error = device.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(!folder.path().join("nbd.sock").exists());
}

/// Somebody forgot that he has a volume open.
async fn taken() {
    let folder = TempDir::new().unwrap();
    let program = Program::local(&folder).await;
    let remote = program.remote().await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(7, 4096), Durability::Durable).await.unwrap();
    let socket = folder.path().join("volumed.sock");
    let http = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let url = "http://localhost/api/v1/backend/sessions";
    let rows: Vec<SessionRow> = http.get(url).send().await.unwrap().json().await.unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&row.volume_id, &row.deployment, row.read_only), (&id, &tag.instance, false));
    assert_eq!((row.principal.as_str(), row.bytes_written), ("owner of the data directory", 4096));
    let nbd = Uri::unix(folder.path().join("nbd.sock"), "").unwrap();
    let listed = oma_nbd::client::list(&nbd, &ClientConfig::default()).await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    let ended = http.delete(format!("{url}/{}", row.session_id)).send().await.unwrap();
    assert_eq!(ended.status(), 204);
    let next = remote.open(&id, &tag, Access::ReadWrite).await.expect("the lock is free");
    for _ in 0..2 {
        let error = device.flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    }
    assert_eq!(next.read_at(0, BytesMut::zeroed(4096)).await.unwrap(), sample(7, 4096));
}
