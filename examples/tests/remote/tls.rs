//! The daemon as its program, on another machine as far as its clients can tell: HTTPS with a token, NBD with certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use oma_api::client::{RemoteBackend, RemoteConfig, Token};
use oma_api::server::{Role, TokenFile};
use oma_core::conformance::{self, BackendSubject, DeviceSubject, Trial, sample, trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Durability, VolumeBackend};
use oma_core::{ByteSize, Error, ErrorKind, Result, VolumeId};
use oma_examples::NbdOpener;
use oma_examples::data_dir::DataDir;
use tempfile::TempDir;
use tokio::process::Command;

use crate::daemon::attached;
use crate::pki::Pki;
use crate::program::Program;

/// Nothing that a test waits for takes longer.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials =
        conformance::cases("volumed_over_tls", &conformance::volume_backend_cases(), async || {
            let world = World::new().await;
            let (backend, second) = (world.remote(&world.client).await, world.remote(&world.client).await);
            BackendSubject { backend: Arc::new(backend), second: Arc::new(second), guard: Box::new(world) }
        });
    let devices = conformance::cases("volumed_over_tls", &conformance::block_device_cases(), async || {
        let world = World::new().await;
        let remote = world.remote(&world.client).await;
        let (id, tag) = attached(&remote, conformance::DEVICE_CAPACITY).await;
        let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
        DeviceSubject { device, guard: Box::new(world) }
    });
    trials.extend(devices);
    trials.push(trial("content_is_told_to_nobody_without_a_good_certificate", &[], refused));
    trials.push(trial("certificates_of_nbd_are_read_again_at_sighup", &[], renewed));
    trials.push(trial("nbd_is_not_served_on_a_port_without_certificates_of_clients", &[], not_started));
    trials
}

/// A daemon, its authority, and a client that it trusts.
struct World {
    program: Program,
    pki: Pki,
    /// What the daemon is.
    server: PathBuf,
    client: PathBuf,
    token: String,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let (folder, pki) = (TempDir::new().unwrap(), Pki::new("ours"));
        let (server, client) = (pki.directory("server"), pki.directory("client"));
        pki.make_server(&server);
        pki.make_client(&client);
        let file = |name: &str| server.join(name).display().to_string();
        let (certificate, key, directory) = (file("server-cert.pem"), file("server-key.pem"), file(""));
        let tokens = TokenFile::new(DataDir::new(folder.path()).unwrap().tokens());
        let token = tokens.add("replicator", Role::Operator, None).await.unwrap().reveal().to_owned();
        let mut args = vec!["--listen", "127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key];
        args.extend(["--nbd-listen", "127.0.0.1:0", "--nbd-tls-certificates", &directory]);
        let program = Program::start(&folder, &args, 3).await;
        assert!(program.addresses[2].starts_with("nbds://127.0.0.1:"), "{:?}", program.addresses);
        Self { program, pki, server, client, token, _folder: folder }
    }

    /// Whoever has this directory, and the token.
    async fn remote(&self, directory: &Path) -> RemoteBackend {
        self.trusting(&self.client, directory).await.unwrap()
    }

    /// The same, who trusts for HTTPS what this other one trusts.
    async fn trusting(&self, authority: &Path, directory: &Path) -> Result<RemoteBackend> {
        let address = self.program.addresses[1].clone();
        let config =
            RemoteConfig { ca_file: Some(authority.join("ca-cert.pem")), ..RemoteConfig::new(address) };
        let opener = Arc::new(NbdOpener::with_certificates(directory));
        RemoteBackend::connect(&config, Some(Token::new(&self.token).unwrap()), opener).await
    }

    async fn refuses(&self, directory: &Path, id: &VolumeId, tag: &VolumeTag) -> Error {
        let remote = self.remote(directory).await;
        remote.open(id, tag, Access::ReadWrite).await.map(drop).unwrap_err()
    }
}

async fn refused() {
    let (world, stranger) = (World::new().await, Pki::new("theirs"));
    let remote = world.remote(&world.client).await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let shows_nothing = world.pki.directory("nothing");
    let of_another = world.pki.directory("another");
    stranger.make_client(&of_another);
    let late = world.pki.directory("late");
    world.pki.make_expired_client(&late);
    let trusts_another = stranger.directory("trusts-another");
    world.pki.make_client(&trusts_another);
    for (directory, kind, text) in [
        (
            &shows_nothing,
            ErrorKind::PermissionDenied,
            "refused this side's certificate (CertificateRequired)",
        ),
        (&of_another, ErrorKind::PermissionDenied, "refused this side's certificate (UnknownCA)"),
        (&late, ErrorKind::Invalid, "is out of date; renew it"),
        (&trusts_another, ErrorKind::PermissionDenied, "from an authority that is not trusted here"),
    ] {
        let error = world.refuses(directory, &id, &tag).await;
        assert_eq!(error.kind(), kind, "{}", error.chain());
        assert!(error.chain().contains(text), "{}", error.chain());
    }
    // Whoever was refused has not left the volume locked.
    let device = remote.open(&id, &tag, Access::ReadWrite).await.expect("the lock is free");
    device.write_at(0, sample(7, 4096), Durability::Durable).await.unwrap();
    // Somebody on the daemon's machine, who came by its socket, needs neither.
    let near = crate::daemon::connect(&world.program.addresses[0]).await;
    drop(device);
    let device = near.open(&id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(device.read_at(0, BytesMut::zeroed(4096)).await.unwrap(), sample(7, 4096));
}

async fn renewed() {
    let (world, next) = (World::new().await, Pki::new("next"));
    let remote = world.remote(&world.client).await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let renewed = next.directory("client");
    next.make_client(&renewed);
    let error = world.refuses(&renewed, &id, &tag).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
    let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    // The certificate of HTTPS lies there too, and is another one from now on.
    next.make_server(&world.server);
    world.program.signal("HUP").await;
    device.write_at(0, sample(7, 4096), Durability::Durable).await.expect("what is open goes on");
    drop(device);
    let try_open = async || {
        let remote = world.trusting(&renewed, &renewed).await?;
        remote.open(&id, &tag, Access::ReadOnly).await
    };
    let reached = async {
        loop {
            match try_open().await {
                Ok(device) => break device,
                Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain()),
            }
            tokio::task::yield_now().await;
        }
    };
    let device = tokio::time::timeout(LIMIT, reached).await.expect("the new certificates are read");
    assert_eq!(device.read_at(0, BytesMut::zeroed(4096)).await.unwrap(), sample(7, 4096));
    drop(device);
    // One of the authority from before, whose holder trusts the new one.
    let old = next.directory("old");
    world.pki.make_client(&old);
    let remote = world.trusting(&renewed, &old).await.unwrap();
    let error = remote.open(&id, &tag, Access::ReadOnly).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
    assert!(error.chain().contains("refused this side's certificate (UnknownCA)"), "{}", error.chain());
}

async fn not_started() {
    let (folder, pki) = (TempDir::new().unwrap(), Pki::new("ours"));
    let (server, alone) = (pki.directory("server"), pki.directory("alone"));
    pki.make_server(&server);
    pki.make_server(&alone);
    std::fs::remove_file(alone.join("ca-cert.pem")).unwrap();
    let (server, alone) = (server.display().to_string(), alone.display().to_string());
    for (args, code, said) in [
        (&["--nbd-listen", "127.0.0.1:0", "--nbd-tls-certificates", &alone][..], 7, "ca-cert.pem"),
        (&["--nbd-listen", "0.0.0.0:0", "--nbd-tls-certificates", &server], 2, "--nbd-host"),
        (
            &["--nbd-listen", "0.0.0.0:0", "--nbd-tls-certificates", &server, "--nbd-host", "a b"],
            2,
            "neither a name nor an address",
        ),
        (&["--nbd-tls-certificates", &server], 2, "--nbd-listen"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volumed"));
        command.arg("--data-dir").arg(folder.path()).args(args).env_remove("OMA_DATABASE").kill_on_drop(true);
        let ran = tokio::time::timeout(LIMIT, command.output()).await.expect("it does not start").unwrap();
        let text = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
}
