//! A client that says exactly what it is told to, in plain and through TLS. It blocks.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use oma_core::Result;
use oma_nbd::Server;
use oma_nbd::protocol::{
    Greeting, InfoReply, InfoRequest, NBD_OPT_GO, NBD_REP_ACK, NBD_REP_FLAG_ERROR, NBD_REP_INFO,
    OptionHeader, OptionReplyHeader,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::pki::Pki;

pub(crate) type Secure = StreamOwned<ClientConnection, UnixStream>;

/// Serves one connection; the other end of it, and how it ends.
pub(crate) fn open(server: &Server) -> (UnixStream, JoinHandle<Result<()>>) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    far.set_nonblocking(true).unwrap();
    let (far, server) = (tokio::net::UnixStream::from_std(far).unwrap(), server.clone());
    (near, tokio::spawn(async move { server.serve_stream(far, CancellationToken::new()).await }))
}

/// Past greeting and client flags.
pub(crate) fn greet(stream: &mut (impl Read + Write)) {
    let mut greeting = [0; Greeting::SIZE];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(Greeting::decode(&greeting).unwrap().flags, 3);
    stream.write_all(&3u32.to_be_bytes()).unwrap();
}

/// Makes TLS of a stream on which it was agreed.
pub(crate) fn secure(stream: UnixStream, pki: &Pki) -> Secure {
    StreamOwned::new(connection(pki, rustls::DEFAULT_VERSIONS), stream)
}

/// A session of these versions with the server `localhost`, which has said nothing yet.
pub(crate) fn connection(
    pki: &Pki,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let file = pki.path("ca-cert.pem");
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // For those who say what no library says.
    config.enable_secret_extraction = true;
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

pub(crate) fn header(option: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len().try_into().unwrap();
    [&OptionHeader { option, length }.encode(), payload].concat()
}

/// Sends an option; all its replies up to the last.
pub(crate) fn ask(stream: &mut (impl Read + Write), option: u32, payload: &[u8]) -> Vec<(u32, Vec<u8>)> {
    stream.write_all(&header(option, payload)).unwrap();
    replies(stream, option)
}

/// All replies to an option that was sent, up to the last.
pub(crate) fn replies(stream: &mut impl Read, option: u32) -> Vec<(u32, Vec<u8>)> {
    let mut replies = Vec::new();
    loop {
        let mut bytes = [0; OptionReplyHeader::SIZE];
        stream.read_exact(&mut bytes).unwrap();
        let header = OptionReplyHeader::decode(&bytes).unwrap();
        assert_eq!(header.option, option);
        let mut payload = vec![0; header.length.try_into().unwrap()];
        stream.read_exact(&mut payload).unwrap();
        replies.push((header.reply, payload));
        if header.reply == NBD_REP_ACK || header.reply & NBD_REP_FLAG_ERROR != 0 {
            return replies;
        }
    }
}

/// The last reply to an option.
pub(crate) fn answer(stream: &mut (impl Read + Write), option: u32, payload: &[u8]) -> u32 {
    ask(stream, option, payload).last().unwrap().0
}

pub(crate) fn info(name: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    InfoRequest { name, wanted: Vec::new() }.encode(&mut payload);
    payload
}

/// Opens an export; its size.
pub(crate) fn go(stream: &mut (impl Read + Write), name: &str) -> u64 {
    for (reply, payload) in ask(stream, NBD_OPT_GO, &info(name)) {
        if reply == NBD_REP_INFO
            && let InfoReply::Export { size, .. } = InfoReply::decode(&payload).unwrap()
        {
            return size;
        }
    }
    panic!("the export was not opened");
}
