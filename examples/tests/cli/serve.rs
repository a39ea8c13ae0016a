//! `oma serve` and qemu's programs.

use std::process::Stdio;

use oma_core::conformance::{Requirement, Trial, trial};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::world::{MIB, World, finish, signal};

pub(crate) fn trials() -> Vec<Trial> {
    let qemu = [Requirement::Program("qemu-img"), Requirement::Program("qemu-io")];
    vec![
        trial("serve_exports_a_file_until_a_signal", &qemu, exports_a_file),
        trial("serve_read_only_refuses_writes", &qemu, read_only),
        trial("serve_listens_on_tcp", &qemu, listens_on_tcp),
        trial("serve_tells_what_is_wrong", &[], tells_what_is_wrong),
    ]
}

/// Starts it; answers the URI that it prints once clients can connect.
async fn start(world: &World, args: &[&str]) -> (Child, String) {
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
    world.must("qemu-io", &["-f", "raw", "-c", "read -P 0x55 1M 64k", &file]).await;
    signal(&child, "TERM").await;
    finish(child).await.ok();
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
