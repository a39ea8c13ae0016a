//! Whom the command line and agents trust, and how they come to do so.

use std::fs;
use std::process::Stdio;

use oma_core::conformance::{Requirement, Trial, trial};
use oma_examples::authority::Fingerprint;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::push::write_private;
use crate::world::{Daemon, Ran, World, ended};

pub(crate) fn trials() -> Vec<Trial> {
    let terminal = [Requirement::Program("script")];
    vec![
        trial("an_authority_is_trusted_by_its_fingerprint_only", &[], by_fingerprint),
        trial("an_authority_is_trusted_by_who_types_yes_at_a_terminal", &terminal, at_a_terminal),
        trial("l29_who_shows_another_authority_is_refused_and_is_told_no_token", &[], impostor),
        trial("l29_who_speaks_no_tls_is_told_no_token", &[], plain),
        trial("a_certificate_of_another_host_is_named_before_it_is_trusted", &[], another_host),
    ]
}

impl World {
    /// `oma`, by somebody whose settings lie in this world.
    fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oma"));
        for name in ["OMA_API", "OMA_TOKEN_FILE", "OMA_CA", "OMA_DATA_DIR", "OMA_LOG"] {
            command.env_remove(name);
        }
        command.env("XDG_CONFIG_HOME", self.path("config")).args(args).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) async fn asked(&self, args: &[&str]) -> Ran {
        ended(self.client(args).spawn().unwrap()).await
    }

    /// A file with a token of an operator.
    async fn token_file(&self) -> String {
        let path = self.text("token");
        write_private(&path, &self.token("web", "operator").await);
        path
    }

    /// As its log has it.
    pub(crate) fn fingerprint(&self) -> String {
        let pem = self.authority();
        Fingerprint::of(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).to_string()
    }

    /// Where the authority of a daemon is kept.
    fn kept(&self, daemon: &Daemon) -> String {
        self.text(&format!("config/oma/trusted/{}.pem", place(daemon)))
    }
}

fn place(daemon: &Daemon) -> &str {
    daemon.addresses[1].strip_prefix("https://").unwrap()
}

async fn by_fingerprint() {
    let world = World::of_appliance();
    let daemon = world.own("oma.example").await;
    let (address, token, right) = (&*daemon.addresses[1], world.token_file().await, world.fingerprint());
    let jobs = ["jobs", "--api", address, "--token-file", &token];
    let before = world.asked(&jobs).await;
    assert_eq!(before.code, Some(1), "{before:?}");
    assert!(before.err.contains("is not who this client trusts"), "{before:?}");
    // Nobody has said that it is the right one, or somebody that it is another one.
    let wrong = Fingerprint::of(b"another").to_string();
    let trust = ["trust", "--api", address];
    for (more, said) in [(&[][..], "--fingerprint"), (&["--fingerprint", &wrong], "nothing is trusted")] {
        let refused = world.asked(&[&trust, more].concat()).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains(said) && refused.err.contains(&right), "{refused:?}");
        assert!(!world.path("config").exists());
    }
    let misspelt = world.asked(&["trust", "--api", address, "--fingerprint", "SHA256:12"]).await;
    assert!(misspelt.code == Some(2) && misspelt.err.contains("64 hexadecimal"), "{misspelt:?}");
    // Once, and once more.
    for _ in 0..2 {
        let trusted = world.asked(&[&trust[..], &["--fingerprint", &right]].concat()).await;
        assert_eq!((trusted.code, trusted.out), (Some(0), format!("trusted: {}\n", world.kept(&daemon))));
    }
    let after = world.asked(&jobs).await;
    assert_eq!(after.code, Some(0), "{after:?}");
    // In a file of one's own, for `--ca` and other tools.
    let file = world.text("authority.pem");
    let more = ["--fingerprint", &right.to_lowercase(), "--out", &file, "--json"];
    let kept = world.asked(&[&trust[..], &more].concat()).await;
    assert_eq!(kept.code, Some(0), "{kept:?}");
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), world.authority().lines().count());
    fs::remove_file(world.kept(&daemon)).unwrap();
    let named = world.asked(&[&jobs[..], &["--ca", &file]].concat()).await;
    assert_eq!(named.code, Some(0), "{named:?}");
    daemon.stop().await;
}

async fn at_a_terminal() {
    let world = World::of_appliance();
    let daemon = world.own("oma.example").await;
    for (typed, is_trusted) in [("no\n", false), ("\n", false), ("yes\n", true)] {
        let line = format!("{} trust --api {}", env!("CARGO_BIN_EXE_oma"), daemon.addresses[1]);
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("XDG_CONFIG_HOME", world.path("config"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        // It stays open until the end, as that of somebody who sits there.
        let mut keyboard = child.stdin.take().unwrap();
        keyboard.write_all(typed.as_bytes()).await.unwrap();
        let ran = ended(child).await;
        drop(keyboard);
        assert_eq!(ran.code, Some(i32::from(!is_trusted)), "{typed:?}: {ran:?}");
        assert!(ran.out.contains(&world.fingerprint()), "{ran:?}");
        assert_eq!(fs::exists(world.kept(&daemon)).unwrap(), is_trusted, "{typed:?}");
    }
    daemon.stop().await;
}

async fn impostor() {
    let world = World::of_appliance();
    let daemon = world.own("oma.example").await;
    let (address, token, right) =
        (daemon.addresses[1].clone(), world.token_file().await, world.fingerprint());
    let (kept, listen) = (world.kept(&daemon), place(&daemon).to_owned());
    let trusted = world.asked(&["trust", "--api", &address, "--fingerprint", &right]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    daemon.stop().await;
    // Somebody else, at the same address.
    let other = World::of_appliance();
    let daemon = other.start(&["--listen", &listen, "--tls"]).await;
    let refused = world.asked(&["jobs", "--api", &address, "--token-file", &token]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("is not who this client trusts"), "{refused:?}");
    for more in [&[][..], &["--fingerprint", &other.fingerprint()]] {
        let refused =
            world.asked(&[&["trust", "--api", &address, "--token-file", &token], more].concat()).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for said in [&right, &other.fingerprint(), &kept] {
            assert!(refused.err.contains(said.as_str()), "{refused:?}");
        }
    }
    // It was asked nothing: the first request that it sees is this one.
    let figures = daemon.text("/metrics").await;
    assert!(!figures.contains("oma_api_requests_total{"), "{figures}");
    // Who knows that it is right takes the file away.
    fs::remove_file(&kept).unwrap();
    let trusted = world.asked(&["trust", "--api", &address, "--fingerprint", &other.fingerprint()]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    daemon.stop().await;
}

async fn plain() {
    let world = World::of_appliance();
    let token = world.token_file().await;
    let secret = fs::read_to_string(&token).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let heard = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 64 << 10];
        let length = tcp.read(&mut heard).await.unwrap();
        heard.truncate(length);
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tcp.read_to_end(&mut heard).await.ok();
        heard
    });
    let args = ["trust", "--api", &address, "--token-file", &token];
    let refused = world.asked(&args).await;
    assert!(refused.code != Some(0) && refused.err.contains("does not begin TLS"), "{refused:?}");
    let heard = heard.await.unwrap();
    assert_eq!(heard.first(), Some(&22), "it begins TLS");
    assert!(!heard.windows(secret.trim().len()).any(|part| part == secret.trim().as_bytes()));
    for (address, said) in [
        ("http://127.0.0.1:1", "not served with TLS"),
        ("unix:/run/omad.sock", "not served with TLS"),
        ("https://127.0.0.1:1", "cannot be reached"),
        ("oma.example", "it is no URL"),
    ] {
        let refused = world.asked(&["trust", "--api", address]).await;
        assert!(refused.code != Some(0) && refused.err.contains(said), "{address}: {refused:?}");
    }
    let unnamed = world.asked(&["trust"]).await;
    assert!(unnamed.code == Some(2) && unnamed.err.contains("--api"), "{unnamed:?}");
}

async fn another_host() {
    let world = World::new();
    let daemon = world.start(&["--listen", "0.0.0.0:0", "--tls-name", "oma.example"]).await;
    let (right, port) = (world.fingerprint(), daemon.addresses[1].rsplit(':').next().unwrap());
    let trust = async |host: &str| {
        let address = format!("https://{host}:{port}");
        world.asked(&["trust", "--api", &address, "--fingerprint", &right]).await
    };
    let refused = trust("127.0.0.2").await;
    assert!(refused.code == Some(1) && refused.err.contains("of another host"), "{refused:?}");
    assert!(refused.err.contains("--tls-name") && !world.path("config").exists(), "{refused:?}");
    for host in ["127.0.0.1", "localhost"] {
        let trusted = trust(host).await;
        assert_eq!(trusted.code, Some(0), "{trusted:?}");
    }
    daemon.stop().await;
}
