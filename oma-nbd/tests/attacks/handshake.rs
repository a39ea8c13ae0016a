//! Attacks on the handshake.

use std::time::Duration;

use oma_core::ErrorKind;
use oma_nbd::protocol::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::raw::{Raw, Reply, SOON, Sockets, left, request};
use crate::{Dice, MIB, is_well, server};

fn info(name: &str, wanted: Vec<u16>) -> Vec<u8> {
    let mut payload = Vec::new();
    InfoRequest { name, wanted }.encode(&mut payload);
    payload
}

fn contexts(name: &str, queries: Vec<&str>) -> Vec<u8> {
    let mut payload = Vec::new();
    MetaContextRequest { name, queries }.encode(&mut payload);
    payload
}

fn option(option: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len().try_into().unwrap();
    [&OptionHeader { option, length }.encode()[..], payload].concat()
}

/// Says some bytes and leaves without having read a byte: the socket is reset, not closed.
async fn say_and_leave<S: AsyncRead + AsyncWrite + Unpin>(mut raw: Raw<S>, bytes: &[u8]) {
    // The server may have hung up already.
    let _ = raw.stream.write_all(bytes).await;
}

#[tokio::test]
async fn cve_2011_1925_clients_that_reset_their_socket_at_any_byte_hurt_nobody() {
    let server = server().await;
    let sockets = Sockets::new(&server).await;
    let whole = [
        3u32.to_be_bytes().to_vec(),
        option(NBD_OPT_LIST, &[]),
        option(NBD_OPT_STRUCTURED_REPLY, &[]),
        option(NBD_OPT_SET_META_CONTEXT, &contexts("disk", vec![BASE_ALLOCATION])),
        option(NBD_OPT_GO, &info("disk", vec![NBD_INFO_BLOCK_SIZE])),
        request(NBD_CMD_READ, 0, 65536).encode().to_vec(),
    ]
    .concat();
    let mut witness = sockets.unix().await;
    witness.greet().await;
    let mut witness = witness.with_simple("disk").await;
    for length in 0..=whole.len() {
        say_and_leave(sockets.tcp().await, &whole[..length]).await;
        say_and_leave(sockets.unix().await, &whole[..length]).await;
    }
    assert_eq!(witness.ask(request(NBD_CMD_READ, 0, 4), &[]).await, Reply::Data(vec![0; 4]));
    drop(witness.stream);
    left(&server, "disk").await;
    is_well(&server).await;
    sockets.close().await;
}

#[tokio::test]
async fn cve_2017_10664_clients_that_leave_before_their_replies_are_written_hurt_nobody() {
    let server = server().await;
    let sockets = Sockets::new(&server).await;
    let many: Vec<u8> = (0..40).flat_map(|_| request(NBD_CMD_READ, 0, MIB).encode()).collect();
    for _ in 0..10 {
        let (mut unix, mut tcp) = (sockets.unix().await, sockets.tcp().await);
        unix.greet().await;
        tcp.greet().await;
        say_and_leave(unix.with_simple("disk").await, &many).await;
        say_and_leave(tcp.with_structured("disk", &[]).await, &many).await;
    }
    left(&server, "disk").await;
    is_well(&server).await;
    sockets.close().await;
}

#[tokio::test]
async fn cve_2017_9524_port_scanners_are_disconnected() {
    let server = server().await;
    let probes: [&[u8]; 7] = [
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client that says hello first",
        b"\x04\x01\0\x16\x7f\0\0\x01\0",
        &[0xff; 4096],
    ];
    for probe in probes {
        let mut raw = Raw::open(&server, 1 << 16);
        let _ = raw.stream.write_all(probe).await;
        let _ = raw.stream.shutdown().await;
        assert!(raw.closed().await.is_err(), "{:?}", String::from_utf8_lossy(probe));
    }
    is_well(&server).await;
}

#[tokio::test]
async fn cve_2017_7539_unexpected_bytes_at_any_time_of_the_handshake_hurt_nobody() {
    let server = server().await;
    let mut dice = Dice(0x5eed);
    let polite = [
        option(NBD_OPT_LIST, &[]),
        option(NBD_OPT_STRUCTURED_REPLY, &[]),
        option(NBD_OPT_SET_META_CONTEXT, &contexts("disk", vec![BASE_ALLOCATION])),
        option(NBD_OPT_INFO, &info("disk", vec![NBD_INFO_NAME])),
        option(NBD_OPT_ABORT, &[]),
    ];
    for _ in 0..300 {
        let mut raw = Raw::open(&server, 1 << 20);
        let mut said = 3u32.to_be_bytes().to_vec();
        for _ in 0..dice.below(4) {
            said.extend(&polite[dice.below(polite.len())]);
        }
        match dice.below(3) {
            // Bytes lost, bytes changed, bytes that were never asked for.
            0 => said.truncate(dice.below(said.len())),
            1 => {
                let at = 4 + dice.below(said.len() - 3);
                said.iter_mut().skip(at).take(3).for_each(|byte| *byte = !*byte);
            }
            _ => said.extend((0..dice.below(200)).map(|_| dice.roll().to_le_bytes()[3])),
        }
        let _ = raw.stream.write_all(&said).await;
        let _ = raw.stream.shutdown().await;
        let mut rest = Vec::new();
        tokio::time::timeout(SOON, raw.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        // How it ended is the server's to say; it must have ended.
        let _ = tokio::time::timeout(SOON, raw.served).await.unwrap().unwrap();
    }
    is_well(&server).await;
}

#[tokio::test]
async fn cve_2017_15118_export_names_of_any_length_are_unknown_and_no_more() {
    let server = server().await;
    for length in [255, 256, 257, 258, 511, 512, 1023, 1024, 2048, 4095, MAX_STRING] {
        let mut raw = Raw::greeted(&server).await;
        let name = "n".repeat(length);
        for option in [NBD_OPT_INFO, NBD_OPT_GO] {
            let replies = raw.option(option, &info(&name, vec![])).await;
            assert_eq!(replies.last().unwrap().0, NBD_REP_ERR_UNKNOWN, "{length} bytes");
        }
        raw.go("disk").await;
        let mut raw = Raw::greeted(&server).await;
        raw.say(&option(NBD_OPT_EXPORT_NAME, name.as_bytes())).await;
        assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::NotFound, "{length} bytes");
    }
    is_well(&server).await;
}

#[tokio::test]
async fn cve_2020_10761_a_long_name_makes_no_reply_too_long() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await;
    for name in ["x".repeat(MAX_STRING), "\u{1f980}".repeat(MAX_STRING / 4), "\\\"\n".repeat(1365)] {
        for (kind, payload) in [
            (NBD_OPT_INFO, info(&name, vec![NBD_INFO_NAME])),
            (NBD_OPT_GO, info(&name, vec![NBD_INFO_NAME])),
            (NBD_OPT_LIST_META_CONTEXT, contexts(&name, vec![])),
            (NBD_OPT_SET_META_CONTEXT, contexts(&name, vec![BASE_ALLOCATION])),
            (NBD_OPT_LIST, name.clone().into_bytes()),
            (77, name.clone().into_bytes()),
        ] {
            let (reply, text) = raw.option(kind, &payload).await.pop().unwrap();
            assert_ne!(reply & NBD_REP_FLAG_ERROR, 0, "option {kind}");
            assert!(text.len() <= MAX_STRING, "option {kind}: {} bytes", text.len());
            assert!(std::str::from_utf8(&text).is_ok(), "option {kind}");
        }
    }
    let query = "q".repeat(MAX_STRING);
    let replies = raw.option(NBD_OPT_LIST_META_CONTEXT, &contexts("disk", vec![&query])).await;
    assert_eq!(replies, [(NBD_REP_ACK, vec![])]);
    raw.go("disk").await;
}

#[tokio::test]
async fn cve_2022_26495_lengths_of_names_and_queries_that_lie_are_refused() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await;
    // Where the name's length, the number of queries and the first query's length stand.
    for place in [0, 8, 12] {
        for lie in [u32::MAX, u32::MAX - 4, 1 << 31, 4097, 64 << 10] {
            let mut payload = contexts("disk", vec![BASE_ALLOCATION]);
            payload[place..place + 4].copy_from_slice(&lie.to_be_bytes());
            for kind in [NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT] {
                let reply = raw.option(kind, &payload).await.pop().unwrap().0;
                assert_eq!(reply, NBD_REP_ERR_INVALID, "{lie} at {place} of option {kind}");
            }
        }
    }
    raw.go("disk").await;
    for length in [u32::MAX, 1 << 30] {
        let mut raw = Raw::greeted(&server).await;
        raw.say(&OptionHeader { option: NBD_OPT_EXPORT_NAME, length }.encode()).await;
        assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    is_well(&server).await;
}

#[tokio::test]
async fn cve_2022_26496_info_requests_without_number_are_refused_or_answered_once() {
    let server = server().await;
    for option in [NBD_OPT_INFO, NBD_OPT_GO] {
        let mut raw = Raw::greeted(&server).await;
        let mut lying = info("disk", vec![]);
        *lying.last_chunk_mut().unwrap() = u16::MAX.to_be_bytes();
        assert_eq!(raw.option(option, &lying).await.pop().unwrap().0, NBD_REP_ERR_INVALID);
        let reply = raw.option(option, &info("disk", vec![NBD_INFO_NAME; 65535])).await.pop().unwrap().0;
        assert!([NBD_REP_ERR_TOO_BIG, NBD_REP_ERR_INVALID].contains(&reply), "{reply:#x}");
        let replies = raw.option(option, &info("disk", vec![NBD_INFO_NAME; 10_000])).await;
        assert!(replies.len() <= 5, "{} replies", replies.len());
        let mut raw = Raw::greeted(&server).await;
        raw.say(&OptionHeader { option, length: 1 << 30 }.encode()).await;
        assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    is_well(&server).await;
}

#[tokio::test(start_paused = true)]
async fn cve_2017_15119_an_option_sent_drop_by_drop_ends_with_the_handshakes_time() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    raw.say(&OptionHeader { option: 77, length: 1 << 20 }.encode()).await;
    let begun = tokio::time::Instant::now();
    while raw.stream.write_all(&[0; 16]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "the handshake goes on and on");
    }
    let error = raw.served.await.unwrap().unwrap_err();
    assert!(error.chain().contains("longer than allowed"), "{}", error.chain());
    is_well(&server).await;
}

#[tokio::test]
async fn cve_2017_15119_options_without_end_are_bounded_in_number_and_length() {
    let server = server().await;
    let mut raw = Raw::greeted(&server).await;
    let large = option(77, &vec![0; 1 << 20]);
    let mut taken = 0;
    // Replies are read, so that nothing but the server's own limit can end it.
    while taken < 1000 && raw.stream.write_all(&large).await.is_ok() {
        let mut header = [0; OptionReplyHeader::SIZE];
        if raw.stream.read_exact(&mut header).await.is_err() {
            break;
        }
        let header = OptionReplyHeader::decode(&header).unwrap();
        raw.stream.read_exact(&mut vec![0; header.length.try_into().unwrap()]).await.unwrap();
        taken += 1;
    }
    assert!(taken <= 64, "{taken} MiB of options were taken");
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    is_well(&server).await;
}

#[tokio::test]
async fn cve_2019_14851_options_in_any_order_lead_to_a_working_export() {
    let server = server().await;
    let options = [
        (NBD_OPT_LIST, vec![]),
        (NBD_OPT_STRUCTURED_REPLY, vec![]),
        (NBD_OPT_INFO, info("disk", vec![NBD_INFO_NAME, NBD_INFO_BLOCK_SIZE])),
        (NBD_OPT_INFO, info("none", vec![])),
        (NBD_OPT_GO, info("none", vec![])),
        (NBD_OPT_GO, vec![]),
        (NBD_OPT_LIST_META_CONTEXT, contexts("disk", vec![])),
        (NBD_OPT_SET_META_CONTEXT, contexts("disk", vec![BASE_ALLOCATION])),
        (NBD_OPT_SET_META_CONTEXT, contexts("none", vec![BASE_ALLOCATION])),
        (99, vec![1, 2, 3]),
    ];
    let count = options.len();
    for number in 0..count.pow(3) {
        let order = [number % count, number / count % count, number / count / count];
        let mut raw = Raw::greeted(&server).await;
        let mut contexts = false;
        for (option, payload) in order.map(|index| &options[index]) {
            let replies = raw.option(*option, payload).await;
            let well = replies.last().unwrap().0 == NBD_REP_ACK;
            if *option == NBD_OPT_SET_META_CONTEXT {
                contexts = well && replies.len() == 2;
            }
        }
        let mut raw = raw.with_simple("disk").await;
        assert_eq!(raw.ask(request(NBD_CMD_READ, 9, 3), &[]).await, Reply::Data(vec![0; 3]), "{order:?}");
        let status = raw.ask(request(NBD_CMD_BLOCK_STATUS, 0, 4096), &[]).await;
        let expected = if contexts { Reply::Status(vec![1]) } else { Reply::Error(NBD_EINVAL) };
        assert_eq!(status, expected, "{order:?}");
        raw.stream.shutdown().await.unwrap();
    }
}
