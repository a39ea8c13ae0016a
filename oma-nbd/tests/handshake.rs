//! The handshake against clients that are wrong, hostile or gone.
#![cfg(feature = "server")]

mod raw;

use std::sync::Arc;
use std::time::Duration;

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, ExportServer};
use oma_core::{ByteSize, ErrorKind};
use oma_nbd::protocol::*;
use oma_nbd::{Server, ServerConfig};
use raw::{Raw, Reply, name, request, spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SIZE: ByteSize = ByteSize::mib(1);

async fn server() -> Server {
    raw::server(ServerConfig::default(), Arc::new(MemoryDevice::new("m", SIZE))).await
}

/// A client still gets all it asks for: the server is well.
async fn is_well(server: &Server) {
    let mut raw = Raw::simple(server).await;
    assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 512), &[]).await, Reply::Data(vec![0; 512]));
}

fn info(name: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    InfoRequest { name, wanted: vec![NBD_INFO_NAME, NBD_INFO_DESCRIPTION] }.encode(&mut payload);
    payload
}

#[tokio::test]
async fn cve_2011_1925_a_client_that_vanishes_at_any_byte_leaves_the_server_well() {
    let server = server().await;
    let mut whole = 3u32.to_be_bytes().to_vec();
    for (option, payload) in
        [(NBD_OPT_LIST, vec![]), (NBD_OPT_STRUCTURED_REPLY, vec![]), (NBD_OPT_GO, info("disk"))]
    {
        whole.extend(OptionHeader { option, length: payload.len().try_into().unwrap() }.encode());
        whole.extend(payload);
    }
    whole.extend(request(NBD_CMD_READ, 0, 4096).encode());
    for length in 0..=whole.len() {
        let mut raw = Raw::open(&server, 1 << 16);
        raw.say(&whole[..length]).await;
        drop(raw.stream);
        let _ = tokio::time::timeout(raw::SOON, raw.served).await.expect("the connection ends").unwrap();
    }
    let statistics = server.statistics(&name("disk")).await.unwrap().unwrap();
    assert_eq!(statistics.connections, 0);
    is_well(&server).await;
}

#[tokio::test]
async fn a_client_that_speaks_http_is_disconnected() {
    let server = server().await;
    let mut raw = Raw::open(&server, 1 << 16);
    raw.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    let mut raw = Raw::greeted(&server).await;
    raw.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    is_well(&server).await;
}

#[tokio::test]
async fn unknown_client_flags_are_disconnected() {
    let server = server().await;
    let mut raw = Raw::open(&server, 1 << 16);
    raw.say(&7u32.to_be_bytes()).await;
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn unknown_options_are_refused_and_the_next_is_heard() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    for option in [NBD_OPT_STARTTLS, 4, 0, 0xffff_ffff] {
        for payload in [&b""[..], b"with a payload"] {
            assert_eq!(raw.option(option, payload).await.last().unwrap().0, NBD_REP_ERR_UNSUP);
        }
    }
    raw.go("disk").await;
}

#[tokio::test]
async fn options_longer_than_needed_are_skipped_and_huge_ones_disconnected() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    let long = vec![0xff; 100_000];
    for option in [NBD_OPT_GO, NBD_OPT_LIST, NBD_OPT_SET_META_CONTEXT, 77] {
        assert_eq!(raw.option(option, &long).await.last().unwrap().0, NBD_REP_ERR_TOO_BIG);
    }
    raw.say(&OptionHeader { option: NBD_OPT_GO, length: 0xffff_ffff }.encode()).await;
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn cve_2022_26495_names_that_lie_or_are_no_text_are_refused() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    let longest = "x".repeat(MAX_STRING);
    for (name, reply) in
        [(longest.as_str(), NBD_REP_ERR_UNKNOWN), ("", NBD_REP_ERR_UNKNOWN), ("a\0b", NBD_REP_ERR_UNKNOWN)]
    {
        for option in [NBD_OPT_INFO, NBD_OPT_GO] {
            let replies = raw.option(option, &info(name)).await;
            assert_eq!(replies.last().unwrap().0, reply, "{name:?}");
            assert!(replies[0].1.len() < 100, "the name is not repeated");
        }
    }
    let mut no_text = info("ab");
    no_text[4..6].copy_from_slice(&[0xff, 0xfe]);
    let mut lying = info("ab");
    lying[..4].copy_from_slice(&0xffff_ffff_u32.to_be_bytes());
    for payload in [no_text, lying, info(&"x".repeat(MAX_STRING + 1)), vec![], info("disk")[..7].to_vec()] {
        assert_eq!(raw.option(NBD_OPT_GO, &payload).await.last().unwrap().0, NBD_REP_ERR_INVALID);
        assert_eq!(
            raw.option(NBD_OPT_LIST_META_CONTEXT, &payload).await.last().unwrap().0,
            NBD_REP_ERR_INVALID
        );
    }
    raw.go("disk").await;
}

#[tokio::test]
async fn metadata_contexts_need_structured_replies_first() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    let mut payload = Vec::new();
    MetaContextRequest { name: "disk", queries: vec![BASE_ALLOCATION] }.encode(&mut payload);
    for option in [NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT] {
        assert_eq!(raw.option(option, &payload).await[0].0, NBD_REP_ERR_INVALID);
    }
    raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await;
    for option in [NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT] {
        let replies = raw.option(option, &payload).await;
        assert_eq!((replies[0].0, replies[1].0, replies.len()), (NBD_REP_META_CONTEXT, NBD_REP_ACK, 2));
    }
}

#[tokio::test]
async fn a_list_of_contexts_knows_wildcards_and_a_choice_does_not() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await;
    for (query, listed) in [("base:", 1), ("base:allocation", 1), ("qemu:", 0), ("base", 0), ("", 0)] {
        let mut payload = Vec::new();
        MetaContextRequest { name: "disk", queries: vec![query] }.encode(&mut payload);
        let replies = raw.option(NBD_OPT_LIST_META_CONTEXT, &payload).await;
        assert_eq!(replies.len(), listed + 1, "{query:?}");
        let chosen = usize::from(query == BASE_ALLOCATION);
        assert_eq!(raw.option(NBD_OPT_SET_META_CONTEXT, &payload).await.len(), chosen + 1, "{query:?}");
    }
}

#[tokio::test]
async fn an_export_that_is_not_listed_is_opened_by_its_name() {
    let server = server().await;
    let device = Arc::new(MemoryDevice::new("o", SIZE));
    server.unlisted().publish(spec("secret", Access::ReadWrite, device)).await.unwrap();
    let mut raw = Raw::greeted(&server).await;
    let listed = raw.option(NBD_OPT_LIST, &[]).await;
    assert_eq!(listed.len(), 2, "the other one, and the end");
    assert!(!listed.iter().any(|(_, text)| text.windows(6).any(|part| part == b"secret")));
    raw.go("secret").await;
    assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 512), &[]).await, Reply::Data(vec![0; 512]));
    // Whoever serves it sees both.
    assert_eq!(futures_util::StreamExt::count(server.list()).await, 2);
}

#[tokio::test]
async fn contexts_chosen_for_another_export_are_void() {
    let server = server().await;
    server.publish(spec("other", Access::ReadWrite, Arc::new(MemoryDevice::new("o", SIZE)))).await.unwrap();
    let mut raw = Raw::greeted(&server).await;
    raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await;
    let mut payload = Vec::new();
    MetaContextRequest { name: "disk", queries: vec![BASE_ALLOCATION] }.encode(&mut payload);
    raw.option(NBD_OPT_SET_META_CONTEXT, &payload).await;
    raw.go("other").await;
    let status = raw.ask(request(NBD_CMD_BLOCK_STATUS, 0, 4096), &[]).await;
    assert_eq!(status, Reply::Error(NBD_EINVAL));
}

#[tokio::test]
async fn export_name_answers_with_zeroes_unless_both_leave_them_out() {
    let server = server().await;
    for (flags, zeroes) in [(3u32, 0), (1, ExportNameReply::ZEROES), (0, ExportNameReply::ZEROES)] {
        let mut raw = Raw::open(&server, 1 << 16);
        raw.receive::<{ Greeting::SIZE }>().await;
        raw.say(&flags.to_be_bytes()).await;
        assert_eq!(raw.export_name("disk").await.size, SIZE.bytes());
        let mut rest = vec![0xff; zeroes];
        raw.stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(rest, vec![0; zeroes]);
        assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 512), &[]).await, Reply::Data(vec![0; 512]));
    }
}

#[tokio::test]
async fn cve_2013_7441_export_name_of_nothing_disconnects_only_that_client() {
    let server = server().await;
    let mut other = Raw::simple(&server).await;
    for name in [&b"nothing"[..], b"", &[0xff; 300], &[b'x'; 5000]] {
        let mut raw = Raw::greeted(&server).await;
        raw.say(
            &OptionHeader { option: NBD_OPT_EXPORT_NAME, length: name.len().try_into().unwrap() }.encode(),
        )
        .await;
        raw.say(name).await;
        assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(other.ask(request(NBD_CMD_READ, 0, 512), &[]).await, Reply::Data(vec![0; 512]));
}

#[tokio::test]
async fn abort_is_answered_and_ends_in_peace() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    assert_eq!(raw.option(NBD_OPT_ABORT, &[]).await, [(NBD_REP_ACK, vec![])]);
    raw.closed().await.unwrap();
}

#[tokio::test]
async fn too_many_options_end_the_handshake() {
    let config = ServerConfig { max_options: 3, ..ServerConfig::default() };
    let server = raw::server(config, Arc::new(MemoryDevice::new("m", SIZE))).await;
    let mut raw = Raw::greeted(&server).await;
    for _ in 0..3 {
        raw.option(NBD_OPT_LIST, &[]).await;
    }
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn cve_2024_7409_a_client_that_never_negotiates_is_disconnected() {
    let server = server().await;
    let raw = Raw::open(&server, 1 << 16);
    let mut dripping = Raw::open(&server, 1 << 16);
    dripping.say(&3u32.to_be_bytes()).await;
    let error = raw.served.await.unwrap().unwrap_err();
    assert!(error.chain().contains("longer than allowed"), "{}", error.chain());
    assert_eq!(dripping.served.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let config = ServerConfig { max_connections: 2, ..ServerConfig::default() };
    let server = raw::server(config, Arc::new(MemoryDevice::new("m", SIZE))).await;
    let first = Raw::simple(&server).await;
    let _second = Raw::simple(&server).await;
    let third = Raw::open(&server, 1 << 16);
    assert_eq!(third.closed().await.unwrap_err().kind(), ErrorKind::Busy);
    drop(first.stream);
    first.served.await.unwrap().unwrap();
    is_well(&server).await;
}

#[tokio::test]
async fn an_empty_name_means_the_default_export() {
    let config = ServerConfig { default_export: Some(name("disk")), ..ServerConfig::default() };
    let server = raw::server(config, Arc::new(MemoryDevice::new("m", SIZE))).await;
    Raw::greeted(&server).await.go("").await;
}

#[tokio::test]
async fn cve_2019_14850_an_export_is_opened_at_go_and_not_before() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    raw.option(NBD_OPT_INFO, &info("disk")).await;
    let connections = || async { server.statistics(&name("disk")).await.unwrap().unwrap().connections };
    assert_eq!(connections().await, 0);
    raw.go("disk").await;
    assert_eq!(connections().await, 1);
    raw.stream.shutdown().await.unwrap();
    raw.closed().await.unwrap();
    assert_eq!(connections().await, 0);
}

#[tokio::test]
async fn cve_2024_7409_hundreds_of_idle_clients_do_not_keep_a_listener_from_shutting_down() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (other, token) = (server.clone(), shutdown.clone());
    let serving = tokio::spawn(async move { other.serve_unix(listener, token).await });
    let mut idle = Vec::new();
    for _ in 0..400 {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.read_exact(&mut [0; Greeting::SIZE]).await.unwrap();
        idle.push(stream);
    }
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(3), serving).await.expect("the listener ends").unwrap();
}
