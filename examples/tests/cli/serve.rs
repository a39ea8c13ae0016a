//! `oma serve` and qemu's programs.

use std::process::Stdio;

use oma_core::ErrorKind;
use oma_core::conformance::{Requirement, Trial, trial};
use oma_nbd::{Client, ClientConfig, TlsClientConfig, Uri};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::pki::{self, Pki};
use crate::world::{LIMIT, MIB, VM, World, finish, signal};

pub(crate) fn trials() -> Vec<Trial> {
    let qemu = [Requirement::Program("qemu-img"), Requirement::Program("qemu-io")];
    vec![
        trial("serve_exports_a_file_until_a_signal", &qemu, exports_a_file),
        trial("serve_read_only_refuses_writes", &qemu, read_only),
        trial("serve_listens_on_tcp", &qemu, listens_on_tcp),
        trial("serve_demands_tls_and_a_certificate_of_one_client", &[], demands_tls),
        trial("serve_demands_a_certificate_of_each_client", &[], verifies_clients),
        trial("serve_tells_what_is_wrong", &[], tells_what_is_wrong),
    ]
}

/// Starts it; answers the URI that it prints once clients can connect.
pub(crate) async fn start(world: &World, args: &[&str]) -> (Child, String) {
    let mut command = world.oma(&[&["serve"], args].concat());
    let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("it prints the URI");
    (child, line)
}

async fn exports_a_file() {
    let world = World::new();
    world.raw("disk.raw", 4 * MIB, 1);
    let (file, socket) = (world.text("disk.raw"), world.text("serve.sock"));
    let (child, uri) = start(&world, &[&file, "--socket", &socket]).await;
    assert!(uri.starts_with("nbd+unix:///disk?socket="), "{uri}");
    world.must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &file, &uri]).await;
    world.must("qemu-io", &["-f", "raw", "-c", "write -P 0x55 1M 64k", "-c", "flush", &uri]).await;
    signal(&child, "TERM").await;
    finish(child).await.ok();
    world.must("qemu-io", &["-f", "raw", "-c", "read -P 0x55 1M 64k", &file]).await;
    assert!(!world.path("serve.sock").exists());
}

async fn read_only() {
    let world = World::new();
    world.raw("disk.raw", MIB, 1);
    let (file, socket) = (world.text("disk.raw"), world.text("serve.sock"));
    let (child, uri) = start(&world, &[&file, "--socket", &socket, "--read-only", "--name", "web01"]).await;
    assert!(uri.contains("/web01?"), "{uri}");
    let mut write = tokio::process::Command::new("qemu-io");
    let write = write.args(["-f", "raw", "-c", "write 0 4k", &uri]).output().await.unwrap();
    let said = String::from_utf8_lossy(&write.stderr).to_lowercase();
    assert!(said.contains("read-only") || said.contains("permission denied"), "{said}");
    world.must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &file, &uri]).await;
    signal(&child, "INT").await;
    finish(child).await.ok();
}

async fn listens_on_tcp() {
    let world = World::new();
    world.raw("disk.raw", MIB, 1);
    let file = world.text("disk.raw");
    let (child, uri) = start(&world, &[&file, "--listen", "127.0.0.1:0"]).await;
    assert!(uri.starts_with("nbd://127.0.0.1:") && !uri.contains(":0/"), "{uri}");
    world.must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &file, &uri]).await;
    let address = uri.trim_start_matches("nbd://").split('/').next().unwrap().to_owned();
    world.raw("other.raw", MIB, 2);
    let second = world.run(&["serve", &world.text("other.raw"), "--listen", &address]).await;
    second.refused(4, &[&address]);
    signal(&child, "TERM").await;
    finish(child).await.ok();
}

async fn demands_tls() {
    let (world, pki) = (World::new(), Pki::new());
    pki.issue("other", &pki::client("other"));
    world.raw("disk.raw", MIB, 1);
    let (file, socket, directory) =
        (world.text("disk.raw"), world.text("serve.sock"), pki.folder().display().to_string());
    let args = [&file, "--socket", &socket, "--tls-certificates", &directory, "--client", "cn:agent"]
        .map(String::from);
    let (child, uri) = start(&world, &args.each_ref().map(String::as_str)).await;
    assert_eq!(uri, format!("nbds+unix:///disk?socket={socket}"));
    let plain = format!("nbd+unix:///disk?socket={socket}");
    let replicate = async |source: &str| {
        world.run(&["replicate", "--vm-path", VM, "--source", source, "--verify", "full"]).await
    };
    replicate(&plain).await.refused(2, &["nbds://"]);
    replicate(&format!("{uri}&tls-certificates={directory}")).await.ok();
    let uri: Uri = uri.parse().unwrap();
    let open = async |tls| {
        let config = ClientConfig { tls: Some(tls), ..ClientConfig::default() };
        Client::connect(&uri, config).await.map(drop)
    };
    assert_eq!(open(pki.client("other")).await.unwrap_err().kind(), ErrorKind::NotFound);
    // Another certificate, once it is told.
    pki.issue("server", &pki::server(&["renewed.example"]));
    let renewed = TlsClientConfig { server_name: Some("renewed.example".to_owned()), ..pki.client("client") };
    assert_eq!(open(renewed.clone()).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    signal(&child, "HUP").await;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
    let read_again = async {
        while open(renewed.clone()).await.is_err() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, read_again).await.expect("the certificates are read again");
    signal(&child, "TERM").await;
    finish(child).await.ok();
}

async fn verifies_clients() {
    let (world, pki) = (World::new(), Pki::new());
    world.raw("disk.raw", MIB, 1);
    let (file, directory) = (world.text("disk.raw"), pki.folder().display().to_string());
    for (more, nobody) in [(&[][..], true), (&["--tls-verify-clients"][..], false)] {
        let socket = world.text("serve.sock");
        let args = [&[file.as_str(), "--socket", &socket, "--tls-certificates", &directory], more].concat();
        let (child, uri) = start(&world, &args).await;
        let uri: Uri = uri.parse().unwrap();
        let open = async |tls| {
            let config = ClientConfig { tls: Some(tls), ..ClientConfig::default() };
            Client::connect(&uri, config).await.is_ok()
        };
        assert!(open(pki.client("client")).await, "{more:?}");
        assert_eq!(open(pki.nobody()).await, nobody, "{more:?}");
        signal(&child, "TERM").await;
        finish(child).await.ok();
    }
}

async fn tells_what_is_wrong() {
    let world = World::new();
    let socket = world.text("serve.sock");
    world.run(&["serve", &world.text("missing.raw"), "--socket", &socket]).await.refused(7, &["missing.raw"]);
    assert!(!world.path("serve.sock").exists());
    world.raw("disk.raw", MIB, 1);
    let far = world.text("no/such/folder.sock");
    let ran = world.run(&["serve", &world.text("disk.raw"), "--socket", &far]).await;
    ran.refused(7, &["folder.sock"]);
}
