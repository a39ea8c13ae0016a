//! Connections of one client to a server made of a script.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oma_core::traits::{BlockDevice, Durability};
use oma_core::{Error, ErrorKind, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::client::{Client, ClientConfig};
use crate::protocol::{
    ExportNameReply, Greeting, NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_WRITE, NBD_EIO,
    NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_HAS_FLAGS, NBD_FLAG_NO_ZEROES, NBD_FLAG_SEND_FLUSH, Request,
    SimpleReply,
};
use crate::uri::Uri;

const BLOCK: usize = 512;

struct Server {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

/// One connection, seen from the server.
struct Session(UnixStream);

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Self { folder, listener }
    }

    fn uri(&self) -> Uri {
        Uri::unix(self.folder.path().join("socket"), "disk").unwrap()
    }

    /// The next connection, brought into transmission.
    async fn accept(&self, size: u64) -> Session {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.write_all(&Greeting { flags: NBD_FLAG_NO_ZEROES }.encode()).await.unwrap();
        let mut said = [0; 4 + 16 + 4];
        stream.read_exact(&mut said).await.unwrap();
        let flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_FLUSH;
        stream.write_all(&ExportNameReply { size, flags }.encode()).await.unwrap();
        Session(stream)
    }

    /// A client with its first connection.
    async fn client(&self) -> (Client, Session) {
        let uri = self.uri();
        let (client, session) =
            tokio::join!(Client::connect(&uri, ClientConfig::default()), self.accept(1 << 20));
        (client.unwrap(), session)
    }
}

impl Session {
    async fn request(&mut self) -> Request {
        let mut header = [0; Request::SIZE];
        self.0.read_exact(&mut header).await.unwrap();
        Request::decode(&header).unwrap()
    }

    async fn reply(&mut self, cookie: u64, data: &[u8]) {
        let reply = SimpleReply { error: 0, cookie }.encode();
        self.0.write_all(&[&reply, data].concat()).await.unwrap();
    }

    /// Takes a write; its cookie.
    async fn take_write(&mut self) -> u64 {
        let request = self.request().await;
        assert_eq!(request.command, NBD_CMD_WRITE);
        self.0.read_exact(&mut [0; BLOCK]).await.unwrap();
        request.cookie
    }

    async fn serve_flush(&mut self) {
        let request = self.request().await;
        assert_eq!(request.command, NBD_CMD_FLUSH);
        self.reply(request.cookie, &[]).await;
    }

    async fn serve_read(&mut self, fill: u8) {
        let request = self.request().await;
        assert_eq!(request.command, NBD_CMD_READ);
        self.reply(request.cookie, &[fill; BLOCK]).await;
    }
}

fn data() -> Bytes {
    Bytes::from_static(&[1; BLOCK])
}

fn buffer() -> BytesMut {
    BytesMut::zeroed(BLOCK)
}

#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind, retry: Retry) {
    assert_eq!((error.kind(), error.retry()), (kind, retry), "{}", error.chain());
}

#[tokio::test]
async fn a_violation_ends_its_connection_and_others_live_on() {
    let server = Server::new();
    let (client, mut first) = server.client().await;
    // The first request goes to the first connection, the second opens another.
    let (read, ()) = tokio::join!(client.read_at(0, buffer()), first.serve_read(1));
    assert_eq!(read.unwrap(), [1; BLOCK][..]);
    let mut second = None;
    let (good, bad, ()) = tokio::join!(client.read_at(0, buffer()), client.read_at(0, buffer()), async {
        let mut session = server.accept(1 << 20).await;
        session.serve_read(2).await;
        second = Some(session);
        first.request().await;
        first.reply(4711, &[]).await;
    });
    let outcomes = [good, bad];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let error = outcomes.into_iter().find_map(Result::err).unwrap();
    assert_error(&error, ErrorKind::Corrupt, Retry::Never);
    assert!(error.chain().contains("cookie 0x1267"), "{}", error.chain());
}

#[tokio::test]
async fn a_lost_connection_fails_what_is_under_way_and_the_next_request_opens_another() {
    let server = Server::new();
    let (client, mut first) = server.client().await;
    let (lost, ()) = tokio::join!(client.read_at(0, buffer()), async move {
        first.request().await;
        drop(first);
    });
    assert_error(&lost.unwrap_err(), ErrorKind::Unavailable, Retry::Later);
    let (read, ()) = tokio::join!(client.read_at(0, buffer()), async {
        server.accept(1 << 20).await.serve_read(3).await;
    });
    assert_eq!(read.unwrap(), [3; BLOCK][..]);
}

#[tokio::test]
async fn another_size_after_a_loss_is_a_conflict() {
    let server = Server::new();
    let (client, mut first) = server.client().await;
    let (lost, ()) = tokio::join!(client.read_at(0, buffer()), async move {
        first.request().await;
        drop(first);
    });
    lost.unwrap_err();
    let (read, _session) = tokio::join!(client.read_at(0, buffer()), server.accept(2 << 20));
    let error = read.unwrap_err();
    assert_error(&error, ErrorKind::Conflict, Retry::Never);
    assert!(error.chain().contains("the export changed"), "{}", error.chain());
}

#[tokio::test]
async fn replies_may_come_in_another_order_and_in_pieces() {
    let server = Server::new();
    let config = ClientConfig { connections: 1, ..ClientConfig::default() };
    let uri = server.uri();
    let (client, mut session) = tokio::join!(Client::connect(&uri, config), server.accept(1 << 20));
    let client = client.unwrap();
    let (one, two, ()) = tokio::join!(client.read_at(0, buffer()), client.read_at(512, buffer()), async {
        let (one, two) = (session.request().await, session.request().await);
        let fill = |request: &Request| if request.offset == 0 { 1 } else { 2 };
        for request in [two, one] {
            let reply = SimpleReply { error: 0, cookie: request.cookie }.encode();
            for piece in [&reply[..], &[fill(&request); BLOCK]].concat().chunks(100) {
                session.0.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    assert_eq!(
        (one.unwrap(), two.unwrap()),
        (BytesMut::from(&[1; BLOCK][..]), BytesMut::from(&[2; BLOCK][..]))
    );
}

#[tokio::test]
async fn a_flush_does_not_vouch_for_writes_of_a_lost_connection() {
    let server = Server::new();
    let (client, mut first) = server.client().await;
    let (written, ()) = tokio::join!(client.write_at(0, data(), Durability::Cached), async move {
        let cookie = first.take_write().await;
        first.reply(cookie, &[]).await;
    });
    written.unwrap();
    let (read, mut second) = tokio::join!(
        async {
            // The loss may be seen only by the request that meets it.
            match client.read_at(0, buffer()).await {
                Err(_) => client.read_at(0, buffer()).await,
                read => read,
            }
        },
        async {
            let mut session = server.accept(1 << 20).await;
            session.serve_read(0).await;
            session
        }
    );
    read.unwrap();
    assert_error(&client.flush().await.unwrap_err(), ErrorKind::Unavailable, Retry::Never);
    let (flushed, ()) = tokio::join!(client.flush(), second.serve_flush());
    flushed.unwrap();
}

#[tokio::test]
async fn l08_a_flush_does_not_vouch_for_a_write_that_was_under_way_when_it_was_sent() {
    let server = Server::new();
    let (client, mut first) = server.client().await;
    let (written, flushed, ()) =
        tokio::join!(client.write_at(0, data(), Durability::Cached), client.flush(), async move {
            let write = first.take_write().await;
            // Whoever does the flush first has not seen the write.
            first.serve_flush().await;
            first.reply(write, &[]).await;
        });
    written.unwrap();
    flushed.unwrap();
    // Another server has taken the place of the first, which is gone with the write.
    let flush = async {
        match client.flush().await {
            // The loss may be seen only by the request that meets it.
            Err(error) if error.retry() == Retry::Later => client.flush().await,
            flushed => flushed,
        }
    };
    let successor = async {
        let mut session = server.accept(1 << 20).await;
        loop {
            session.serve_flush().await;
        }
    };
    let flushed = tokio::select! {
        flushed = flush => flushed,
        () = successor => unreachable!("it serves as long as it is asked"),
    };
    assert_error(&flushed.unwrap_err(), ErrorKind::Unavailable, Retry::Never);
}

#[tokio::test]
async fn l08_a_flush_goes_to_the_server_that_took_the_writes() {
    let server = Server::new();
    let (client, mut first) = server.client().await;
    let (written, ()) = tokio::join!(client.write_at(0, data(), Durability::Cached), async {
        let cookie = first.take_write().await;
        first.reply(cookie, &[]).await;
    });
    written.unwrap();
    // The first connection is busy: what could go over another one does. But whatever listens there by now, the write
    // is not its.
    let (read, flushed, ()) = tokio::join!(client.read_at(0, buffer()), client.flush(), async {
        let read = first.request().await;
        assert_eq!(read.command, NBD_CMD_READ);
        tokio::select! {
            () = first.serve_flush() => {}
            _ = server.accept(1 << 20) => panic!("the flush went elsewhere"),
        }
        first.reply(read.cookie, &[1; BLOCK]).await;
    });
    read.unwrap();
    flushed.unwrap();
}

#[tokio::test]
async fn l08_each_write_that_a_flush_should_have_made_durable_hears_of_a_loss() {
    let server = Server::new();
    let config = ClientConfig { connections: 1, ..ClientConfig::default() };
    let uri = server.uri();
    let (client, mut first) = tokio::join!(Client::connect(&uri, config), server.accept(1 << 20));
    let client = client.unwrap();
    let durable = |offset| client.write_at(offset, data(), Durability::Durable);
    let successor = async {
        let (one, two) = (first.take_write().await, first.take_write().await);
        first.reply(one, &[]).await;
        first.reply(two, &[]).await;
        drop(first);
        let mut session = server.accept(1 << 20).await;
        loop {
            session.serve_flush().await;
        }
    };
    let (one, two) = tokio::select! {
        written = async { tokio::join!(durable(0), durable(512)) } => written,
        () = successor => unreachable!("it serves as long as it is asked"),
    };
    for written in [one, two] {
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_dropped_request_leaves_its_connection_in_order() {
    let server = Server::new();
    let config = ClientConfig { connections: 1, ..ClientConfig::default() };
    let uri = server.uri();
    let (client, mut session) = tokio::join!(Client::connect(&uri, config), server.accept(1 << 20));
    let client = client.unwrap();
    let request = tokio::select! {
        _ = client.read_at(0, buffer()) => panic!("nobody answered"),
        request = session.request() => request,
    };
    let (read, ()) = tokio::join!(client.read_at(512, buffer()), async {
        session.reply(request.cookie, &[9; BLOCK]).await;
        session.serve_read(4).await;
    });
    assert_eq!(read.unwrap(), [4; BLOCK][..]);
}

#[tokio::test]
async fn closing_says_goodbye_and_dropping_cuts() {
    let server = Server::new();
    let (client, mut session) = server.client().await;
    let ((), request) = tokio::join!(client.close(), session.request());
    assert_eq!(request.command, NBD_CMD_DISC);
    assert_eq!(session.0.read(&mut [0]).await.unwrap(), 0, "nothing comes behind it");

    let (client, mut session) = server.client().await;
    drop(client);
    assert_eq!(session.0.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_write_that_fails_leaves_none_of_its_pieces_under_way() {
    const PIECE: usize = 32 << 20;
    let server = Server::new();
    let config = ClientConfig { connections: 1, ..ClientConfig::default() };
    let uri = server.uri();
    let (client, mut session) = tokio::join!(Client::connect(&uri, config), server.accept(64 << 20));
    let client = client.unwrap();
    let answered = std::cell::Cell::new(0);
    let write = async {
        let written = client.write_at(0, Bytes::from(vec![1; PIECE + BLOCK]), Durability::Cached).await;
        (written, answered.get())
    };
    let ((written, answers), ()) = tokio::join!(write, async {
        let mut cookies = Vec::new();
        for length in [PIECE, BLOCK] {
            cookies.push(session.request().await.cookie);
            session.0.read_exact(&mut vec![0; length]).await.unwrap();
        }
        let refused = SimpleReply { error: NBD_EIO, cookie: cookies[0] };
        session.0.write_all(&refused.encode()).await.unwrap();
        // Whoever hears of what came behind it has heard of it, and been asked once more.
        let (read, ()) = tokio::join!(client.read_at(0, buffer()), session.serve_read(5));
        read.unwrap();
        tokio::task::yield_now().await;
        answered.set(2);
        session.reply(cookies[1], &[]).await;
    });
    assert_error(&written.unwrap_err(), ErrorKind::Unavailable, Retry::Later);
    assert_eq!(answers, 2, "a piece could have landed behind what is written next");
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_ends_its_connection() {
    let server = Server::new();
    let request_timeout = Duration::from_secs(1);
    let config = ClientConfig { connections: 1, request_timeout, ..ClientConfig::default() };
    let uri = server.uri();
    let (client, mut first) = tokio::join!(Client::connect(&uri, config), server.accept(1 << 20));
    let client = client.unwrap();
    let (read, request) = tokio::join!(client.read_at(0, buffer()), first.request());
    assert_error(&read.unwrap_err(), ErrorKind::Unavailable, Retry::Later);
    // Nobody can tell what comes over it now.
    let _ = first.0.write_all(&SimpleReply { error: 0, cookie: request.cookie }.encode()).await;
    let (read, ()) = tokio::join!(client.read_at(0, buffer()), async {
        let accepted = tokio::time::timeout(Duration::from_secs(4), server.accept(1 << 20)).await;
        accepted.expect("another connection").serve_read(5).await;
    });
    assert_eq!(read.unwrap(), [5; BLOCK][..]);
}
