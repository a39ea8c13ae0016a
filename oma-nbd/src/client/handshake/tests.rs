use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::protocol::{NBD_FLAG_HAS_FLAGS, NBD_REP_ERR_INVALID};

const FIXED: u16 = NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;

fn greeting(flags: u16) -> Vec<u8> {
    Greeting { flags }.encode().to_vec()
}

fn reply(option: u32, reply: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&OptionReplyHeader { option, reply, length }.encode(), payload].concat()
}

fn info(info: &InfoReply<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    info.encode(&mut payload);
    reply(NBD_OPT_GO, NBD_REP_INFO, &payload)
}

fn context(id: u32, name: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    MetaContextReply { id, name }.encode(&mut payload);
    reply(NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, &payload)
}

fn ack(option: u32) -> Vec<u8> {
    reply(option, NBD_REP_ACK, &[])
}

fn size() -> Vec<u8> {
    info(&InfoReply::Export { size: 1 << 20, flags: NBD_FLAG_HAS_FLAGS })
}

/// A server that says these bytes and leaves; answers how the client took it, and what the client said.
async fn session(bytes: &[u8]) -> (Result<Export, Failure>, Vec<u8>) {
    session_with(bytes, false).await
}

/// The same for a client that asks for extended headers or not.
async fn session_with(bytes: &[u8], extended_headers: bool) -> (Result<Export, Failure>, Vec<u8>) {
    let contexts = vec!["qemu:dirty-bitmap:b0".to_owned()];
    let config = ClientConfig { contexts, extended_headers, ..ClientConfig::default() };
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(bytes).await.unwrap();
    far.shutdown().await.unwrap();
    let opened = async {
        let handshake = Handshake::begin(Socket::from(near)).await?;
        Ok(handshake.open("disk", &config).await?.1)
    };
    let opened = opened.await;
    let mut said = Vec::new();
    // A reset only says that the client left bytes of the script behind.
    let _ = far.read_to_end(&mut said).await;
    (opened, said)
}

fn good() -> Vec<Vec<u8>> {
    vec![
        greeting(FIXED),
        ack(NBD_OPT_STRUCTURED_REPLY),
        context(7, "qemu:dirty-bitmap:b0"),
        context(3, BASE_ALLOCATION),
        ack(NBD_OPT_SET_META_CONTEXT),
        size(),
        info(&InfoReply::BlockSize { minimum: 512, preferred: 4096, maximum: 1 << 20 }),
        info(&InfoReply::Unknown(77)),
        ack(NBD_OPT_GO),
    ]
}

#[tokio::test]
async fn an_export_is_opened_with_all_it_offers() {
    let (export, said) = session(&good().concat()).await;
    let export = export.unwrap();
    assert_eq!(
        (export.size, export.headers, export.block_sizes.minimum),
        (1 << 20, Headers::Structured, 512)
    );
    assert_eq!((export.context(BASE_ALLOCATION), export.context("qemu:dirty-bitmap:b0")), (Some(3), Some(7)));
    assert_eq!(said[..4], (NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES).to_be_bytes());
    assert_eq!(said[4..20], OptionHeader { option: NBD_OPT_STRUCTURED_REPLY, length: 0 }.encode());
}

#[tokio::test]
async fn a_server_may_leave_after_any_byte() {
    let whole = good().concat();
    for length in 0..whole.len() {
        let failure = session(&whole[..length]).await.0.unwrap_err();
        assert!(matches!(failure, Failure::ClosedInHandshake), "after {length} bytes: {failure:?}");
    }
}

/// The best way in, with extended headers.
fn extended() -> Vec<Vec<u8>> {
    let mut script = good();
    script[1] = ack(NBD_OPT_EXTENDED_HEADERS);
    script
}

#[tokio::test]
async fn extended_headers_are_asked_for_first_and_done_without_when_refused() {
    let (export, said) = session_with(&extended().concat(), true).await;
    let export = export.unwrap();
    assert_eq!((export.headers, export.context(BASE_ALLOCATION)), (Headers::Extended, Some(3)));
    assert_eq!(said[4..20], OptionHeader { option: NBD_OPT_EXTENDED_HEADERS, length: 0 }.encode());
    let structured = OptionHeader { option: NBD_OPT_STRUCTURED_REPLY, length: 0 }.encode();
    assert!(said.windows(16).all(|bytes| bytes != structured), "one takes the place of the other");
    for code in [NBD_REP_ERR_UNSUP, NBD_REP_ERR_INVALID, NBD_REP_ERR_POLICY] {
        let mut script = good();
        script.insert(1, reply(NBD_OPT_EXTENDED_HEADERS, code, b""));
        let export = session_with(&script.concat(), true).await.0.unwrap();
        assert_eq!((export.headers, export.context(BASE_ALLOCATION)), (Headers::Structured, Some(3)));
        script[2] = reply(NBD_OPT_STRUCTURED_REPLY, code, b"");
        script.drain(3..6);
        let export = session_with(&script.concat(), true).await.0.unwrap();
        assert_eq!((export.headers, export.contexts), (Headers::Simple, vec![]));
    }
}

#[tokio::test]
async fn extended_headers_are_never_followed_by_export_name() {
    let script = [
        greeting(FIXED),
        ack(NBD_OPT_EXTENDED_HEADERS),
        ack(NBD_OPT_SET_META_CONTEXT),
        reply(NBD_OPT_GO, NBD_REP_ERR_UNSUP, b""),
        ExportNameReply { size: 4096, flags: NBD_FLAG_HAS_FLAGS }.encode().to_vec(),
    ];
    let (opened, said) = session_with(&script.concat(), true).await;
    assert!(matches!(opened, Err(Failure::Violation(_))), "{opened:?}");
    let export_name = OptionHeader { option: NBD_OPT_EXPORT_NAME, length: 4 }.encode();
    assert!(said.windows(16).all(|bytes| bytes != export_name));
}

#[tokio::test]
async fn cve_2021_20286_a_server_may_leave_after_any_byte_of_extended_headers() {
    let whole = extended().concat();
    for length in 0..whole.len() {
        let failure = session_with(&whole[..length], true).await.0.unwrap_err();
        assert!(matches!(failure, Failure::ClosedInHandshake), "after {length} bytes: {failure:?}");
    }
}

#[tokio::test]
async fn cve_2023_5215_a_size_that_would_be_negative_is_refused() {
    for size in [1 << 63, (1 << 63) + 512, u64::MAX - 511, u64::MAX] {
        let told = |script: Vec<Vec<u8>>| {
            let mut script = script;
            script[5] = info(&InfoReply::Export { size, flags: NBD_FLAG_HAS_FLAGS });
            script.concat()
        };
        for (script, extended) in [(told(good()), false), (told(extended()), true)] {
            let failure = session_with(&script, extended).await.0.unwrap_err();
            assert!(matches!(failure, Failure::Violation(_)), "{size}: {failure:?}");
        }
    }
}

#[tokio::test]
async fn cve_2017_2630_a_reply_to_an_option_longer_than_any_is_refused_unread() {
    for (place, option, kind) in [
        (1, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK),
        (1, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_UNSUP),
        (2, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT),
        (5, NBD_OPT_GO, NBD_REP_INFO),
        (5, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN),
    ] {
        for length in [u32::MAX, 1 << 31, MAX_REPLY + 1] {
            let mut script = extended();
            script[place] = OptionReplyHeader { option, reply: kind, length }.encode().to_vec();
            let failure = session_with(&script[..=place].concat(), true).await.0.unwrap_err();
            let refused = matches!(failure, Failure::Violation(Violation::TooLong { .. }));
            assert!(refused, "{option} {kind:#x} {length}: {failure:?}");
        }
    }
}

#[tokio::test]
async fn servers_before_go_are_opened_by_export_name() {
    let unknown = |option| reply(option, NBD_REP_ERR_UNSUP, b"");
    let export = ExportNameReply { size: 4096, flags: NBD_FLAG_HAS_FLAGS }.encode().to_vec();
    let zeroes = vec![0; ExportNameReply::ZEROES];
    for script in [
        vec![greeting(0), export.clone(), zeroes.clone()],
        vec![greeting(NBD_FLAG_NO_ZEROES), export.clone()],
        vec![
            greeting(NBD_FLAG_FIXED_NEWSTYLE),
            unknown(NBD_OPT_STRUCTURED_REPLY),
            unknown(NBD_OPT_GO),
            export.clone(),
            zeroes,
        ],
    ] {
        let (opened, said) = session(&script.concat()).await;
        let opened = opened.unwrap();
        assert_eq!((opened.size, opened.headers), (4096, Headers::Simple));
        let last = [&OptionHeader { option: NBD_OPT_EXPORT_NAME, length: 4 }.encode()[..], b"disk"].concat();
        assert!(said.ends_with(&last));
    }
}

#[tokio::test]
async fn refusals_are_told_apart_and_the_session_is_ended() {
    let refuse = |code, text: &[u8]| {
        let go = reply(NBD_OPT_GO, code, text);
        [greeting(FIXED), reply(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_UNSUP, b""), go].concat()
    };
    let abort = OptionHeader { option: NBD_OPT_ABORT, length: 0 }.encode();
    for (code, text, kind) in [
        (NBD_REP_ERR_POLICY, &b""[..], "its policy forbids it"),
        (NBD_REP_ERR_POLICY, b"not\nyou", r"not\nyou"),
        (NBD_REP_ERR_TLS_REQD, b"", "demands TLS"),
        (NBD_REP_ERR_SHUTDOWN, b"", "shutting down"),
        (NBD_REP_ERR_INVALID, b"", "with the code 0x80000003"),
        (NBD_REP_ERR_UNKNOWN, b"", "no export \"disk\"; it does not tell"),
    ] {
        let (opened, said) = session(&refuse(code, text)).await;
        let text = opened.unwrap_err().to_string();
        assert!(text.contains(kind), "{text}");
        assert!(said.ends_with(&abort), "{kind}");
    }
}

#[tokio::test]
async fn what_is_no_nbd_server_is_named() {
    for (bytes, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], "began with \"HTTP/1.1\""),
        (b"SSH-2.0-OpenSSH_9.2p1", "began with \"SSH-2.0-\""),
        (b"\0\0\0\0\0\0\0\0", "no NBD server"),
    ] {
        let text = session(bytes).await.0.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let oldstyle = [NBD_MAGIC.to_be_bytes(), NBD_CLISERV_MAGIC.to_be_bytes()].concat();
    assert!(matches!(session(&oldstyle).await.0, Err(Failure::Oldstyle)));
}

#[tokio::test]
async fn hostile_answers_are_violations() {
    let after = |rest: Vec<Vec<u8>>| {
        let mut script = vec![greeting(FIXED), ack(NBD_OPT_STRUCTURED_REPLY)];
        script.extend(rest);
        script.concat()
    };
    let huge = OptionReplyHeader { option: NBD_OPT_SET_META_CONTEXT, reply: NBD_REP_ACK, length: u32::MAX };
    let done = || ack(NBD_OPT_SET_META_CONTEXT);
    let sizes = |minimum, preferred, maximum| info(&InfoReply::BlockSize { minimum, preferred, maximum });
    for (what, script) in [
        ("a reply of 4 GiB", after(vec![huge.encode().to_vec()])),
        ("another option's reply", after(vec![ack(NBD_OPT_GO)])),
        ("another magic number", after(vec![vec![0; 20]])),
        ("a context not asked for", after(vec![context(1, "qemu:allocation-depth")])),
        ("a context twice", after(vec![context(1, BASE_ALLOCATION), context(2, BASE_ALLOCATION)])),
        ("an id twice", after(vec![context(1, BASE_ALLOCATION), context(1, "qemu:dirty-bitmap:b0")])),
        (
            "a context that is no text",
            after(vec![reply(NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, &[0, 0, 0, 1, 0xff])]),
        ),
        ("a reply of another kind", after(vec![reply(NBD_OPT_SET_META_CONTEXT, NBD_REP_SERVER, &[])])),
        ("an unknown kind of reply", after(vec![reply(NBD_OPT_SET_META_CONTEXT, 99, &[])])),
        ("no size", after(vec![done(), ack(NBD_OPT_GO)])),
        (
            "a size beyond 2^63",
            after(vec![done(), info(&InfoReply::Export { size: u64::MAX, flags: 1 }), ack(NBD_OPT_GO)]),
        ),
        (
            "a size of half a block",
            after(vec![
                done(),
                info(&InfoReply::Export { size: 700, flags: 1 }),
                sizes(512, 512, 512),
                ack(NBD_OPT_GO),
            ]),
        ),
        ("impossible block sizes", after(vec![done(), size(), sizes(0, 0, 0), ack(NBD_OPT_GO)])),
        ("half an information", after(vec![done(), reply(NBD_OPT_GO, NBD_REP_INFO, &[0, 0, 1])])),
    ] {
        let failure = session(&script).await.0.expect_err(what);
        assert!(matches!(failure, Failure::Violation(_)), "{what}: {failure:?}");
    }
}

#[tokio::test]
async fn replies_without_end_are_a_violation() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let endless = tokio::spawn(async move {
        let mut script = [greeting(FIXED), ack(NBD_OPT_STRUCTURED_REPLY)].concat();
        while far.write_all(&script).await.is_ok() {
            script = reply(NBD_OPT_GO, NBD_REP_INFO, &[0, 99]).repeat(100);
            if script.is_empty() {
                break;
            }
        }
    });
    let mut handshake = Handshake::begin(Socket::from(near)).await.unwrap();
    assert!(handshake.agree(NBD_OPT_STRUCTURED_REPLY).await.unwrap());
    let failure = handshake.go("disk", &mut Export::default()).await.err().unwrap();
    assert!(
        matches!(failure, Failure::Violation(Violation::Handshake("replies without end"))),
        "{failure:?}"
    );
    drop(handshake);
    endless.await.unwrap();
}
