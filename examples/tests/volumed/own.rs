//! Certificates that nobody has given a daemon: it has an authority of its own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use oma_core::conformance::{Requirement, Trial, trial};
use oma_examples::authority::Fingerprint;
use reqwest::{Certificate, Client, Method};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::world::{Daemon, LIMIT, Ran, World, ended};

pub(crate) fn trials() -> Vec<Trial> {
    let others = [Requirement::Program("curl"), Requirement::Program("openssl")];
    let nbd = ["nbdinfo", "nbdcopy", "openssl"].map(Requirement::Program);
    vec![
        trial("l29_an_appliance_makes_its_authority_once_and_shows_no_key", &[], first_start),
        trial("an_appliance_that_is_killed_at_its_first_start_has_a_whole_authority_or_none", &[], killed),
        trial("a_volume_daemon_for_others_has_an_authority_too", &[], volume_daemon),
        trial("other_tools_believe_an_appliance_by_its_authority", &others, other_tools),
        trial("nbd_is_served_to_whom_the_authority_has_certified", &nbd, clients),
        trial("a_port_for_nbd_that_is_taken_is_named_with_what_to_do", &[], taken),
    ]
}

impl World {
    /// An appliance with TLS everywhere.
    pub(crate) async fn own(&self, name: &str) -> Daemon {
        let port = "127.0.0.1:0";
        let flags = ["--tls", "--tls-name", name, "--listen", port, "--volume-listen", port];
        self.start(&[&flags[..], &["--nbd-listen", port]].concat()).await
    }

    pub(crate) fn authority(&self) -> String {
        fs::read_to_string(self.path("data/tls/ca-cert.pem")).unwrap()
    }

    /// A file that is served by the daemon's certificate, to one client.
    async fn serve_to(&self, file: &str, client: &str) -> (Child, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oma"));
        command.args(["serve", file, "--listen", "127.0.0.1:0", "--client", client]);
        command.arg("--tls-certificates").arg(self.path("data/tls")).env_remove("OMA_API");
        command.stdout(std::process::Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let uri = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        (child, uri)
    }

    /// `oma` in the daemon's data directory.
    pub(crate) async fn oma_here(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oma"));
        command.arg("--data-dir").arg(self.path("data")).args(args).env_remove("OMA_API").kill_on_drop(true);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        ended(command.spawn().unwrap()).await
    }
}

/// Whether the daemon at an address is believed by a name.
async fn is_believed(authority: &str, name: &str, address: &str) -> bool {
    let root = Certificate::from_pem(authority.as_bytes()).unwrap();
    let at: SocketAddr = address.strip_prefix("https://").unwrap().parse().unwrap();
    let client = Client::builder().tls_certs_only([root]).resolve(name, at).build().unwrap();
    client.get(format!("https://{name}:{}/health", at.port())).send().await.is_ok()
}

async fn first_start() {
    let world = World::of_appliance();
    let daemon = world.own("oma.example").await;
    let authority = world.authority();
    for address in &daemon.addresses[1..3] {
        assert!(is_believed(&authority, "oma.example", address).await, "{address}");
        assert!(is_believed(&authority, "localhost", address).await, "{address}");
        assert!(!is_believed(&authority, "other.example", address).await, "{address}");
    }
    assert!(daemon.addresses[3].starts_with("nbds://127.0.0.1:"), "{:?}", daemon.addresses);
    let tls = world.path("data/tls");
    assert_eq!(tls.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let key = fs::read_to_string(tls.join("ca-key.pem")).unwrap();
    for name in ["ca-key.pem", "server-key.pem"] {
        assert_eq!(tls.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let said = daemon.stop().await;
    let fingerprint = Fingerprint::of(&CertificateDer::from_pem_slice(authority.as_bytes()).unwrap());
    assert!(said.err.contains(&fingerprint.to_string()), "{said:?}");
    assert!(!said.err.contains(key.lines().nth(1).unwrap()) && !said.err.contains("PRIVATE"), "{said:?}");
    // The same authority, for whatever the daemon is called now.
    let daemon = world.own("new.example").await;
    assert_eq!(world.authority(), authority);
    let address = &daemon.addresses[1];
    assert!(is_believed(&authority, "new.example", address).await);
    assert!(!is_believed(&authority, "oma.example", address).await);
    // What is looked for at SIGHUP is made where it is gone.
    fs::remove_file(tls.join("server-cert.pem")).unwrap();
    daemon.signal("HUP").await;
    let made = async {
        while !tls.join("server-cert.pem").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("it is made anew");
    let said = daemon.stop().await;
    assert!(said.err.contains(&fingerprint.to_string()), "{said:?}");
}

async fn killed() {
    for patience in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
        let world = World::of_appliance();
        let port = "127.0.0.1:0";
        let flags = ["--tls", "--nbd-listen", port, "--listen", port, "--volume-listen", "none"];
        let mut command = Command::new(world.program());
        command.arg("--data-dir").arg(world.path("data")).args(flags).kill_on_drop(true);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        // Until some file of its own is there, then for so long.
        while !world.path("data/tls.new").exists() && !world.path("data/tls").exists() {
            tokio::task::yield_now().await;
        }
        let _ = tokio::time::timeout(Duration::from_micros(patience * 100), child.wait()).await;
        child.kill().await.unwrap();
        let before = fs::read_to_string(world.path("data/tls/ca-cert.pem")).ok();
        let daemon = world.own("oma.example").await;
        let authority = world.authority();
        assert!(before.is_none_or(|before| before == authority), "it is made once");
        assert!(is_believed(&authority, "oma.example", &daemon.addresses[1]).await);
        daemon.stop().await;
        let left: Vec<_> = fs::read_dir(world.path("data/tls")).unwrap().collect();
        assert!(left.len() == 4 && !world.path("data/tls.new").exists(), "{left:?}");
    }
}

async fn volume_daemon() {
    let world = World::new();
    let daemon = world.start(&["--listen", "0.0.0.0:0", "--tls-name", "volumes.example"]).await;
    let address = daemon.addresses[1].replace("0.0.0.0", "127.0.0.1");
    assert!(is_believed(&world.authority(), "volumes.example", &address).await, "{address}");
    daemon.stop().await;
    // Who needs none has none.
    let world = World::new();
    world.start(&["--listen", "127.0.0.1:0"]).await.stop().await;
    assert!(!world.path("data/tls").exists());
}

async fn tool(program: &str, args: &[&str]) -> Ran {
    let output = Command::new(program).args(args).kill_on_drop(true).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

async fn other_tools() {
    let world = World::of_appliance();
    let daemon = world.own("oma.example").await;
    let (authority, server) = (world.text("data/tls/ca-cert.pem"), world.text("data/tls/server-cert.pem"));
    for args in [
        &[
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            "oma.example",
            "-CAfile",
            &authority,
        ][..],
        &["verify", "-x509_strict", "-verify_ip", "127.0.0.1", "-CAfile", &authority],
    ] {
        let verified = tool("openssl", &[args, &[&server]].concat()).await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
    }
    let about = ["x509", "-in", &authority, "-noout", "-fingerprint", "-sha256"];
    let shown = tool("openssl", &about).await.out;
    let fingerprint = shown.trim().rsplit('=').next().unwrap().parse::<Fingerprint>().unwrap();
    let url = format!("{}/health", daemon.addresses[1]);
    let asked = tool("curl", &["-sS", "--fail", "--cacert", &authority, &url]).await;
    assert!(asked.code == Some(0) && asked.out.contains("\"ok\""), "{asked:?}");
    let refused = tool("curl", &["-sS", "--fail", &url]).await;
    assert_eq!(refused.code, Some(60), "{refused:?}");
    assert!(daemon.stop().await.err.contains(&fingerprint.to_string()));
}

/// The address of a volume of the daemon that is served, as whoever comes over the network is told it.
async fn served(world: &World, daemon: &Daemon) -> String {
    let volume = daemon.volume("web01").await;
    daemon.done(Method::POST, &format!("/volumes/{volume}/attach"), None).await;
    let token = world.token("web", "operator").await;
    let root = Certificate::from_pem(world.authority().as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only([root]).build().unwrap();
    let asked = client.request(Method::POST, format!("{}/exports", daemon.url())).bearer_auth(token);
    let answer = asked.json(&json!({ "volume_id": volume })).send().await.unwrap();
    let export: Value = answer.json().await.unwrap();
    export["uri"].as_str().unwrap_or_else(|| panic!("{export}")).to_owned()
}

async fn clients() {
    let world = World::of_appliance();
    let daemon = world.own("oma.example").await;
    let uri = served(&world, &daemon).await;
    assert!(uri.starts_with(&daemon.addresses[3]), "{uri}");
    let (good, stranger) = (world.text("host-7"), world.text("stranger"));
    let made = world.oma_here(&["certificate", "make", "host-7", &good]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.out.contains("cn:host-7"), "{made:?}");
    let twice = world.oma_here(&["certificate", "make", "host-7", &good]).await;
    assert_eq!(twice.code, Some(4), "{twice:?}");
    // One who trusts the daemon, and has a certificate of somebody else's; or none.
    fs::create_dir(&stranger).unwrap();
    let theirs = crate::pki::Pki::new("theirs");
    theirs.make_client(Path::new(&stranger));
    fs::copy(world.path("data/tls/ca-cert.pem"), world.path("stranger/ca-cert.pem")).unwrap();
    let with = |directory: &str| format!("{uri}?tls-certificates={directory}");
    let copy = world.text("copy.raw");
    let sized = tool("nbdinfo", &["--size", &with(&good)]).await;
    assert_eq!((sized.code, sized.out.trim()), (Some(0), "1048576"), "{sized:?}");
    // What else is served is told by the routes only.
    let (port, socket) = (&daemon.addresses[3], world.text("data/nbd.sock"));
    let port = format!("{port}?tls-certificates={good}");
    for anywhere in [&port, &format!("nbd+unix:///?socket={socket}")] {
        let listed = tool("nbdinfo", &["--list", "--json", anywhere]).await;
        assert!(listed.code == Some(0) && !listed.out.contains("export-name"), "{listed:?}");
    }
    let copied = tool("nbdcopy", &[&with(&good), &copy]).await;
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert_eq!(fs::metadata(&copy).unwrap().len(), 1 << 20);
    let refused = tool("nbdinfo", &["--size", &with(&stranger)]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    // Told apart by the names that they were given.
    let other = world.text("host-8");
    assert_eq!(world.oma_here(&["certificate", "make", "host-8", &other]).await.code, Some(0));
    let (mut child, uri) = world.serve_to(&copy, "cn:host-7").await;
    let with_name = |directory: &str| format!("{uri}?tls-certificates={directory}");
    assert_eq!(tool("nbdinfo", &["--size", &with_name(&good)]).await.code, Some(0));
    let refused = tool("nbdinfo", &["--size", &with_name(&other)]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    child.kill().await.unwrap();
    for name in ["client-cert.pem", "client-key.pem"] {
        fs::remove_file(world.path("stranger").join(name)).unwrap();
    }
    let refused = tool("nbdinfo", &["--size", &with(&stranger)]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    shut_out(&world, &with(&good), &with(&other)).await;
    daemon.stop().await;
}

/// The daemon looks for itself.
async fn shut_out(world: &World, revoked: &str, other: &str) {
    let nobody = world.oma_here(&["certificate", "revoke", "host-9"]).await;
    assert!(nobody.code == Some(7) && nobody.err.contains("certificate list"), "{nobody:?}");
    assert_eq!(tool("nbdinfo", &["--size", revoked]).await.code, Some(0));
    let done = world.oma_here(&["certificate", "revoke", "host-7", "--json"]).await;
    let done: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{done:?}"));
    assert!(done[0]["name"] == "host-7" && done[0]["revoked_at"].is_string() && done[1].is_null(), "{done}");
    let refused = async { while tool("nbdinfo", &["--size", revoked]).await.code == Some(0) {} };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("it is shut out");
    assert_eq!(tool("nbdinfo", &["--size", other]).await.code, Some(0));
    // Another reader of the list, which looks at who has signed it.
    let (authority, list) = (world.text("data/tls/ca-cert.pem"), world.text("data/tls/ca-crl.pem"));
    let read = tool("openssl", &["crl", "-noout", "-text", "-CAfile", &authority, "-in", &list]).await;
    assert!(read.code == Some(0) && read.err.contains("verify OK"), "{read:?}");
    assert!(read.out.contains(done[0]["serial"].as_str().unwrap()), "{read:?}");
    let listed = world.oma_here(&["certificate", "list"]).await;
    assert!(listed.out.contains("host-8") && listed.out.contains(done[0]["serial"].as_str().unwrap()));
    let trail = world.oma_here(&["audit", "list", "--json"]).await;
    for action in ["certificate.create", "certificate.create failed", "certificate.revoke"] {
        assert!(trail.out.contains(&format!("\"{action}\"")), "{action}: {trail:?}");
    }
    assert_eq!(
        trail.out.matches(done[0]["serial"].as_str().unwrap()).count(),
        2,
        "made and revoked: {trail:?}"
    );
    // A database that is away keeps nobody from it, and from making others.
    let away = ["--database", &format!("sqlite://{}", world.text("nothing.db"))];
    let untold = world.oma_here(&[&["certificate", "revoke", "host-8"], &away[..]].concat()).await;
    assert!(untold.code == Some(4) && untold.out.contains("host-8"), "{untold:?}");
    assert!(
        untold.err.contains("the audit trail has no entry") && untold.err.contains("OMA_DATABASE"),
        "{untold:?}"
    );
    let directory = world.text("host-9");
    let refused = world.oma_here(&[&["certificate", "make", "host-9", &directory], &away[..]].concat()).await;
    assert!(refused.code == Some(4) && !Path::new(&directory).exists(), "{refused:?}");
    assert!(!Path::new(&world.text("nothing.db")).exists());
    let refused = async { while tool("nbdinfo", &["--size", other]).await.code == Some(0) {} };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("it is shut out");
}

async fn taken() {
    let world = World::of_appliance();
    let nowhere = world.oma_here(&["certificate", "make", "host-7", &world.text("host-7")]).await;
    assert!(nowhere.code == Some(7) && nowhere.err.contains("own authority"), "{nowhere:?}");
    let holder = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let ran = world.run(&["--nbd-listen", &address]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    for said in [&*address, "somebody listens there already", "--nbd-listen"] {
        assert!(ran.err.contains(said), "{ran:?}");
    }
}
