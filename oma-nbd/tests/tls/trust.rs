//! Whom a client trusts, and that it never goes on in plain text.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oma_core::conformance::{Trial, trial};
use oma_core::traits::{Access, BlockDevice, Durability};
use oma_core::{ErrorKind, Retry};
use oma_nbd::protocol::{
    Greeting, NBD_FLAG_FIXED_NEWSTYLE, NBD_OPT_STARTTLS, NBD_REP_ACK, NBD_REP_ERR_POLICY, NBD_REP_ERR_UNSUP,
    OptionReplyHeader,
};
use oma_nbd::{TlsClientConfig, TlsPolicy, TlsServer, Trust, Uri, UriTls};
use oma_volume::device::FileDevice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::fixture::{Fixture, assert_error, connect};
use crate::pki::{self, Pki};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_uri_says_whom_to_trust", &[], uri_says),
        trial("cve_2024_7383_a_certificate_for_another_host_is_refused", &[], other_host),
        trial("certificates_of_strangers_and_of_another_time_are_refused", &[], bad_servers),
        trial("the_authorities_of_the_system_do_not_know_ours", &[], system_trust),
        trial("files_that_are_missing_or_wrong_are_named", &[], wrong_files),
        trial("cve_2019_14842_a_server_without_tls_is_told_nothing", &[], no_tls),
        trial("cve_2019_14842_a_server_that_goes_on_in_plain_is_left", &[], goes_on_in_plain),
        trial("a_server_that_wants_tls_is_told_apart", &[], tls_wanted),
        trial("a_file_is_read_through_tls_at_any_offset", &[], file_at_any_offset),
        trial("tls_over_tcp_is_the_kernels_where_it_can", &[], tls_of_the_kernel),
        trial("a_connection_that_is_cut_under_tls_fails_what_is_under_way", &[], cut_under_tls),
    ]
}

fn with_tls(uri: Uri, certificates: &std::path::Path, hostname: Option<&str>) -> Uri {
    let hostname = hostname.map(str::to_owned);
    uri.with_tls(UriTls { certificates: Some(certificates.to_owned()), hostname }).unwrap()
}

async fn uri_says() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.mutual().await).await;
    // The directory has client-cert.pem, too.
    for uri in [
        with_tls(fixture.tcp("disk"), pki.folder(), None),
        with_tls(fixture.tcp("disk"), pki.folder(), Some("localhost")),
        with_tls(fixture.unix("disk"), pki.folder(), None),
    ] {
        let uri = Uri::parse(&uri.to_string()).unwrap();
        let client = oma_nbd::Client::connect(&uri, oma_nbd::ClientConfig::default()).await.unwrap();
        assert_eq!(client.read_at(0, BytesMut::from(&[1; 512][..])).await.unwrap()[..], [0; 512]);
        client.close().await;
    }
    // What the URI leaves out, the configuration says.
    let bare = fixture.unix("disk").with_tls(UriTls::default()).unwrap();
    connect(&bare, pki.client("client")).await.unwrap().close().await;
    fixture.close().await;
}

async fn other_host() {
    let pki = Pki::new();
    pki.issue("server", &pki::server(&["server.example"]));
    let fixture = Fixture::new(pki.required().await).await;
    for (uri, name) in [
        (fixture.tcp("disk"), None),
        (fixture.unix("disk"), None),
        (fixture.tcp("disk"), Some("other.example")),
        (fixture.tcp("disk"), Some("example")),
        (fixture.tcp("disk"), Some("sub.server.example")),
    ] {
        let error = connect(&with_tls(uri, pki.folder(), name), pki.nobody()).await.unwrap_err();
        assert_error(&error, ErrorKind::PermissionDenied, "tls-hostname=NAME");
        assert_eq!(error.retry(), Retry::Never);
    }
    let right = with_tls(fixture.tcp("disk"), pki.folder(), Some("server.example"));
    connect(&right, pki.nobody()).await.unwrap();
    fixture.close().await;
}

async fn bad_servers() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let fixture = Fixture::new(stranger.required().await).await;
    let error = connect(&fixture.tcp("disk"), pki.nobody()).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, "authority that is not trusted");
    fixture.close().await;
    for (params, text) in [
        (pki::not_yet(pki::server(&["localhost", "127.0.0.1"])), "clock"),
        (pki::client("localhost"), "serverAuth"),
    ] {
        pki.issue("server", &params);
        let fixture = Fixture::new(pki.required().await).await;
        let error = connect(&fixture.unix("disk"), pki.nobody()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}: {}", error.chain());
        fixture.close().await;
    }
}

async fn system_trust() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.required().await).await;
    let error = connect(&fixture.unix("disk"), TlsClientConfig::default()).await.unwrap_err();
    // A machine without any authorities says so.
    let nothing = error.chain().contains("name a file of authorities instead");
    assert!(nothing || error.chain().contains("authority that is not trusted"), "{}", error.chain());
    fixture.close().await;
}

async fn wrong_files() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.required().await).await;
    let authorities = |name| TlsClientConfig { trust: Trust::Authorities(pki.path(name)), ..pki.nobody() };
    for (tls, kind, text) in [
        (authorities("nothing.pem"), ErrorKind::NotFound, "nothing.pem"),
        (authorities("server-key.pem"), ErrorKind::Invalid, "has no certificate"),
        (pki.client("nothing"), ErrorKind::NotFound, "nothing-cert.pem"),
        (TlsClientConfig { server_name: Some("a b".to_owned()), ..pki.nobody() }, ErrorKind::Invalid, "a b"),
    ] {
        assert_error(&connect(&fixture.tcp("disk"), tls).await.unwrap_err(), kind, text);
    }
    // One half of an identity is a mistake, not nothing.
    std::fs::remove_file(pki.path("client-key.pem")).unwrap();
    let uri = with_tls(fixture.tcp("disk"), pki.folder(), None);
    assert_error(&connect(&uri, pki.nobody()).await.unwrap_err(), ErrorKind::NotFound, "client-key.pem");
    fixture.close().await;
}

/// A server that greets, answers STARTTLS with `reply` and then says `rest`; all that the client said after its flags.
async fn impostor(reply: u32, rest: &'static [u8], tls: TlsClientConfig) -> (oma_core::Error, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&Greeting { flags: NBD_FLAG_FIXED_NEWSTYLE }.encode()).await.unwrap();
        let mut heard = [0; 20];
        stream.read_exact(&mut heard).await.unwrap();
        let header = OptionReplyHeader { option: NBD_OPT_STARTTLS, reply, length: 0 };
        stream.write_all(&[&header.encode(), rest].concat()).await.unwrap();
        let mut said = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut said)).await;
        [&heard[4..], &said].concat()
    });
    let uri = Uri::unix(folder.path().join("socket"), "disk").unwrap();
    let error = connect(&uri, tls).await.unwrap_err();
    (error, serving.await.unwrap())
}

async fn no_tls() {
    let pki = Pki::new();
    let fixture = Fixture::new(TlsPolicy::Off).await;
    for uri in [fixture.tcp("disk"), fixture.unix("disk")] {
        let error = connect(&uri, pki.nobody()).await.unwrap_err();
        assert_error(&error, ErrorKind::Unsupported, "does not offer TLS");
    }
    fixture.close().await;
    for reply in [NBD_REP_ERR_UNSUP, NBD_REP_ERR_POLICY] {
        let (error, said) = impostor(reply, b"", pki.nobody()).await;
        assert_error(&error, ErrorKind::Unsupported, "does not offer TLS");
        // STARTTLS and ABORT, without a name.
        assert_eq!(said.len(), 32);
    }
}

async fn goes_on_in_plain() {
    let pki = Pki::new();
    let plain: [&[u8]; 3] = [
        // What would answer STRUCTURED_REPLY.
        &[0, 3, 0xe8, 0x89, 4, 5, 0x65, 0xa9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0],
        &[0; 64],
        b"-ERR no TLS today, sorry\r\n",
    ];
    for rest in plain {
        let (error, said) = impostor(NBD_REP_ACK, rest, pki.nobody()).await;
        assert_error(&error, ErrorKind::Invalid, "no TLS");
        let records = &said[16..];
        assert_eq!(records[..2], [22, 3], "a first message of TLS");
        assert!(!records.windows(8).any(|window| window == b"IHAVEOPT"));
    }
}

async fn tls_wanted() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.required().await).await;
    for uri in [fixture.tcp("disk"), fixture.unix("disk")] {
        let error = oma_nbd::Client::connect(&uri, oma_nbd::ClientConfig::default()).await.unwrap_err();
        assert_error(&error, ErrorKind::Unsupported, "nbds://");
    }
    let listed = oma_nbd::client::list(&fixture.tcp(""), &oma_nbd::ClientConfig::default()).await;
    assert_error(&listed.unwrap_err(), ErrorKind::Unsupported, "nbds://");
    fixture.close().await;
}

async fn tls_of_the_kernel() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.required().await).await;
    let possible = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    let possible = possible.is_ok_and(|names| names.split_whitespace().any(|name| name == "tls"));
    for (uri, by_kernel) in [(fixture.tcp("disk"), possible), (fixture.unix("disk"), false)] {
        let client = connect(&uri, pki.nobody()).await.unwrap();
        let connection = fixture.served("disk").await;
        assert_eq!(connection.client.ends_with("through TLS of the kernel"), by_kernel, "{connection:?}");
        assert!(by_kernel || connection.client.contains("TLSv1_3"), "{connection:?}");
        client.close().await;
        fixture.left("disk").await;
    }
    fixture.close().await;
}

/// Reads of a file are sealed part by part; others are under way with them.
async fn file_at_any_offset() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.required().await).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (1u32..400_000).flat_map(u32::to_le_bytes).collect();
    let content = &content[..1_536_000];
    std::fs::write(file.path(), content).unwrap();
    let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
    fixture.publish_device("file", Arc::new(device)).await;
    for uri in [fixture.tcp("file"), fixture.unix("file")] {
        let client = connect(&uri, pki.nobody()).await.unwrap();
        let read = async |offset: usize, length: usize| {
            let found = client.read_at(offset.try_into().unwrap(), BytesMut::zeroed(length)).await.unwrap();
            assert!(found == content[offset..offset + length], "{length} bytes at {offset}");
        };
        let lengths = [8193, 16_356, 16_384, 65_535, 65_536, 65_537, 131_072, 700_001, 1 << 20];
        let reads =
            lengths.into_iter().flat_map(|length| [0, 1, 4095, 300_007].map(|offset| (offset, length)));
        let all: Vec<_> = reads.map(|(offset, length)| read(offset, length)).collect();
        futures_util::future::join_all(all).await;
        client.write_at(4096, Bytes::from_static(&[7; 4096]), Durability::Durable).await.unwrap();
        let found = client.read_at(0, BytesMut::zeroed(20_000)).await.unwrap();
        assert!(found[4096..8192] == [7; 4096] && found[..4096] == content[..4096]);
        client
            .write_at(4096, Bytes::copy_from_slice(&content[4096..8192]), Durability::Cached)
            .await
            .unwrap();
        client.close().await;
    }
    fixture.close().await;
}

/// A way to a server that ends without a word once it is told to.
async fn cut_under_tls() {
    let pki = Pki::new();
    let tls: TlsServer = pki.server().await;
    let fixture = Fixture::new(TlsPolicy::Required(tls)).await;
    let way = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(way.path().join("socket")).unwrap();
    let (cut, port) = (tokio_util::sync::CancellationToken::new(), fixture.port);
    let token = cut.clone();
    let passing = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = token.cancelled() => {}
        }
    });
    let uri = Uri::unix(way.path().join("socket"), "disk").unwrap();
    let client = connect(&uri, pki.nobody()).await.unwrap();
    client.read_at(0, BytesMut::zeroed(4096)).await.unwrap();
    cut.cancel();
    passing.await.unwrap();
    let error = client.read_at(0, BytesMut::zeroed(4096)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    drop(client);
    fixture.close().await;
}
