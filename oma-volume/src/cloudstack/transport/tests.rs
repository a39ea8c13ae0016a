//! Endpoints that are refused, servers that are not trusted, and answers that break.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use oma_core::ErrorKind;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

fn config(endpoint: &str) -> CloudStackConfig {
    let mut config = CloudStackConfig::new(endpoint, "zone", "offering", "vm");
    config.request_limit = Duration::from_secs(5);
    config
}

/// Reads one request and answers it with these bytes, then ends the connection.
fn answer(mut stream: impl Read + Write, bytes: &str) -> String {
    let (mut request, mut byte) = (String::new(), [0]);
    while !request.ends_with("form=1") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        request.push(char::from(byte[0]));
    }
    let _ = stream.write_all(bytes.as_bytes()).and_then(|()| stream.flush());
    request
}

/// A server for one connection: its port, and what it was asked.
fn server(serve: impl FnOnce(TcpStream) -> String + Send + 'static) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

async fn post(endpoint: &str, change: impl FnOnce(&mut CloudStackConfig)) -> Result<Reply, NoReply> {
    let mut config = config(endpoint);
    change(&mut config);
    Http::new(&config).unwrap().post("form=1".to_owned()).await
}

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n{}";

#[test]
fn an_endpoint_is_https_or_on_this_machine() {
    for good in ["https://cloud.example/client/api", "https://10.0.0.1:8443/client/api"] {
        Http::new(&config(good)).unwrap();
    }
    for local in
        ["http://127.0.0.1:8080/client/api", "http://[::1]:8080/client/api", "http://localhost/client/api"]
    {
        Http::new(&config(local)).unwrap();
    }
    let plain = config("http://cloud.example/client/api");
    let error = Http::new(&plain).unwrap_err().about("set up", "cloud");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("allow_plain_http"), "{}", error.chain());
    Http::new(&CloudStackConfig { allow_plain_http: true, ..plain }).unwrap();
}

#[test]
fn l29_an_endpoint_with_a_password_is_refused_and_not_shown() {
    for bad in [
        "",
        "cloud.example",
        "ftp://cloud.example/",
        "https://admin:hunter2@cloud.example/client/api",
        "https://cloud.example/client/api?apikey=hunter2",
    ] {
        let error = Http::new(&config(bad)).unwrap_err().about("set up", "its configuration");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    }
}

#[test]
fn files_that_are_no_authorities_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in
        [("empty", ""), ("text", "no PEM"), ("damaged", "-----BEGIN CERTIFICATE-----\nAAAA\n")]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = named(&path).unwrap_err().about("set up", "cloud");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
        assert!(error.chain().contains(name), "{}", error.chain());
    }
    named(&folder.path().join("missing")).unwrap_err();
}

#[tokio::test]
async fn a_request_is_a_post_with_nothing_in_its_url() {
    let (port, asked) = server(|stream| answer(stream, PLAIN));
    let reply = post(&format!("http://127.0.0.1:{port}/client/api"), |_| ()).await.unwrap();
    assert_eq!(
        (reply.status, &reply.body[..], reply.retry_after),
        (200, &b"{}"[..], Some(Duration::from_secs(7)))
    );
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /client/api HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("application/x-www-form-urlencoded"), "{asked}");
}

#[tokio::test]
async fn a_redirection_is_not_followed() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let (port, asked) = server(move |stream| answer(stream, moved));
    let reply = post(&format!("http://127.0.0.1:{port}/client/api"), |_| ()).await.unwrap();
    assert_eq!(reply.status, 302);
    asked.join().unwrap();
}

#[tokio::test]
async fn what_was_not_sent_and_what_was_lost_are_told_apart() {
    let refused = post("http://127.0.0.1:1/client/api", |_| ()).await.unwrap_err();
    assert!(matches!(&refused, NoReply::NotSent(problem) if problem.contains("refused")), "{refused:?}");
    for cut in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"] {
        let (port, asked) = server(move |stream| answer(stream, cut));
        let lost = post(&format!("http://127.0.0.1:{port}/client/api"), |_| ()).await.unwrap_err();
        assert!(matches!(lost, NoReply::Lost(_)), "{cut:?}: {lost:?}");
        asked.join().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_forever() {
    // It is connected to by the kernel; nobody ever accepts it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://127.0.0.1:{}/client/api", listener.local_addr().unwrap().port());
    let lost = post(&endpoint, |config| config.request_limit = Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(&lost, NoReply::Lost(problem) if problem.contains("no answer came")), "{lost:?}");
}

/// A certificate for `name` of an authority of its own, whose file is answered too.
fn certified(folder: &Path, name: &str) -> (ServerConfig, PathBuf) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let path = folder.join("authorities.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain = vec![leaf.der().clone()];
    (builder.with_no_client_auth().with_single_cert(chain, key).unwrap(), path)
}

/// Asks a TLS server with a certificate for `name`, as `localhost`, trusting its authority or what this machine trusts.
async fn ask_tls(name: &str, is_trusted: bool) -> Result<Reply, NoReply> {
    let folder = tempfile::tempdir().unwrap();
    let (tls, authorities) = certified(folder.path(), name);
    let (port, asked) = server(move |stream| {
        answer(StreamOwned::new(ServerConnection::new(Arc::new(tls)).unwrap(), stream), PLAIN)
    });
    let endpoint = format!("https://localhost:{port}/client/api");
    let reply = post(&endpoint, |config| config.ca_file = is_trusted.then_some(authorities)).await;
    asked.join().unwrap();
    reply
}

#[tokio::test]
async fn a_server_is_trusted_by_its_certificate_or_not_at_all() {
    assert_eq!(ask_tls("localhost", true).await.unwrap().status, 200);
    for (name, is_trusted) in [("localhost", false), ("other.example", true)] {
        let refused = ask_tls(name, is_trusted).await.unwrap_err();
        let NoReply::NotSent(problem) = &refused else { panic!("nothing was sent: {refused:?}") };
        assert!(problem.contains("certificate"), "{problem}");
    }
}
