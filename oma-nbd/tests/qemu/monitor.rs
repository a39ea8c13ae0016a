//! Monitors that are none, or break in the middle.

use std::time::Duration;

use oma_core::ErrorKind;
use oma_core::conformance::{Trial, trial};
use oma_core::traits::DiskSource;
use oma_nbd::QemuSource;
use oma_nbd::qemu::QemuConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::machine::vm;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        &[];
        no_socket_is_unavailable,
        what_is_no_monitor_is_invalid,
        a_monitor_that_says_nothing_is_busy,
        a_line_without_end_is_refused_in_bounded_memory,
        a_monitor_that_closes_half_way_is_unavailable,
        a_monitor_that_stops_answering_is_unavailable,
        answers_that_are_none_are_refused,
        a_qemu_that_is_too_old_is_unsupported,
        a_refusal_is_told_with_its_words,
    ]
}

const GREETING: &[u8] =
    b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";
/// Long enough for the slowest machine; only those that are to run out are shorter.
const PATIENT: Duration = Duration::from_secs(30);

/// What `discover` says of a monitor that greets like this, then answers one line with each of these.
async fn discover(greeting: &[u8], answers: &[&[u8]], patience: Duration) -> (ErrorKind, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qmp");
    let listener = UnixListener::bind(&socket).unwrap();
    let (greeting, answers) = (greeting.to_vec(), answers.iter().map(|a| a.to_vec()).collect::<Vec<_>>());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let _ = stream.get_mut().write_all(&greeting).await;
        for answer in &answers {
            let mut line = String::new();
            if !matches!(stream.read_line(&mut line).await, Ok(length) if length > 0) {
                return;
            }
            let ask: serde_json::Value = serde_json::from_str(&line).unwrap();
            let answer = String::from_utf8_lossy(answer).replace("ID", ask["id"].as_str().unwrap());
            let _ = stream.get_mut().write_all(answer.as_bytes()).await;
        }
        if answers.last().is_some_and(|last| last.is_empty()) {
            std::future::pending::<()>().await;
        }
    });
    let config =
        QemuConfig { busy_timeout: patience, command_timeout: patience, ..QemuConfig::new(vm(), &socket) };
    let error = QemuSource::new(config).discover(&vm()).await.unwrap_err();
    (error.kind(), error.chain())
}

const DONE: &[u8] = b"{\"return\": {}, \"id\": \"ID\"}\n";

async fn no_socket_is_unavailable() {
    let config = QemuConfig::new(vm(), "/nonexistent/qmp");
    let error = QemuSource::new(config).discover(&vm()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("/nonexistent/qmp"), "{}", error.chain());
}

async fn what_is_no_monitor_is_invalid() {
    let deep = [vec![b'['; 1 << 16], b"\n".to_vec()].concat();
    for greeting in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"{}\n", b"\0\0\0\n", b"[1]\n", b"\xff\xfe\n", &deep] {
        let (kind, text) = discover(greeting, &[], PATIENT).await;
        assert_eq!(kind, ErrorKind::Invalid, "{text}");
        assert!(text.len() < 500 && !text.contains('\0'), "{text}");
    }
}

async fn a_monitor_that_says_nothing_is_busy() {
    let (kind, text) = discover(b"", &[b""], Duration::from_millis(200)).await;
    assert_eq!(kind, ErrorKind::Busy, "{text}");
}

async fn a_line_without_end_is_refused_in_bounded_memory() {
    let (kind, text) = discover(&vec![b' '; (16 << 20) + 4096], &[b""], PATIENT).await;
    assert_eq!(kind, ErrorKind::Corrupt, "{text}");
}

async fn a_monitor_that_closes_half_way_is_unavailable() {
    let half = &b"{\"return\": {\"UU"[..];
    for (greeting, answers) in [
        (&b""[..], vec![]),
        (&GREETING[..20], vec![]),
        (GREETING, vec![]),
        (GREETING, vec![DONE]),
        (GREETING, vec![DONE, half]),
    ] {
        let (kind, text) = discover(greeting, &answers, PATIENT).await;
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    }
}

async fn a_monitor_that_stops_answering_is_unavailable() {
    let (kind, text) = discover(GREETING, &[DONE, b""], Duration::from_millis(300)).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("query-uuid"), "{text}");
}

async fn answers_that_are_none_are_refused() {
    for (answer, expected) in [
        (&b"{\"return\": {}, \"id\": \"other\"}\n"[..], ErrorKind::Invalid),
        (b"{\"return\": {}}\n", ErrorKind::Invalid),
        (b"{\"id\": \"ID\"}\n", ErrorKind::Invalid),
        (
            b"{\"return\": 1, \"error\": {\"class\": \"a\", \"desc\": \"b\"}, \"id\": \"ID\"}\n",
            ErrorKind::Invalid,
        ),
        (b"{\"return\": [17], \"id\": \"ID\"}\n", ErrorKind::Corrupt),
        (b"nonsense\n", ErrorKind::Invalid),
    ] {
        let (kind, text) = discover(GREETING, &[DONE, answer, b""], PATIENT).await;
        assert_eq!(kind, expected, "{text}");
    }
}

async fn a_qemu_that_is_too_old_is_unsupported() {
    let old = String::from_utf8_lossy(GREETING)
        .replace("\"minor\": 0, \"major\": 10", "\"minor\": 0, \"major\": 7");
    let (kind, text) = discover(old.as_bytes(), &[b""], PATIENT).await;
    assert_eq!(kind, ErrorKind::Unsupported, "{text}");
    assert!(text.contains("7.0.2") && text.contains("7.1"), "{text}");
}

async fn a_refusal_is_told_with_its_words() {
    let event = "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\n";
    let refusal =
        "{\"id\": \"ID\", \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"not here\\u001b\"}}\n";
    let (kind, text) =
        discover(GREETING, &[DONE, format!("{event}{refusal}").as_bytes(), b""], PATIENT).await;
    assert_eq!(kind, ErrorKind::Unsupported, "{text}");
    assert!(text.ends_with(r"QEMU refused query-uuid: not here\u{1b}"), "{text}");
}
