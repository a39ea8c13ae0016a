//! A client that says exactly what it is told to, right or wrong.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test panics when its setup fails, and uses some of this"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oma_core::traits::{Access, BlockDevice, ExportServer, ExportSpec};
use oma_core::{ExportName, Fence, Result};
use oma_nbd::protocol::{
    Chunk, ExportNameReply, ExtendedChunkHeader, ExtendedRequest, Greeting, InfoReply, InfoRequest,
    MetaContextRequest, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_SET_META_CONTEXT,
    NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NBD_REP_FLAG_ERROR, NBD_REP_INFO, NBD_REPLY_FLAG_DONE,
    OptionHeader, OptionReplyHeader, ReplyHeader, Request, SimpleReply,
};
use oma_nbd::{Server, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(4);

pub(crate) fn name(text: &str) -> ExportName {
    ExportName::parse(text).unwrap()
}

pub(crate) fn spec(text: &str, access: Access, device: Arc<dyn BlockDevice>) -> ExportSpec {
    ExportSpec { name: name(text), description: String::new(), access, fence: Fence(1), device }
}

/// A server with one writable export, `disk`.
pub(crate) async fn server(config: ServerConfig, device: Arc<dyn BlockDevice>) -> Server {
    let server = Server::new(config);
    server.publish(spec("disk", Access::ReadWrite, device)).await.unwrap();
    server
}

/// Waits until an export has no connection: a server notices that a client has gone, and tells nobody.
pub(crate) async fn left(server: &Server, export: &str) {
    let left = async {
        while server.statistics(&name(export)).await.unwrap().is_some_and(|found| found.connections > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(2 * SOON, left).await.expect("every connection ends");
}

/// A server behind real sockets: what it does with them is not what it does with memory.
pub(crate) struct Sockets {
    pub(crate) server: Server,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    listeners: JoinSet<()>,
}

impl Sockets {
    pub(crate) async fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let (shutdown, mut listeners) = (CancellationToken::new(), JoinSet::new());
        let (other, token) = (server.clone(), shutdown.clone());
        listeners.spawn(async move { other.serve_unix(unix, token).await });
        let (other, token) = (server.clone(), shutdown.clone());
        listeners.spawn(async move { other.serve_tcp(tcp, token).await });
        Self { server: server.clone(), port, folder, shutdown, listeners }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) async fn unix(&self) -> Raw<UnixStream> {
        Raw::over(UnixStream::connect(self.path()).await.unwrap())
    }

    pub(crate) async fn tcp(&self) -> Raw<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        // What is said in two parts must not wait for the acknowledgement of the first.
        stream.set_nodelay(true).unwrap();
        Raw::over(stream)
    }

    /// Shuts down: listeners and connections end by themselves.
    pub(crate) async fn close(mut self) {
        self.shutdown.cancel();
        let all = async { while self.listeners.join_next().await.transpose().unwrap().is_some() {} };
        timeout(SOON, all).await.expect("the listeners end");
    }
}

/// A connection without a word said.
pub(crate) struct Raw<S = DuplexStream> {
    pub(crate) stream: S,
    pub(crate) served: JoinHandle<Result<()>>,
}

/// What a request was answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    Data(Vec<u8>),
    Error(u32),
    /// Number of extents of each context.
    Status(Vec<usize>),
}

impl Raw {
    /// A connection whose two directions hold so many bytes.
    pub(crate) fn open(server: &Server, held: usize) -> Self {
        let (stream, other) = duplex(held);
        let server = server.clone();
        let served = tokio::spawn(async move { server.serve_stream(other, CancellationToken::new()).await });
        Self { stream, served }
    }

    /// Past greeting and client flags.
    pub(crate) async fn greeted(server: &Server) -> Self {
        let mut raw = Self::open(server, 1 << 20);
        raw.greet().await;
        raw
    }

    /// Past `GO` for `disk`, with simple replies.
    pub(crate) async fn simple(server: &Server) -> Self {
        Self::greeted(server).await.with_simple("disk").await
    }

    /// Past `GO` for `disk`, with structured replies and the contexts asked for.
    pub(crate) async fn structured(server: &Server, contexts: &[&str]) -> Self {
        Self::greeted(server).await.with_structured("disk", contexts).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// A connection whose server's end belongs to somebody else.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, served: tokio::spawn(async { Ok(()) }) }
    }

    /// Takes the greeting and answers with both flags.
    pub(crate) async fn greet(&mut self) {
        assert_eq!(Greeting::decode(&self.receive().await).unwrap().flags, 3);
        self.say(&3u32.to_be_bytes()).await;
    }

    /// Goes on from the greeting to an export, with simple replies.
    pub(crate) async fn with_simple(mut self, name: &str) -> Self {
        self.go(name).await;
        self
    }

    /// Goes on from the greeting to an export, with structured replies and the contexts asked for.
    pub(crate) async fn with_structured(mut self, name: &str, contexts: &[&str]) -> Self {
        assert_eq!(self.option(NBD_OPT_STRUCTURED_REPLY, &[]).await.last().unwrap().0, NBD_REP_ACK);
        let mut payload = Vec::new();
        MetaContextRequest { name, queries: contexts.to_vec() }.encode(&mut payload);
        let replies = self.option(NBD_OPT_SET_META_CONTEXT, &payload).await;
        assert_eq!(replies.len(), contexts.len() + 1);
        self.go(name).await;
        self
    }

    /// Goes on from the greeting to an export, with extended headers and the contexts asked for; its transmission flags.
    pub(crate) async fn with_extended(mut self, name: &str, contexts: &[&str]) -> (Self, u16) {
        assert_eq!(self.option(NBD_OPT_EXTENDED_HEADERS, &[]).await, [(NBD_REP_ACK, vec![])]);
        if !contexts.is_empty() {
            let mut payload = Vec::new();
            MetaContextRequest { name, queries: contexts.to_vec() }.encode(&mut payload);
            let replies = self.option(NBD_OPT_SET_META_CONTEXT, &payload).await;
            assert_eq!(replies.len(), contexts.len() + 1);
        }
        let flags = self.go(name).await;
        (self, flags)
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        timeout(SOON, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    pub(crate) async fn receive<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        timeout(SOON, self.stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    async fn payload(&mut self, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length.try_into().unwrap()];
        timeout(SOON, self.stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Sends an option; all replies to it.
    pub(crate) async fn option(&mut self, option: u32, payload: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let length = payload.len().try_into().unwrap();
        self.say(&OptionHeader { option, length }.encode()).await;
        self.say(payload).await;
        let mut replies = Vec::new();
        loop {
            let header = OptionReplyHeader::decode(&self.receive().await).unwrap();
            assert_eq!(header.option, option);
            replies.push((header.reply, self.payload(header.length).await));
            if header.reply == NBD_REP_ACK || header.reply & NBD_REP_FLAG_ERROR != 0 {
                return replies;
            }
        }
    }

    /// Opens an export; its transmission flags.
    pub(crate) async fn go(&mut self, name: &str) -> u16 {
        let mut payload = Vec::new();
        InfoRequest { name, wanted: vec![] }.encode(&mut payload);
        let replies = self.option(NBD_OPT_GO, &payload).await;
        assert_eq!(replies.last().unwrap().0, NBD_REP_ACK, "{replies:?}");
        let info = replies.iter().find(|(reply, _)| *reply == NBD_REP_INFO).unwrap();
        match InfoReply::decode(&info.1).unwrap() {
            InfoReply::Export { flags, .. } => flags,
            other => panic!("{other:?} before the export's size"),
        }
    }

    /// The answer to `NBD_OPT_EXPORT_NAME`.
    pub(crate) async fn export_name(&mut self, name: &str) -> ExportNameReply {
        let length = name.len().try_into().unwrap();
        let option = oma_nbd::protocol::NBD_OPT_EXPORT_NAME;
        self.say(&OptionHeader { option, length }.encode()).await;
        self.say(name.as_bytes()).await;
        ExportNameReply::decode(&self.receive().await).unwrap()
    }

    /// Sends a request; `data` follows it.
    pub(crate) async fn send(&mut self, request: Request, data: &[u8]) {
        self.say(&request.encode()).await;
        self.say(data).await;
    }

    /// Receives one whole reply; `length` is that of a read whose simple reply may come.
    pub(crate) async fn reply(&mut self, length: u32) -> (u64, Reply) {
        self.reply_to(|_| length).await
    }

    /// Receives one whole reply; the length of a read whose simple reply may come is asked for by its cookie.
    pub(crate) async fn reply_to(&mut self, length: impl Fn(u64) -> u32) -> (u64, Reply) {
        let mut counts = Vec::new();
        let mut data = None;
        loop {
            let mut head = self.receive::<{ SimpleReply::SIZE }>().await.to_vec();
            if let Some((ReplyHeader::Simple(reply), _)) = ReplyHeader::decode(&head).unwrap() {
                let answer = match (reply.error, length(reply.cookie)) {
                    (0, 0) => Reply::Done,
                    (0, length) => Reply::Data(self.payload(length).await),
                    (error, _) => Reply::Error(error),
                };
                return (reply.cookie, answer);
            }
            head.extend(self.receive::<4>().await);
            let Some((ReplyHeader::Chunk(header), _)) = ReplyHeader::decode(&head).unwrap() else {
                panic!("a chunk header is {head:?}");
            };
            let payload = self.payload(header.length).await;
            match Chunk::decode(header.kind, &payload).unwrap() {
                Chunk::None => {}
                Chunk::OffsetData { data: bytes, .. } => data = Some(Reply::Data(bytes.to_vec())),
                Chunk::OffsetHole { length, .. } => {
                    data = Some(Reply::Data(vec![0; length.try_into().unwrap()]));
                }
                Chunk::BlockStatus { descriptors, .. } => counts.push(descriptors.len()),
                Chunk::Error { error, .. } => data = Some(Reply::Error(error)),
                other => panic!("{other:?} is not expected"),
            }
            if header.flags & NBD_REPLY_FLAG_DONE != 0 {
                let done = if counts.is_empty() { Reply::Done } else { Reply::Status(counts) };
                return (header.cookie, data.unwrap_or(done));
            }
        }
    }

    /// Sends a request and receives its reply.
    pub(crate) async fn ask(&mut self, request: Request, data: &[u8]) -> Reply {
        let length = if request.command == oma_nbd::protocol::NBD_CMD_READ { request.length } else { 0 };
        self.send(request, data).await;
        let (cookie, reply) = self.reply(length).await;
        assert_eq!(cookie, request.cookie);
        reply
    }

    /// Sends an extended request and receives its reply: kind and payload of each chunk.
    pub(crate) async fn ask_extended(
        &mut self,
        request: ExtendedRequest,
        payload: &[u8],
    ) -> Vec<(u16, Vec<u8>)> {
        self.say(&request.encode()).await;
        self.say(payload).await;
        let mut chunks = Vec::new();
        loop {
            let header = ExtendedChunkHeader::decode(&self.receive().await).unwrap();
            assert_eq!((header.cookie, header.offset), (request.cookie, request.offset), "{chunks:?}");
            let payload = self.payload(header.length.try_into().unwrap()).await;
            Chunk::decode(header.kind, &payload).unwrap();
            chunks.push((header.kind, payload));
            if header.flags & NBD_REPLY_FLAG_DONE != 0 {
                return chunks;
            }
        }
    }

    /// Waits until the server has closed the connection; how that ended.
    pub(crate) async fn closed(mut self) -> Result<()> {
        let mut rest = Vec::new();
        timeout(SOON, self.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        timeout(SOON, self.served).await.unwrap().unwrap()
    }
}

pub(crate) fn request(command: u16, offset: u64, length: u32) -> Request {
    Request { flags: 0, command, cookie: 7, offset, length }
}
