//! Exports come and go while clients use them (L16, L22, L23).
#![cfg(feature = "server")]

mod raw;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use oma_core::memory::{HeldDevice, Hold, MemoryDevice};
use oma_core::traits::{Access, Drained, ExportServer, ExportSpec};
use oma_core::{ByteSize, ErrorKind, Fence};
use oma_nbd::protocol::*;
use oma_nbd::{Server, ServerConfig};
use raw::{Raw, Reply, Sockets, name, request, spec};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

const SIZE: ByteSize = ByteSize::mib(1);
const LONG: Duration = Duration::from_secs(60);

async fn held() -> (Server, MemoryDevice, Hold) {
    let (device, hold) = (MemoryDevice::new("m", SIZE), Hold::default());
    let slow = HeldDevice::new(Arc::new(device.clone()), hold.clone());
    (raw::server(ServerConfig::default(), Arc::new(slow)).await, device, hold)
}

#[tokio::test]
async fn l22_withdrawing_an_export_touches_no_other_connection() {
    let (server, _, _) = held().await;
    server.publish(spec("other", Access::ReadWrite, Arc::new(MemoryDevice::new("o", SIZE)))).await.unwrap();
    let mut other = Raw::greeted(&server).await;
    other.go("other").await;
    let mut negotiating = Raw::greeted(&server).await;
    let raw = Raw::simple(&server).await;
    assert_eq!(server.withdraw(&name("disk"), LONG).await.unwrap(), Drained::Graceful);
    raw.closed().await.unwrap();
    assert_eq!(other.ask(request(NBD_CMD_READ, 0, 3), &[]).await, Reply::Data(vec![0; 3]));
    assert_eq!(negotiating.go("other").await & NBD_FLAG_READ_ONLY, 0);
}

#[tokio::test]
async fn l23_requests_in_flight_finish_and_later_ones_are_refused() {
    let (server, device, hold) = held().await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    let other = server.clone();
    let withdrawing = tokio::spawn(async move { other.withdraw(&name("disk"), LONG).await });
    // The first answer of "going away" tells that the withdrawal has begun.
    loop {
        match raw.ask(Request { cookie: 9, ..request(99, 0, 0) }, &[]).await {
            Reply::Error(NBD_ESHUTDOWN) => break,
            reply => assert_eq!(reply, Reply::Error(NBD_EINVAL)),
        }
    }
    let late = Request { cookie: 9, ..request(NBD_CMD_WRITE, 8, 3) };
    assert_eq!(raw.ask(late, b"xyz").await, Reply::Error(NBD_ESHUTDOWN));
    let mut second = Raw::greeted(&server).await;
    let mut go = Vec::new();
    InfoRequest { name: "disk", wanted: vec![] }.encode(&mut go);
    assert_eq!(second.option(NBD_OPT_GO, &go).await[0].0, NBD_REP_ERR_UNKNOWN);
    hold.release();
    assert_eq!(raw.reply(0).await, (7, Reply::Done));
    raw.closed().await.unwrap();
    assert_eq!(withdrawing.await.unwrap().unwrap(), Drained::Graceful);
    assert_eq!(&device.bytes()[..11], b"abc\0\0\0\0\0\0\0\0");
}

#[tokio::test(start_paused = true)]
async fn l23_a_client_that_does_not_read_is_cut_at_the_deadline() {
    let server =
        raw::server(ServerConfig::default(), Arc::new(MemoryDevice::new("m", ByteSize::mib(4)))).await;
    let mut raw = Raw::simple(&server).await;
    raw.send(request(NBD_CMD_READ, 0, 4 << 20), &[]).await;
    raw.receive::<16>().await;
    assert_eq!(server.withdraw(&name("disk"), Duration::from_secs(1)).await.unwrap(), Drained::Cut);
    assert_eq!(raw.served.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn l23_a_device_that_does_not_answer_keeps_its_export_until_it_does() {
    let (server, device, hold) = held().await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    let error = server.withdraw(&name("disk"), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let taken = spec("again", Access::ReadWrite, Arc::new(device.clone()));
    assert_eq!(
        server.publish(taken.clone()).await.unwrap_err().kind(),
        ErrorKind::Conflict,
        "a write may land yet"
    );
    hold.release();
    assert_eq!(server.withdraw(&name("disk"), Duration::from_secs(1)).await.unwrap(), Drained::Graceful);
    server.publish(taken).await.unwrap();
    let _ = raw.served.await.unwrap();
}

#[tokio::test]
async fn l06_a_withdrawn_export_leaves_its_device_to_whoever_comes_next() {
    let device = Arc::new(MemoryDevice::new("m", SIZE));
    let server = raw::server(ServerConfig::default(), device.clone()).await;
    let opened = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    // Nor does a client that has only asked so far keep it open.
    let mut asking = Raw::greeted(&server).await;
    asking.option(NBD_OPT_STRUCTURED_REPLY, &[]).await;
    let mut contexts = Vec::new();
    MetaContextRequest { name: "disk", queries: vec![BASE_ALLOCATION] }.encode(&mut contexts);
    assert_eq!(asking.option(NBD_OPT_SET_META_CONTEXT, &contexts).await.len(), 2);
    assert_eq!(server.withdraw(&name("disk"), LONG).await.unwrap(), Drained::Graceful);
    assert_eq!(Arc::strong_count(&device), 1);
    opened.closed().await.unwrap();
    // What was chosen of the old export is no choice of the new one.
    server.publish(spec("disk", Access::ReadWrite, device)).await.unwrap();
    asking.go("disk").await;
    let status = asking.ask(request(NBD_CMD_BLOCK_STATUS, 0, 512), &[]).await;
    assert_eq!(status, Reply::Error(NBD_EINVAL));
}

#[tokio::test(start_paused = true)]
async fn l23_a_connection_that_is_dropped_keeps_its_export_until_its_device_has_answered() {
    let (server, device, hold) = held().await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    raw.served.abort();
    assert!((&mut raw.served).await.unwrap_err().is_cancelled());
    let error = server.withdraw(&name("disk"), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "a write may land yet");
    hold.release();
    assert_eq!(server.withdraw(&name("disk"), LONG).await.unwrap(), Drained::Graceful);
    assert_eq!(&device.bytes()[..3], b"abc");
}

#[tokio::test]
async fn l23_a_listener_that_does_not_wait_for_a_device_leaves_its_export_busy() {
    let (device, hold) = (MemoryDevice::new("m", SIZE), Hold::default());
    let slow = HeldDevice::new(Arc::new(device.clone()), hold.clone());
    let config = ServerConfig { drain_timeout: Duration::from_millis(10), ..ServerConfig::default() };
    let server = raw::server(config, Arc::new(slow)).await;
    let sockets = Sockets::new(&server).await;
    let mut raw = sockets.unix().await;
    raw.greet().await;
    let mut raw = raw.with_simple("disk").await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    sockets.close().await;
    let error = server.withdraw(&name("disk"), Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "a write may land yet");
    hold.release();
    assert_eq!(server.withdraw(&name("disk"), LONG).await.unwrap(), Drained::Graceful);
    assert_eq!(&device.bytes()[..3], b"abc");
}

/// A stream that never ends: as TLS does whose goodbye finds no room, because nobody reads.
struct Endless(DuplexStream);

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Endless {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

async fn endless(server: &Server) -> Raw {
    let (stream, far) = tokio::io::duplex(1 << 16);
    let other = server.clone();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let served = tokio::spawn(async move { other.serve_stream(Endless(far), shutdown).await });
    let mut raw = Raw { stream, served };
    raw.greet().await;
    raw.with_simple("disk").await
}

#[tokio::test(start_paused = true)]
async fn l23_a_goodbye_that_nobody_reads_keeps_no_export() {
    let (server, _, _) = held().await;
    let raw = endless(&server).await;
    assert_eq!(server.withdraw(&name("disk"), Duration::from_secs(1)).await.unwrap(), Drained::Cut);
    raw.served.await.unwrap().unwrap();
    // Nor does it keep a connection's place.
    let (server, _, _) = held().await;
    let mut raw = endless(&server).await;
    raw.send(request(NBD_CMD_DISC, 0, 0), &[]).await;
    raw.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn l16_a_newer_token_cuts_the_clients_of_the_older_one() {
    let (server, device, hold) = held().await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    let other = server.clone();
    let newer = ExportSpec { fence: Fence(2), ..spec("disk", Access::ReadWrite, Arc::new(device.clone())) };
    let publishing = tokio::spawn(async move { other.publish(newer).await });
    // The old client is cut off at once; its write is waited for.
    let stream = raw.stream;
    let mut gone = Raw { stream, served: tokio::spawn(async { Ok(()) }) };
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut gone.stream, &mut rest).await.unwrap();
    assert!(rest.is_empty() && !publishing.is_finished());
    hold.release();
    assert_eq!(publishing.await.unwrap().unwrap().fence, Fence(2));
    assert_eq!(&device.bytes()[..3], b"abc");
    let stale = ExportSpec { fence: Fence(1), ..spec("disk", Access::ReadWrite, Arc::new(device)) };
    assert_eq!(server.publish(stale).await.unwrap_err().kind(), ErrorKind::Fenced);
    Raw::simple(&server).await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_shut_down_lets_requests_finish() {
    let (server, device, hold) = held().await;
    let (stream, far) = tokio::io::duplex(1 << 16);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (other, token) = (server.clone(), shutdown.clone());
    let served = tokio::spawn(async move { other.serve_stream(far, token).await });
    let mut raw = Raw { stream, served };
    raw.receive::<{ Greeting::SIZE }>().await;
    raw.say(&3u32.to_be_bytes()).await;
    raw.go("disk").await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    shutdown.cancel();
    hold.release();
    assert_eq!(raw.reply(0).await, (7, Reply::Done));
    raw.closed().await.unwrap();
    assert_eq!(&device.bytes()[..3], b"abc");
    assert_eq!(server.statistics(&name("disk")).await.unwrap().unwrap().connections, 0);
}
