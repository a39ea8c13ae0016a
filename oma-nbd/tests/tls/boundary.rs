//! Where plain text ends and TLS begins.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oma_core::conformance::{Trial, trial};
use oma_core::memory::MemoryDevice;
use oma_core::traits::ExportServer;
use oma_core::{Error, ErrorKind, ExportName};
use oma_nbd::protocol::*;
use oma_nbd::{Server, ServerConfig, TlsPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fixture::{SIZE, assert_error, spec};
use crate::pki::Pki;
use crate::talk::{Secure, answer, ask, go, greet, header, info, open, secure};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cve_2021_3716_what_was_agreed_in_plain_is_forgotten", &[], agreed_in_plain),
        trial("cve_2021_3716_plain_bytes_behind_starttls_are_never_interpreted", &[], plain_behind_starttls),
        trial("every_option_before_required_tls_is_refused", &[], every_option_is_refused),
        trial("export_name_before_required_tls_disconnects", &[], export_name_disconnects),
        trial("abort_is_answered_before_required_tls", &[], abort_is_answered),
        trial("starttls_is_refused_with_a_payload_and_twice", &[], starttls_is_refused),
        trial("optional_tls_serves_with_and_without", &[], optional_serves_both),
        trial("a_client_that_vanishes_at_any_byte_of_tls_leaves_the_server_well", &[], vanishing_clients),
        trial("a_dripped_tls_handshake_ends_at_the_timeout", &[], dripped_handshake),
        trial("an_endless_handshake_message_is_not_gathered", &[], endless_handshake),
        trial("cve_2019_14850_an_export_is_opened_inside_tls_only", &[], opened_inside_only),
        trial("a_connection_cut_without_a_goodbye_is_no_peaceful_end", &[], cut_without_goodbye),
        trial("changed_ciphertext_ends_the_connection_and_nothing_of_it_lands", &[], changed_ciphertext),
    ]
}

async fn server(policy: TlsPolicy) -> (Server, MemoryDevice) {
    let device = MemoryDevice::new("disk", SIZE);
    let server = Server::new(ServerConfig::default()).with_tls(policy);
    server.publish(spec("disk", device.clone())).await.unwrap();
    (server, device)
}

/// Runs a client that blocks, with a connection of its own; what it returned, and how the connection ended.
async fn client<R: Send + 'static>(
    server: &Server,
    say: impl FnOnce(UnixStream) -> R + Send + 'static,
) -> (R, Result<(), Error>) {
    let (stream, served) = open(server);
    let said = tokio::task::spawn_blocking(move || say(stream)).await.unwrap();
    (said, served.await.unwrap())
}

fn started(mut stream: UnixStream, pki: &Pki) -> Secure {
    greet(&mut stream);
    assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, &[]), NBD_REP_ACK);
    secure(stream, pki)
}

fn contexts() -> Vec<u8> {
    let mut payload = Vec::new();
    MetaContextRequest { name: "disk", queries: vec![BASE_ALLOCATION] }.encode(&mut payload);
    payload
}

async fn agreed_in_plain() {
    let pki = Pki::new();
    let (server, _) = server(TlsPolicy::Optional(pki.server().await)).await;
    let (_, ended) = client(&server, move |mut stream| {
        greet(&mut stream);
        assert_eq!(answer(&mut stream, NBD_OPT_STRUCTURED_REPLY, &[]), NBD_REP_ACK);
        assert_eq!(answer(&mut stream, NBD_OPT_SET_META_CONTEXT, &contexts()), NBD_REP_ACK);
        assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, &[]), NBD_REP_ACK);
        let mut stream = secure(stream, &pki);
        // Structured replies would have to be agreed on first, if they were not still agreed on.
        assert_eq!(answer(&mut stream, NBD_OPT_SET_META_CONTEXT, &contexts()), NBD_REP_ERR_INVALID);
        go(&mut stream, "disk");
        let read = Request { flags: 0, command: NBD_CMD_READ, cookie: 9, offset: 0, length: 512 };
        stream.write_all(&read.encode()).unwrap();
        let mut reply = [0; SimpleReply::SIZE + 512];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..4], SimpleReply { error: 0, cookie: 9 }.encode()[..4]);
        let leave = Request { command: NBD_CMD_DISC, ..read };
        stream.write_all(&leave.encode()).unwrap();
        // The end is told, not only cut.
        assert_eq!(stream.read(&mut reply).unwrap(), 0);
    })
    .await;
    ended.unwrap();
}

async fn plain_behind_starttls() {
    let pki = Pki::new();
    let read = Request { flags: 0, command: NBD_CMD_READ, cookie: 9, offset: 0, length: 512 }.encode();
    let behind = [
        header(NBD_OPT_STRUCTURED_REPLY, &[]),
        header(NBD_OPT_LIST, &[]),
        [header(NBD_OPT_GO, &info("disk")), read.to_vec()].concat(),
        header(NBD_OPT_EXPORT_NAME, b"disk"),
        vec![0; 100],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for policy in [TlsPolicy::Optional(pki.server().await), pki.required().await] {
        let (server, _) = server(policy).await;
        for bytes in behind.clone() {
            let (rest, ended) = client(&server, move |mut stream| {
                greet(&mut stream);
                stream.write_all(&[header(NBD_OPT_STARTTLS, &[]), bytes].concat()).unwrap();
                let mut rest = Vec::new();
                // The server may cut it with something unread.
                let _ = stream.read_to_end(&mut rest);
                rest
            })
            .await;
            let (acknowledged, rest) = rest.split_at(OptionReplyHeader::SIZE);
            let acknowledged = OptionReplyHeader::decode(acknowledged.try_into().unwrap()).unwrap();
            assert_eq!((acknowledged.option, acknowledged.reply), (NBD_OPT_STARTTLS, NBD_REP_ACK));
            // An alert at most: 5 bytes of header, 2 of alert.
            assert!(rest.is_empty() || (rest[0] == 21 && rest.len() == 7), "{rest:?}");
            assert_error(&ended.unwrap_err(), ErrorKind::Invalid, "no TLS");
        }
    }
}

async fn every_option_is_refused() {
    let pki = Pki::new();
    let (server, _) = server(pki.required().await).await;
    let (size, ended) = client(&server, move |mut stream| {
        greet(&mut stream);
        for option in [
            NBD_OPT_LIST,
            NBD_OPT_INFO,
            NBD_OPT_GO,
            NBD_OPT_STRUCTURED_REPLY,
            NBD_OPT_EXTENDED_HEADERS,
            NBD_OPT_LIST_META_CONTEXT,
            NBD_OPT_SET_META_CONTEXT,
            4,
            77,
            u32::MAX,
        ] {
            for payload in [vec![], info("disk"), contexts(), vec![1; 100_000]] {
                assert_eq!(answer(&mut stream, option, &payload), NBD_REP_ERR_TLS_REQD, "{option}");
            }
            // Nothing is told but this.
            let said = ask(&mut stream, option, &info("disk")).pop().unwrap().1;
            assert_eq!(said, b"TLS must be started first");
        }
        assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, &[]), NBD_REP_ACK);
        let mut stream = secure(stream, &pki);
        assert_eq!(ask(&mut stream, NBD_OPT_LIST, &[]).len(), 2);
        go(&mut stream, "disk")
    })
    .await;
    assert_eq!(size, SIZE.bytes());
    assert_error(&ended.unwrap_err(), ErrorKind::Unavailable, "failed");
}

async fn export_name_disconnects() {
    let pki = Pki::new();
    let (server, _) = server(pki.required().await).await;
    let (rest, ended) = client(&server, |mut stream| {
        greet(&mut stream);
        stream.write_all(&header(NBD_OPT_EXPORT_NAME, b"disk")).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        rest
    })
    .await;
    assert!(rest.is_empty());
    assert_error(&ended.unwrap_err(), ErrorKind::PermissionDenied, "before TLS");
}

async fn abort_is_answered() {
    let pki = Pki::new();
    let (server, _) = server(pki.required().await).await;
    let (reply, ended) = client(&server, |mut stream| {
        greet(&mut stream);
        answer(&mut stream, NBD_OPT_ABORT, &[])
    })
    .await;
    assert_eq!(reply, NBD_REP_ACK);
    ended.unwrap();
    let (reply, ended) =
        client(&server, move |stream| answer(&mut started(stream, &pki), NBD_OPT_ABORT, &[])).await;
    assert_eq!(reply, NBD_REP_ACK);
    ended.unwrap();
}

async fn starttls_is_refused() {
    let pki = Pki::new();
    let (server, _) = server(TlsPolicy::Optional(pki.server().await)).await;
    let (_, ended) = client(&server, move |mut stream| {
        greet(&mut stream);
        assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, b"x"), NBD_REP_ERR_INVALID);
        assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, &[0; 70_000]), NBD_REP_ERR_TOO_BIG);
        assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, &[]), NBD_REP_ACK);
        let mut stream = secure(stream, &pki);
        assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, &[]), NBD_REP_ERR_INVALID);
        assert_eq!(answer(&mut stream, NBD_OPT_ABORT, &[]), NBD_REP_ACK);
    })
    .await;
    ended.unwrap();
}

async fn optional_serves_both() {
    let pki = Pki::new();
    let (server, _) = server(TlsPolicy::Optional(pki.server().await)).await;
    let (size, _) = client(&server, |mut stream| {
        greet(&mut stream);
        go(&mut stream, "disk")
    })
    .await;
    assert_eq!(size, SIZE.bytes());
    let (size, _) = client(&server, move |stream| go(&mut started(stream, &pki), "disk")).await;
    assert_eq!(size, SIZE.bytes());
}

/// The first bytes of a client that starts TLS: flags, the option, and its first message.
fn hello(pki: &Pki) -> Vec<u8> {
    let (unused, _) = UnixStream::pair().unwrap();
    let mut whole = [3u32.to_be_bytes().to_vec(), header(NBD_OPT_STARTTLS, &[])].concat();
    secure(unused, pki).conn.write_tls(&mut whole).unwrap();
    whole
}

async fn vanishing_clients() {
    let pki = Pki::new();
    let (server, _) = server(pki.required().await).await;
    let whole = hello(&pki);
    for length in 0..=whole.len() {
        let (near, far) = duplex(1 << 16);
        let (other, token) = (server.clone(), CancellationToken::new());
        let served = tokio::spawn(async move { other.serve_stream(far, token).await });
        let mut near = near;
        near.write_all(&whole[..length]).await.unwrap();
        drop(near);
        let ended = tokio::time::timeout(Duration::from_secs(5), served).await;
        ended.expect("the connection ends").unwrap().unwrap_err();
    }
    let (size, _) = client(&server, move |stream| go(&mut started(stream, &pki), "disk")).await;
    assert_eq!(size, SIZE.bytes());
}

async fn dripped_handshake() {
    let pki = Pki::new();
    let config = ServerConfig { handshake_timeout: Duration::from_millis(300), ..ServerConfig::default() };
    let server = Server::new(config).with_tls(pki.required().await);
    let whole = hello(&pki);
    let (near, far) = duplex(1 << 16);
    let (mut reader, mut writer) = tokio::io::split(near);
    let served: JoinHandle<_> =
        tokio::spawn(async move { server.serve_stream(far, CancellationToken::new()).await });
    let (quick, slow) = whole.split_at(40);
    writer.write_all(quick).await.unwrap();
    let drip = async {
        // A byte at a time: it would take a minute.
        for byte in slow {
            tokio::time::sleep(Duration::from_millis(250)).await;
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let ended = tokio::select! {
        () = drip => panic!("the handshake outlived its timeout"),
        ended = served => ended.unwrap(),
    };
    assert_error(&ended.unwrap_err(), ErrorKind::Unavailable, "longer than allowed");
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).await.unwrap();
}

async fn endless_handshake() {
    let pki = Pki::new();
    let (server, _) = server(pki.required().await).await;
    let (sent, ended) = client(&server, |mut stream| {
        greet(&mut stream);
        assert_eq!(answer(&mut stream, NBD_OPT_STARTTLS, &[]), NBD_REP_ACK);
        // A first message of 16 MiB, in records of 16 KiB.
        let mut record = vec![0; 5 + (16 << 10)];
        record[..9].copy_from_slice(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]);
        let mut sent = 0;
        while sent < 1024 && stream.write_all(&record).is_ok() {
            record[5..9].fill(0);
            sent += 1;
        }
        sent
    })
    .await;
    assert!(sent < 100, "the server took {sent} records of a message");
    assert_error(&ended.unwrap_err(), ErrorKind::Invalid, "no TLS");
}

async fn opened_inside_only() {
    let pki = Pki::new();
    let (server, _) = server(pki.required().await).await;
    let connections = async |server: &Server| {
        server.statistics(&ExportName::parse("disk").unwrap()).await.unwrap().unwrap().connections
    };
    let (stream, served) = open(&server);
    let pki = std::sync::Arc::new(pki);
    let other = pki.clone();
    let mut stream = tokio::task::spawn_blocking(move || started(stream, &other)).await.unwrap();
    assert_eq!(connections(&server).await, 0);
    let stream = tokio::task::spawn_blocking(move || {
        go(&mut stream, "disk");
        stream
    });
    let stream = stream.await.unwrap();
    assert_eq!(connections(&server).await, 1);
    drop(stream);
    served.await.unwrap().unwrap_err();
    assert_eq!(connections(&server).await, 0);
}

async fn cut_without_goodbye() {
    let pki = std::sync::Arc::new(Pki::new());
    let (server, _) = server(pki.required().await).await;
    let cut = pki.clone();
    let (_, ended) = client(&server, move |stream| {
        let mut stream = started(stream, &cut);
        go(&mut stream, "disk");
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.sock.read_to_end(&mut rest);
    })
    .await;
    assert_error(&ended.unwrap_err(), ErrorKind::Unavailable, "without the word that it may");
    let (_, ended) = client(&server, move |stream| {
        let mut stream = started(stream, &pki);
        go(&mut stream, "disk");
        stream.conn.send_close_notify();
        stream.conn.write_tls(&mut stream.sock).unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.sock.read_to_end(&mut rest);
    })
    .await;
    ended.unwrap();
}

async fn changed_ciphertext() {
    let pki = Pki::new();
    let (server, device) = server(pki.required().await).await;
    let (_, ended) = client(&server, move |stream| {
        let mut stream = started(stream, &pki);
        go(&mut stream, "disk");
        let write = Request { flags: 0, command: NBD_CMD_WRITE, cookie: 9, offset: 0, length: 4096 };
        let mut sealed = Vec::new();
        stream.conn.writer().write_all(&[&write.encode()[..], &[7; 4096]].concat()).unwrap();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut sealed).unwrap();
        }
        *sealed.last_mut().unwrap() ^= 1;
        stream.sock.write_all(&sealed).unwrap();
        let mut rest = Vec::new();
        let _ = stream.sock.read_to_end(&mut rest);
        // Why, as a sealed alert; nothing else.
        assert!(rest.len() < 40, "{rest:?}");
    })
    .await;
    assert_error(&ended.unwrap_err(), ErrorKind::Unavailable, "session broke");
    assert!(device.bytes().iter().all(|byte| *byte == 0));
}
