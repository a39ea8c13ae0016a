//! Foreign programs, each way.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oma_core::conformance::{
    DEVICE_CAPACITY, DeviceSubject, Requirement, Trial, block_device_cases, cases_needing, trial,
};
use oma_core::memory::MemoryDevice;
use oma_core::traits::{BlockDevice, Durability};
use oma_core::{ByteSize, ErrorKind};
use oma_nbd::{Client, Uri};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::fixture::{Fixture, SIZE, assert_error, connect, named};
use crate::pki::{self, Pki};

const NBDINFO: &[Requirement] = &[Requirement::Program("nbdinfo")];
const NBDCOPY: &[Requirement] = &[Requirement::Program("nbdcopy")];
const QEMU_IMG: &[Requirement] = &[Requirement::Program("qemu-img")];
const NBDKIT: &[Requirement] = &[Requirement::Program("nbdkit")];
const QEMU_NBD: &[Requirement] = &[Requirement::Program("qemu-nbd")];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("nbdinfo_sees_an_export_through_tls", NBDINFO, nbdinfo_sees),
        trial("nbdinfo_is_refused_without_a_good_certificate", NBDINFO, nbdinfo_is_refused),
        trial("nbdinfo_lists_what_its_certificate_may_open", NBDINFO, nbdinfo_lists),
        trial("nbdcopy_reads_and_writes_the_same_bytes_through_tls", NBDCOPY, nbdcopy_both_ways),
        trial("qemu_img_compares_equal_and_writes_through_tls", QEMU_IMG, qemu_img_both_ways),
        trial("nbdkit_demands_tls_and_a_certificate_of_us", NBDKIT, nbdkit_demands),
        trial("cve_2024_7383_nbdkit_for_another_host_or_out_of_date_is_refused", NBDKIT, nbdkit_is_refused),
        trial("qemu_nbd_serves_us_through_tls", QEMU_NBD, qemu_nbd_serves),
    ];
    trials.extend(cases_needing("nbdkit_through_tls", NBDKIT, &block_device_cases(), nbdkit_device));
    trials
}

async fn outcome(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).kill_on_drop(true).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.success())
}

async fn run(program: &str, arguments: &[&str]) -> String {
    let (said, well) = outcome(program, arguments).await;
    assert!(well, "{program} {arguments:?} failed:\n{said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bytes that repeat after a prime number.
fn content() -> Vec<u8> {
    let size = usize::try_from(SIZE.bytes()).unwrap();
    (1..=251).cycle().take(size).collect()
}

async fn filled(fixture: &Fixture) -> Vec<u8> {
    fixture.device.write_at(0, content().into(), Durability::Cached).await.unwrap();
    content()
}

async fn nbdinfo_sees() {
    let pki = Pki::new();
    for policy in [pki.required().await, pki.mutual().await] {
        let fixture = Fixture::new(policy).await;
        let uri = fixture.foreign("disk", pki.folder());
        assert_eq!(run("nbdinfo", &["--size", &uri]).await.trim(), SIZE.bytes().to_string());
        let said = run("nbdinfo", &["--json", &uri]).await;
        for part in ["\"TLS\": true", "\"structured\": true", "\"can_multi_conn\": true"] {
            assert!(said.contains(part), "no {part} in {said}");
        }
        fixture.close().await;
    }
}

async fn nbdinfo_is_refused() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let fixture = Fixture::new(pki.mutual().await).await;
    let plain = fixture.unix("disk").to_string();
    let (said, well) = outcome("nbdinfo", &["--size", &plain]).await;
    assert!(!well && said.contains("TLS"), "{said}");
    // A client of another authority that trusts ours.
    std::fs::copy(pki.path("ca-cert.pem"), stranger.path("ca-cert.pem")).unwrap();
    let (said, well) = outcome("nbdinfo", &["--size", &fixture.foreign("disk", stranger.folder())]).await;
    assert!(!well, "{said}");
    // A client without a certificate.
    std::fs::remove_file(stranger.path("client-cert.pem")).unwrap();
    std::fs::remove_file(stranger.path("client-key.pem")).unwrap();
    let (said, well) = outcome("nbdinfo", &["--size", &fixture.foreign("disk", stranger.folder())]).await;
    assert!(!well, "{said}");
    fixture.close().await;
}

async fn nbdinfo_lists() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.mutual().await).await;
    fixture.publish("ours", MemoryDevice::new("ours", SIZE), named(&["dns:agent.example"])).await;
    fixture.publish("theirs", MemoryDevice::new("theirs", SIZE), named(&["cn:another"])).await;
    let said = run("nbdinfo", &["--list", "--json", &fixture.foreign("", pki.folder())]).await;
    assert!(said.contains("\"export-name\": \"ours\"") && !said.contains("theirs"), "{said}");
    fixture.close().await;
}

async fn nbdcopy_both_ways() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.mutual().await).await;
    let uri = fixture.foreign("disk", pki.folder());
    let expected = filled(&fixture).await;
    let copy = fixture.folder.path().join("copy");
    for extra in ["--connections=4", "--synchronous", "--request-size=1048576"] {
        run("nbdcopy", &[extra, &uri, text(&copy)]).await;
        assert!(std::fs::read(&copy).unwrap() == expected, "{extra}");
    }
    let other: Vec<u8> = expected.iter().rev().copied().collect();
    std::fs::write(&copy, &other).unwrap();
    run("nbdcopy", &["--flush", text(&copy), &uri]).await;
    assert!(fixture.device.bytes() == other);
    fixture.close().await;
}

async fn qemu_img_both_ways() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.mutual().await).await;
    let image = fixture.folder.path().join("image");
    std::fs::write(&image, filled(&fixture).await).unwrap();
    let credentials = format!("tls-creds-x509,id=t,endpoint=client,dir={}", text(pki.folder()));
    let socket = fixture.folder.path().join("socket");
    let export = format!("driver=nbd,path={},export=disk,tls-creds=t,tls-hostname=localhost", text(&socket));
    let file = format!("driver=raw,file.driver=file,file.filename={}", text(&image));
    let compare = ["compare", "--object", &credentials, "--image-opts", &file, &export];
    assert!(run("qemu-img", &compare).await.contains("identical"));
    let other: Vec<u8> = content().into_iter().rev().collect();
    std::fs::write(&image, &other).unwrap();
    let convert =
        ["convert", "--object", &credentials, "-n", "--image-opts", "--target-image-opts", &file, &export];
    run("qemu-img", &convert).await;
    assert!(fixture.device.bytes() == other);
    fixture.close().await;
}

/// A server that listens on a socket in its own folder.
struct Peer {
    folder: TempDir,
    _server: Child,
}

impl Peer {
    async fn start(program: &str, listen: &[&str], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let mut command = Command::new(program);
        command.args(listen).arg(&socket).args(arguments).kill_on_drop(true).stdin(Stdio::null());
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let begin = std::time::Instant::now();
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            assert!(server.try_wait().unwrap().is_none(), "{program} {arguments:?} ended");
            assert!(begin.elapsed() < Duration::from_secs(20), "{program} does not listen");
            tick.tick().await;
        }
        Self { folder, _server: server }
    }

    async fn nbdkit(pki: &Pki, arguments: &[&str]) -> Self {
        let certificates = format!("--tls-certificates={}", text(pki.folder()));
        let own = ["--foreground", "--tls=require", &certificates];
        Self::start("nbdkit", &["--unix"], &[&own, arguments].concat()).await
    }

    fn uri(&self) -> Uri {
        Uri::unix(self.folder.path().join("socket"), "").unwrap()
    }
}

async fn works(uri: &Uri, pki: &Pki) {
    carries(connect(uri, pki.client("client")).await.unwrap()).await;
}

/// Writes some and reads it back.
pub(crate) async fn carries(client: Client) {
    let data = Bytes::from(content()).slice(..(3 << 20) + 512);
    client.write_at(512, data.clone(), Durability::Durable).await.unwrap();
    let length = data.len();
    assert!(client.read_at(512, BytesMut::zeroed(length)).await.unwrap() == data);
    client.close().await;
}

async fn nbdkit_demands() {
    let pki = Pki::new();
    let peer = Peer::nbdkit(&pki, &["--tls-verify-peer", "memory", "size=8M"]).await;
    works(&peer.uri(), &pki).await;
    let error = Client::connect(&peer.uri(), oma_nbd::ClientConfig::default()).await.unwrap_err();
    assert_error(&error, ErrorKind::Unsupported, "nbds://");
    let error = connect(&peer.uri(), pki.nobody()).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unavailable),
        "{}",
        error.chain()
    );
}

async fn nbdkit_is_refused() {
    let pki = Pki::new();
    pki.issue("server", &pki::server(&["other.example"]));
    let peer = Peer::nbdkit(&pki, &["memory", "size=8M"]).await;
    let error = connect(&peer.uri(), pki.nobody()).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, "tls-hostname=NAME");
    pki.issue("server", &pki::expired(pki::server(&["localhost"])));
    let peer = Peer::nbdkit(&pki, &["memory", "size=8M"]).await;
    let error = connect(&peer.uri(), pki.nobody()).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, "renew it");
}

async fn qemu_nbd_serves() {
    let pki = Pki::new();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(ByteSize::mib(8).bytes()).unwrap();
    let credentials =
        format!("tls-creds-x509,id=t,endpoint=server,dir={},verify-peer=on", text(pki.folder()));
    let own = ["--object", &credentials, "--tls-creds", "t", "-x", "", "--persistent", "--shared=8"];
    let file = ["-f", "raw", text(image.path())];
    let peer = Peer::start("qemu-nbd", &["--socket"], &[&own[..], &file].concat()).await;
    works(&peer.uri(), &pki).await;
}

async fn nbdkit_device() -> DeviceSubject {
    let pki = Pki::new();
    let size = format!("size={}", DEVICE_CAPACITY.bytes());
    let peer = Peer::nbdkit(&pki, &["--tls-verify-peer", "memory", &size]).await;
    let client = connect(&peer.uri(), pki.client("client")).await.unwrap();
    DeviceSubject { device: Arc::new(client), guard: Box::new((peer, pki)) }
}
