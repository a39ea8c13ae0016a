//! A server that does as it should, but for what a test changes.

use std::time::Duration;

use oma_nbd::protocol::{
    BASE_ALLOCATION, ExportNameReply, Greeting, InfoReply, MetaContextReply, MetaContextRequest,
    NBD_CMD_WRITE, NBD_FLAG_HAS_FLAGS, NBD_FLAG_SEND_FLUSH, NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME, NBD_OPT_GO,
    NBD_OPT_LIST, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK,
    NBD_REP_ERR_UNSUP, NBD_REP_INFO, NBD_REP_META_CONTEXT, OptionHeader, OptionReplyHeader, Request,
};
use oma_nbd::{ClientConfig, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

/// The export's size.
pub(crate) const SIZE: u64 = 1 << 20;
/// The id of `base:allocation`.
pub(crate) const ALLOCATION: u32 = 5;

/// What an option is answered with instead of the truth; `None` for the truth.
pub(crate) type OnOption = Box<dyn FnMut(u32) -> Option<Vec<u8>> + Send>;
/// What a request is answered with.
pub(crate) type OnRequest = Box<dyn FnMut(Request) -> Vec<u8> + Send>;

/// A server for as many connections as come, one after the other.
pub(crate) struct Liar {
    folder: tempfile::TempDir,
    _serving: AbortOnDropHandle<()>,
}

impl Liar {
    pub(crate) fn new(on_option: OnOption, on_request: OnRequest) -> Self {
        Self::cut(usize::MAX, on_option, on_request)
    }

    /// One that tells the truth about options.
    pub(crate) fn answering(on_request: impl FnMut(Request) -> Vec<u8> + Send + 'static) -> Self {
        Self::new(Box::new(|_| None), Box::new(on_request))
    }

    /// One that answers an option as `lie` says.
    pub(crate) fn negotiating(lie: impl FnMut(u32) -> Option<Vec<u8>> + Send + 'static) -> Self {
        Self::new(Box::new(lie), Box::new(|_| Vec::new()))
    }

    /// One that hangs up after so many bytes.
    pub(crate) fn cut(bytes: usize, mut on_option: OnOption, mut on_request: OnRequest) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = Session { stream, left: bytes }.serve(&mut on_option, &mut on_request).await;
            }
        });
        Self { folder, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn uri(&self) -> Uri {
        Uri::unix(self.folder.path().join("socket"), "disk").unwrap()
    }

    pub(crate) async fn connect(&self) -> oma_core::Result<oma_nbd::Client> {
        oma_nbd::Client::connect(&self.uri(), config()).await
    }
}

/// One connection, because the server takes no second one; short times, so that what hangs is found soon.
pub(crate) fn config() -> ClientConfig {
    let soon = Duration::from_secs(4);
    ClientConfig { connections: 1, connect_timeout: soon, request_timeout: soon, ..ClientConfig::default() }
}

struct Session {
    stream: UnixStream,
    left: usize,
}

impl Session {
    async fn serve(mut self, on_option: &mut OnOption, on_request: &mut OnRequest) -> std::io::Result<()> {
        self.say(&Greeting { flags: 3 }.encode()).await?;
        self.stream.read_exact(&mut [0; 4]).await?;
        loop {
            let mut header = [0; OptionHeader::SIZE];
            self.stream.read_exact(&mut header).await?;
            let OptionHeader { option, length } = OptionHeader::decode(&header).unwrap();
            let mut payload = vec![0; length.try_into().unwrap()];
            self.stream.read_exact(&mut payload).await?;
            let answer = on_option(option).unwrap_or_else(|| truth(option, &payload));
            self.say(&answer).await?;
            match option {
                NBD_OPT_ABORT => return Ok(()),
                NBD_OPT_GO | NBD_OPT_EXPORT_NAME => break,
                _ => {}
            }
        }
        loop {
            let mut header = [0; Request::SIZE];
            self.stream.read_exact(&mut header).await?;
            let request = Request::decode(&header).unwrap();
            if request.command == NBD_CMD_WRITE {
                self.stream.read_exact(&mut vec![0; request.length.try_into().unwrap()]).await?;
            }
            self.say(&on_request(request)).await?;
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let now = bytes.len().min(self.left);
        self.left -= now;
        self.stream.write_all(&bytes[..now]).await?;
        if now < bytes.len() {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// A reply to an option.
pub(crate) fn reply(option: u32, reply: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len().try_into().unwrap();
    [&OptionReplyHeader { option, reply, length }.encode()[..], payload].concat()
}

pub(crate) fn ack(option: u32) -> Vec<u8> {
    reply(option, NBD_REP_ACK, &[])
}

/// The answer to `GO` of an export of this size.
pub(crate) fn go(size: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    let flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH;
    InfoReply::Export { size, flags }.encode(&mut payload);
    [reply(NBD_OPT_GO, NBD_REP_INFO, &payload), ack(NBD_OPT_GO)].concat()
}

fn truth(option: u32, payload: &[u8]) -> Vec<u8> {
    match option {
        NBD_OPT_GO => go(SIZE),
        NBD_OPT_EXPORT_NAME => ExportNameReply { size: SIZE, flags: NBD_FLAG_HAS_FLAGS }.encode().to_vec(),
        NBD_OPT_SET_META_CONTEXT | NBD_OPT_LIST_META_CONTEXT => {
            let asked = MetaContextRequest::decode(payload).unwrap().queries;
            let mut context = Vec::new();
            MetaContextReply { id: ALLOCATION, name: BASE_ALLOCATION }.encode(&mut context);
            let told = asked.is_empty() || asked.contains(&BASE_ALLOCATION);
            let context = reply(option, NBD_REP_META_CONTEXT, &context);
            [if told { context } else { Vec::new() }, ack(option)].concat()
        }
        NBD_OPT_STRUCTURED_REPLY | NBD_OPT_ABORT | NBD_OPT_LIST => ack(option),
        _ => reply(option, NBD_REP_ERR_UNSUP, &[]),
    }
}
