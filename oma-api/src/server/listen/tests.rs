use std::future::Future;
use std::sync::Arc;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::*;

const ONCE: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn places(count: u16) -> ListenConfig {
    ListenConfig { connections: NonZeroU16::new(count).unwrap() }
}

/// Serves while `life` goes on, at the address that it is told.
async fn served<Fut: Future<Output = ()>>(
    router: Router,
    tls: Option<&TlsIdentity>,
    count: u16,
    life: impl FnOnce(SocketAddr) -> Fut,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::select! {
        ended = serve_tcp(listener, router, tls, places(count), &stop) => panic!("{ended:?}"),
        () = life(address) => {}
    }
}

fn ready() -> Router {
    Router::new().route("/", get(async || "ready"))
}

/// A client that sends this.
async fn client(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// All that comes until the server ends the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn clients_that_ask_for_nothing_do_not_keep_others_out_for_ever() {
    served(ready(), None, 4, async |address| {
        let mut silent = Vec::new();
        for bytes in [&b""[..], b"G", b"GET / HTTP/1.1\r\nhost: x\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"]
        {
            silent.push(client(address, bytes).await);
        }
        let begun = Instant::now();
        let mut other = Box::pin(rest(client(address, ONCE).await));
        assert!(timeout(HEADERS / 2, &mut other).await.is_err(), "all places are taken");
        let answer = timeout(HEADERS, other).await.expect("silent ones are let go");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ready"), "{answer}");
        assert!(begun.elapsed() < HEADERS + Duration::from_secs(1), "{:?}", begun.elapsed());
        let mut answered = 0;
        for stream in silent {
            let rest = timeout(HEADERS, rest(stream)).await.expect("it is let go");
            answered += usize::from(rest.contains("ready"));
        }
        assert_eq!(answered, 1, "every one was let go");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_more_are_served_at_once_than_there_are_places_and_everybody_is_in_the_end() {
    let (entered, mut told) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let slow = async move || {
        entered.send(()).unwrap();
        held.acquire().await.unwrap().forget();
        "served"
    };
    served(Router::new().route("/", get(slow)), None, 3, async |address| {
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(client(address, ONCE).await);
        }
        for _ in 0..3 {
            told.recv().await.unwrap();
        }
        assert!(timeout(HEADERS * 10, told.recv()).await.is_err(), "a fourth is served");
        gate.add_permits(1);
        told.recv().await.unwrap();
        assert!(timeout(HEADERS * 10, told.recv()).await.is_err(), "one for one");
        gate.add_permits(9);
        for client in clients {
            assert!(rest(client).await.ends_with("served"));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_over_tls_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let identity = TlsIdentity::open(certificate, key).unwrap();
    served(ready(), Some(&identity), 1, async |address| {
        let begun = Instant::now();
        for _ in 0..3 {
            assert_eq!(rest(client(address, b"").await).await, "");
        }
        assert!(begun.elapsed() < HEADERS * 3, "{:?}", begun.elapsed());
    })
    .await;
}

#[test]
fn a_configuration_says_how_many_and_nothing_else() {
    let read = serde_json::from_str::<ListenConfig>;
    assert_eq!(read("{}").unwrap(), ListenConfig::default());
    assert_eq!(read(r#"{"connections": 7}"#).unwrap(), places(7));
    assert!(read(r#"{"connections": 0}"#).is_err());
    assert!(read(r#"{"places": 7}"#).is_err());
}
