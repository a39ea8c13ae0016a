//! What foreign servers do to a client: refuse, fail, hang, die and come back.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use oma_core::conformance::{Trial, trial};
use oma_core::traits::{BlockDevice, BlockStatusKind, Durability};
use oma_core::{ByteSize, Error, ErrorKind, Extent, Retry};
use oma_nbd::{Client, ClientConfig, Uri, client};

use crate::fixture::{NBD_SERVER, NBDKIT, Peer, QEMU_IMG, QEMU_IO, QEMU_NBD, config, run, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("errors_of_the_server_fail_the_request_only", &[NBDKIT], errors_fail_the_request_only),
        trial("errors_keep_their_meaning_and_text", &[NBDKIT], errors_keep_their_meaning_and_text),
        trial("many_requests_are_under_way_on_one_connection", &[NBDKIT], many_are_under_way),
        trial(
            "unaligned_requests_are_refused_with_the_block_size",
            &[NBDKIT],
            unaligned_requests_are_refused,
        ),
        trial("a_killed_server_is_unavailable_and_works_again", &[NBDKIT], a_killed_server_comes_back),
        trial("another_export_after_a_restart_is_a_conflict", &[NBDKIT], another_export_is_a_conflict),
        trial("a_flush_does_not_vouch_for_writes_of_a_lost_server", &[NBDKIT], lost_writes_fail_the_flush),
        trial("a_server_that_hangs_is_unavailable_in_time", &[NBDKIT], a_hanging_server_is_unavailable),
        trial("a_read_only_export_stays_read_only", &[NBDKIT], a_read_only_export),
        trial("holes_and_data_of_a_raw_file_are_told_apart", &[QEMU_NBD], holes_of_a_raw_file),
        trial("dirty_bitmaps_of_qcow2_are_read", &[QEMU_NBD, QEMU_IMG, QEMU_IO], dirty_bitmaps),
        trial("exports_are_listed_and_an_unknown_one_names_them", &[NBD_SERVER], exports_are_listed),
        trial("a_server_that_demands_tls_is_named", &[QEMU_NBD], tls_is_demanded),
        trial("where_nobody_listens_is_unavailable", &[], nobody_listens),
    ]
}

fn buffer(length: usize) -> BytesMut {
    BytesMut::zeroed(length)
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).unwrap()
}

#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind, retry: Retry, text: &str) {
    let chain = error.chain();
    assert_eq!((error.kind(), error.retry()), (kind, retry), "{chain}");
    assert!(chain.contains(text), "{chain}");
}

async fn errors_fail_the_request_only() {
    let script = [
        "get_size=echo 1M",
        "pread=case $4 in 0) dd if=/dev/zero count=$3 iflag=count_bytes ;; *) echo EIO broken >&2; exit 1 ;; esac",
    ];
    let peer = Peer::nbdkit(&[&["eval"][..], &script].concat()).await;
    let client = peer.connect().await;
    let error = client.read_at(4096, buffer(4096)).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, Retry::Later, "EIO");
    assert_eq!(client.read_at(0, BytesMut::from(&[7; 4096][..])).await.unwrap(), buffer(4096));
}

async fn errors_keep_their_meaning_and_text() {
    for (error, kind) in [
        ("ENOSPC", ErrorKind::NoSpace),
        ("EPERM", ErrorKind::PermissionDenied),
        ("EINVAL", ErrorKind::Invalid),
        ("ESHUTDOWN", ErrorKind::Unavailable),
    ] {
        let setting = format!("error={error}");
        let peer = Peer::nbdkit(&["--filter=error", "memory", "1M", &setting, "error-rate=1"]).await;
        let client = peer.connect().await;
        let write = client.write_at(0, Bytes::from_static(&[1; 512]), Durability::Cached).await;
        let refused = write.unwrap_err();
        assert_eq!(refused.kind(), kind, "{}", refused.chain());
        assert!(refused.chain().contains(error), "{}", refused.chain());
        assert_eq!(client.read_at(0, buffer(512)).await.unwrap_err().kind(), kind);
        assert_eq!(
            client
                .write_zeroes(extent(0, 512), oma_core::traits::Zeroing::Punch, Durability::Cached)
                .await
                .unwrap_err()
                .kind(),
            kind
        );
    }
}

async fn many_are_under_way() {
    let peer = Peer::nbdkit(&["--filter=delay", "memory", "16M", "rdelay=300ms"]).await;
    let one = ClientConfig { connections: 1, requests_in_flight: 16, ..config() };
    let client = Client::connect(&peer.uri(""), one).await.unwrap();
    let begun = Instant::now();
    let reads = (0..16).map(|n| client.read_at(n << 20, buffer(4096)));
    futures_util::future::try_join_all(reads).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "took {:?}, one after the other 4.8 s",
        begun.elapsed()
    );
}

async fn unaligned_requests_are_refused() {
    let policy = ["blocksize-minimum=4096", "blocksize-preferred=65536", "blocksize-error-policy=error"];
    let peer = Peer::nbdkit(&[&["--filter=blocksize-policy", "memory", "1M"][..], &policy].concat()).await;
    let client = peer.connect().await;
    assert_eq!(client.info().block_sizes.minimum, 4096);
    for error in [
        client.read_at(512, buffer(512)).await.unwrap_err(),
        client.write_at(0, Bytes::from_static(&[0; 512]), Durability::Cached).await.unwrap_err(),
    ] {
        assert_error(&error, ErrorKind::Invalid, Retry::Never, "whole blocks of 4096 bytes");
    }
    client.read_at(4096, buffer(8192)).await.unwrap();
}

async fn a_killed_server_comes_back() {
    let mut peer = Peer::nbdkit(&["--filter=delay", "memory", "1M", "rdelay=60"]).await;
    let client = std::sync::Arc::new(peer.connect().await);
    let reads: Vec<_> = (0..4)
        .map(|n| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move { client.read_at(n * 4096, buffer(4096)).await })
        })
        .collect();
    // Done only when the reads before it were sent: the server takes requests in order.
    client.write_at(0, Bytes::from_static(&[1; 512]), Durability::Durable).await.unwrap();
    peer.kill().await;
    for read in reads {
        let error = read.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unavailable, Retry::Later),
            "{}",
            error.chain()
        );
    }
    let error = client.read_at(0, buffer(512)).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, Retry::Later, "no server could be reached");
    peer.start_nbdkit(&["memory", "1M"]).await;
    client.read_at(0, buffer(512)).await.unwrap();
}

async fn another_export_is_a_conflict() {
    let mut peer = Peer::nbdkit(&["memory", "1M"]).await;
    let client = peer.connect().await;
    client.read_at(0, buffer(512)).await.unwrap();
    peer.kill().await;
    peer.start_nbdkit(&["memory", "2M"]).await;
    // The first request may still meet the old connection.
    let first = client.read_at(0, buffer(512)).await.unwrap_err();
    let error = if first.kind() == ErrorKind::Conflict {
        first
    } else {
        client.read_at(0, buffer(512)).await.unwrap_err()
    };
    assert_error(&error, ErrorKind::Conflict, Retry::Never, "it was 1048576 bytes");
}

async fn lost_writes_fail_the_flush() {
    let mut peer = Peer::nbdkit(&["memory", "1M"]).await;
    let client = peer.connect().await;
    client.write_at(0, Bytes::from_static(&[1; 512]), Durability::Cached).await.unwrap();
    peer.kill().await;
    peer.start_nbdkit(&["memory", "1M"]).await;
    let _ = client.read_at(0, buffer(512)).await;
    client.read_at(0, buffer(512)).await.unwrap();
    let error = client.flush().await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, Retry::Never, "write them again");
    client.write_at(0, Bytes::from_static(&[1; 512]), Durability::Cached).await.unwrap();
    client.flush().await.unwrap();
}

async fn a_hanging_server_is_unavailable() {
    let peer = Peer::nbdkit(&["memory", "1M"]).await;
    let short = Duration::from_millis(200);
    let patient = ClientConfig { request_timeout: short, ..config() };
    let client = Client::connect(&peer.uri(""), patient).await.unwrap();
    peer.freeze();
    let error = client.read_at(0, buffer(512)).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, Retry::Later, "no answer in 200ms");
    let hasty = ClientConfig { connect_timeout: short, ..config() };
    let error = Client::connect(&peer.uri(""), hasty).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, Retry::Later, "handshake in 200ms");
}

async fn a_read_only_export() {
    let peer = Peer::nbdkit(&["--readonly", "memory", "1M"]).await;
    let client = peer.connect().await;
    let error = client.write_at(0, Bytes::from_static(&[0; 512]), Durability::Cached).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, Retry::Never, "reading only");
    client.flush().await.unwrap();
}

async fn holes_of_a_raw_file() {
    let mut peer = Peer::new();
    let image = peer.path("image");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 65536], 1 << 20).unwrap();
    peer.start_qemu_nbd(&["--format=raw", text(&image)]).await;
    let client = peer.connect().await;
    let mut at = 0;
    let mut found = Vec::new();
    while let Some(rest) = Extent::between(at, 8 << 20) {
        let part = client.block_status(rest).await.unwrap();
        at = part.last().unwrap().extent.end();
        found.extend(part);
    }
    let data: Vec<_> = found.iter().filter(|s| s.kind == BlockStatusKind::Data).map(|s| s.extent).collect();
    assert_eq!(data, [extent(1 << 20, 65536)]);
    assert!(found.iter().all(|status| status.kind == BlockStatusKind::Data || status.kind.reads_zero()));
}

async fn dirty_bitmaps() {
    let mut peer = Peer::new();
    let path = peer.path("image");
    let image = text(&path);
    run("qemu-img", &["create", "-f", "qcow2", image, "64M"]).await;
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 1M", image]).await;
    run("qemu-img", &["bitmap", "--add", image, "b0"]).await;
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 2 4M 64k", "-c", "write -P 3 63M 1M", image]).await;
    peer.start_qemu_nbd(&["--format=qcow2", "-B", "b0", image]).await;
    let contexts = client::list_contexts(&peer.uri(""), "qemu:", &config()).await.unwrap();
    assert_eq!(contexts, ["qemu:dirty-bitmap:b0"]);
    let wanted = vec!["qemu:dirty-bitmap:b0".to_owned(), "qemu:dirty-bitmap:none".to_owned()];
    let client = Client::connect(&peer.uri(""), ClientConfig { contexts: wanted, ..config() }).await.unwrap();
    assert!(client.has_context("qemu:dirty-bitmap:b0") && !client.has_context("qemu:dirty-bitmap:none"));
    let dirty = client.dirty_extents("b0", extent(0, 64 << 20)).await.unwrap();
    assert_eq!(dirty.iter().collect::<Vec<_>>(), [extent(4 << 20, 65536), extent(63 << 20, 1 << 20)]);
    let inside = client.dirty_extents("b0", extent((4 << 20) + 512, 1024)).await.unwrap();
    assert_eq!(inside.bytes(), ByteSize::kib(1), "the last extent is clipped to what was asked");
    let error = client.dirty_extents("none", extent(0, 512)).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, Retry::Never, "qemu:dirty-bitmap:none");
    let read = client.read_at(4 << 20, buffer(4096)).await.unwrap();
    assert_eq!(read, BytesMut::from(&[2; 4096][..]));
}

async fn exports_are_listed() {
    let mut peer = Peer::new();
    let image = peer.path("image");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let export = |name: &str| format!("[{name}]\nexportname = {}\n", image.display());
    peer.start_nbd_server("allowlist = true\n", &(export("one") + &export("two"))).await;
    let mut listed: Vec<_> =
        client::list(&peer.uri(""), &config()).await.unwrap().into_iter().map(|export| export.name).collect();
    listed.sort();
    assert_eq!(listed, ["one", "two"]);
    let error = Client::connect(&peer.uri("three"), config()).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, Retry::Never, "no export \"three\"; it offers");
    assert!(error.chain().contains("\"one\""), "{}", error.chain());
    peer.kill().await;
    peer.start_nbd_server("", &export("one")).await;
    let error = Client::connect(&peer.uri("three"), config()).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, Retry::Never, "does not tell which it has");
    let error = client::list(&peer.uri(""), &config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
}

async fn tls_is_demanded() {
    let mut peer = Peer::new();
    let keys = peer.path("keys.psk");
    std::fs::write(&keys, "qemu:0123456789abcdef0123456789abcdef\n").unwrap();
    let image = peer.path("image");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let folder = keys.parent().unwrap();
    let secret = format!("tls-creds-psk,id=t,endpoint=server,dir={}", text(folder));
    peer.start_qemu_nbd(&["--object", &secret, "--tls-creds=t", "--format=raw", text(&image)]).await;
    let error = Client::connect(&peer.uri(""), config()).await.unwrap_err();
    assert_error(&error, ErrorKind::Unsupported, Retry::Never, "demands TLS");
}

async fn nobody_listens() {
    let peer = Peer::new();
    let error = Client::connect(&peer.uri(""), config()).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, Retry::Later, "no server could be reached; start it");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = Client::connect(&Uri::tcp("127.0.0.1", free, "").unwrap(), config()).await.unwrap_err();
    assert_error(&refused, ErrorKind::Unavailable, Retry::Later, "refused");
}
