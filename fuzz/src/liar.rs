//! A server that lies, and a client that uses it.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oma_core::Extent;
use oma_core::traits::{BlockDevice, Durability, Zeroing};
use oma_nbd::protocol::{
    BASE_ALLOCATION, Chunk, ChunkHeader, Descriptor, ExportNameReply, ExtendedChunkHeader,
    ExtendedDescriptor, ExtendedRequest, Greeting, Headers, InfoReply, ListReply, MetaContextReply,
    NBD_CMD_BLOCK_STATUS, NBD_CMD_READ, NBD_CMD_WRITE, NBD_FLAG_HAS_FLAGS, NBD_OPT_ABORT,
    NBD_OPT_EXPORT_NAME, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_LIST,
    NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK,
    NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_UNSUP, NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER,
    NBD_REPLY_FLAG_DONE, OptionHeader, OptionReplyHeader, Request, SimpleReply,
};
use oma_nbd::{Client, ClientConfig, Uri, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::dice::Dice;

const BITMAP: &str = "qemu:dirty-bitmap:b0";
/// Bytes of each call.
const LENGTH: usize = 4096;

/// Lets a client use a server that makes these choices.
///
/// # Panics
/// When a call of the client does not come to an end, or answers another number of bytes.
pub fn use_client(choices: &[u8]) {
    // While both wait for each other, time jumps to the next deadline.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        // The fuzzer's main program is C's, which lets a closed socket end the process; a handler, once set, stays.
        let _pipe = signal(SignalKind::pipe()).expect("a handler can be set");
        let folder = tempfile::tempdir().expect("there is room for a socket");
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("nobody else has it");
        let uri = Uri::unix(&socket, "disk").expect("it is short");
        let mut dice = Dice::new(choices);
        let lies = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                // The client may hang up at any time.
                let _ = Liar { stream, dice: &mut dice, headers: Headers::Simple }.serve().await;
            }
        };
        tokio::select! {
            () = lies => {}
            ended = tokio::time::timeout(Duration::from_secs(3600), calls(&uri)) => ended.expect("the calls end"),
        }
    });
}

/// Every call that a client has.
async fn calls(uri: &Uri) {
    let config =
        ClientConfig { connections: 2, contexts: vec![BITMAP.to_owned()], ..ClientConfig::default() };
    let _ = client::list(uri, &config).await;
    let _ = client::list_contexts(uri, "qemu:", &config).await;
    let Ok(client) = Client::connect(uri, config).await else { return };
    for round in 0..2 {
        if let Ok(read) = client.read_at(round * 8192, BytesMut::zeroed(LENGTH)).await {
            assert_eq!(read.len(), LENGTH);
        }
        let extent = Extent::new(round * 512, 8192).expect("it is no extent without bytes");
        let _ = client.write_at(4096, Bytes::from_static(&[7; LENGTH]), Durability::Durable).await;
        let _ = client.write_zeroes(extent, Zeroing::Punch, Durability::Cached).await;
        let _ = client.zero_fast(extent, Zeroing::Allocate, Durability::Cached).await;
        let _ = client.trim(extent).await;
        let _ = client.cache(extent).await;
        let _ = client.flush().await;
        if let Ok(found) = client.block_status(extent).await {
            assert!(found.first().is_some_and(|first| first.extent.offset() == extent.offset()));
            assert!(found.windows(2).all(|pair| pair[0].extent.end() == pair[1].extent.offset()));
            assert!(found.last().is_some_and(|last| last.extent.end() <= extent.end()));
        }
        if let Ok(dirty) = client.dirty_extents("b0", extent).await {
            assert!(dirty.iter().all(|part| part.offset() >= extent.offset() && part.end() <= extent.end()));
        }
    }
    client.close().await;
}

struct Liar<'a, 'b> {
    stream: UnixStream,
    dice: &'a mut Dice<'b>,
    headers: Headers,
}

impl Liar<'_, '_> {
    async fn serve(mut self) -> io::Result<()> {
        let flags = if self.dice.once_in(16) { u16::from(self.dice.byte()) } else { 3 };
        self.say(&Greeting { flags }.encode()).await?;
        self.stream.read_exact(&mut [0; 4]).await?;
        while self.option().await? {}
        loop {
            let request = if self.headers == Headers::Extended {
                let mut header = [0; ExtendedRequest::SIZE];
                self.stream.read_exact(&mut header).await?;
                ExtendedRequest::decode(&header).map_err(io::Error::other)?
            } else {
                let mut header = [0; Request::SIZE];
                self.stream.read_exact(&mut header).await?;
                Request::decode(&header).map_err(io::Error::other)?.into()
            };
            if request.command == NBD_CMD_WRITE || request.has_payload() {
                let length = usize::try_from(request.length).expect("payloads are short");
                self.stream.read_exact(&mut vec![0; length]).await?;
            }
            self.answer(request).await?;
        }
    }

    /// Says something, or only a part of it, or something else.
    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut said = bytes.to_vec();
        if self.dice.once_in(32) {
            match self.dice.below(3) {
                0 => said.truncate(usize::from(self.dice.byte()) % (said.len() + 1)),
                1 if !said.is_empty() => {
                    let at = usize::from(self.dice.byte()) % said.len();
                    said[at] ^= 1 << self.dice.below(8);
                }
                _ => said.extend(self.dice.bytes(40)),
            }
        }
        self.stream.write_all(&said).await?;
        match self.dice.is_empty() || self.dice.once_in(64) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    /// Answers an option; whether another may follow.
    async fn option(&mut self) -> io::Result<bool> {
        let mut header = [0; OptionHeader::SIZE];
        self.stream.read_exact(&mut header).await?;
        let header = OptionHeader::decode(&header).expect("the client's options are well formed");
        self.stream.read_exact(&mut vec![0; usize::try_from(header.length).expect("it is short")]).await?;
        let option = header.option;
        if option == NBD_OPT_EXPORT_NAME {
            let (size, flags) = (self.size(), NBD_FLAG_HAS_FLAGS | u16::from(self.dice.byte()));
            self.say(&ExportNameReply { size, flags }.encode()).await?;
            return Ok(false);
        }
        let known = [
            NBD_OPT_STRUCTURED_REPLY,
            NBD_OPT_EXTENDED_HEADERS,
            NBD_OPT_GO,
            NBD_OPT_INFO,
            NBD_OPT_LIST,
            NBD_OPT_ABORT,
        ];
        let meta = [NBD_OPT_SET_META_CONTEXT, NBD_OPT_LIST_META_CONTEXT].contains(&option);
        if self.dice.once_in(12) || !(meta || known.contains(&option)) {
            let reply = self.dice.one_of(&[NBD_REP_ERR_UNSUP, NBD_REP_ERR_UNKNOWN, NBD_REP_ACK, 1 << 31, 9]);
            let text = self.dice.bytes(20);
            self.reply(option, reply, text).await?;
            self.agree(option, reply);
            return Ok(true);
        }
        for (kind, payload) in self.items(option) {
            self.reply(option, kind, &payload).await?;
        }
        self.agree(option, NBD_REP_ACK);
        self.reply(option, NBD_REP_ACK, &[]).await?;
        Ok(option != NBD_OPT_GO)
    }

    /// Notes what the client takes for agreed, unless the reply is spoilt on its way.
    fn agree(&mut self, option: u32, reply: u32) {
        match (option, reply) {
            (NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK) => self.headers = Headers::Extended,
            (NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK) => self.headers = Headers::Structured,
            _ => {}
        }
    }

    /// What an option is told before its end.
    fn items(&mut self, option: u32) -> Vec<(u32, Vec<u8>)> {
        let mut items = Vec::new();
        let mut item = |kind, fill: &dyn Fn(&mut Vec<u8>)| {
            let mut payload = Vec::new();
            fill(&mut payload);
            items.push((kind, payload));
        };
        match option {
            NBD_OPT_GO | NBD_OPT_INFO => {
                let high = u16::from(self.dice.byte()) << 5;
                let (size, flags) =
                    (self.size(), u16::from(self.dice.byte()) << 2 | high | NBD_FLAG_HAS_FLAGS);
                item(NBD_REP_INFO, &|out| InfoReply::Export { size, flags }.encode(out));
                if self.dice.once_in(2) {
                    let minimum = self.dice.one_of(&[1, 512, 4096, 0, 3, u32::MAX]);
                    let preferred = self.dice.one_of(&[4096, 65536, 0, 1]);
                    let maximum = self.dice.one_of(&[1 << 25, u32::MAX, 4096, 512, 0]);
                    item(NBD_REP_INFO, &|out| {
                        InfoReply::BlockSize { minimum, preferred, maximum }.encode(out);
                    });
                }
            }
            NBD_OPT_SET_META_CONTEXT | NBD_OPT_LIST_META_CONTEXT => {
                for (name, id) in [(BASE_ALLOCATION, 1), (BITMAP, 2)] {
                    for _ in 0..=usize::from(self.dice.once_in(16)) {
                        item(NBD_REP_META_CONTEXT, &|out| MetaContextReply { id, name }.encode(out));
                    }
                }
            }
            NBD_OPT_LIST => {
                for _ in 0..self.dice.below(4) {
                    item(NBD_REP_SERVER, &|out| {
                        ListReply { name: "disk", description: "a disk" }.encode(out);
                    });
                }
            }
            _ => {}
        }
        items
    }

    fn size(&mut self) -> u64 {
        self.dice.one_of(&[1 << 20, 1 << 20, 1 << 20, 0, 1000, 1 << 63, u64::MAX, (1 << 63) - 512])
    }

    async fn reply(&mut self, option: u32, reply: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("payloads are short");
        let length = if self.dice.once_in(64) { u32::MAX } else { length };
        self.say(&[&OptionReplyHeader { option, reply, length }.encode()[..], payload].concat()).await
    }

    async fn answer(&mut self, request: ExtendedRequest) -> io::Result<()> {
        let cookie = request.cookie.wrapping_add(u64::from(self.dice.once_in(32)));
        let mut bytes = Vec::new();
        let told = request.command == NBD_CMD_READ || request.command == NBD_CMD_BLOCK_STATUS;
        let simple = match self.headers {
            Headers::Simple => !self.dice.once_in(32),
            Headers::Structured => !told || self.dice.once_in(16),
            Headers::Extended => self.dice.once_in(64),
        };
        if simple {
            let error = if self.dice.once_in(8) { u32::from(self.dice.byte()) } else { 0 };
            bytes.extend(SimpleReply { error, cookie }.encode());
            if request.command == NBD_CMD_READ && error == 0 {
                bytes.resize(bytes.len() + usize::try_from(request.length).expect("it is short"), 7);
            }
            return self.say(&bytes).await;
        }
        if !told {
            let done =
                if self.dice.once_in(8) { self.chunk(&request, request.offset, 1) } else { Chunk::None };
            self.put(&request, &done, NBD_REPLY_FLAG_DONE, cookie, &mut bytes);
            return self.say(&bytes).await;
        }
        let mut at = 0;
        for last in [false, false, true] {
            let rest = request.length.saturating_sub(at);
            let length = if last { rest } else { u64::from(self.dice.byte()).min(rest) };
            let offset = request.offset + at + u64::from(self.dice.once_in(32));
            at += length;
            let flags = if last { NBD_REPLY_FLAG_DONE } else { 0 };
            let chunk = self.chunk(&request, offset, u32::try_from(length).unwrap_or(u32::MAX));
            self.put(&request, &chunk, flags, cookie, &mut bytes);
        }
        if self.dice.once_in(32) {
            let (kind, length) = (self.dice.number() as u16, u32::from(self.dice.byte()));
            bytes.extend(ChunkHeader { flags: 0, kind, cookie, length }.encode());
            let (offset, length) = (request.offset, self.dice.number());
            bytes.extend(ExtendedChunkHeader { flags: 0, kind, cookie, offset, length }.encode());
        }
        self.say(&bytes).await
    }

    /// Adds a chunk with the headers that were agreed, nearly always.
    fn put(
        &mut self,
        request: &ExtendedRequest,
        chunk: &Chunk<'_>,
        flags: u16,
        cookie: u64,
        bytes: &mut Vec<u8>,
    ) {
        if (self.headers == Headers::Extended) == self.dice.once_in(64) {
            return chunk.encode(flags, cookie, bytes);
        }
        let offset = request.offset ^ u64::from(self.dice.once_in(64));
        chunk.encode_extended(flags, cookie, offset, bytes);
    }

    /// A chunk of an answer.
    fn chunk(&mut self, request: &ExtendedRequest, offset: u64, length: u32) -> Chunk<'static> {
        const DATA: &[u8] = &[7; 8192];
        let message = "broken".into();
        match self.dice.below(16) {
            0 => Chunk::Error { error: u32::from(self.dice.byte()), message },
            1 => Chunk::ErrorOffset { error: 5, message, offset },
            2 => Chunk::None,
            _ if request.command == NBD_CMD_BLOCK_STATUS => {
                let descriptors = (0..1 + self.dice.below(4)).map(|_| Descriptor {
                    length: u32::from(self.dice.byte()) * 512,
                    flags: u32::from(self.dice.below(5)),
                });
                let descriptors: Vec<_> = descriptors.collect();
                let context = self.dice.one_of(&[1, 2, 1, 2, 3]);
                if (self.headers == Headers::Extended) == self.dice.once_in(16) {
                    return Chunk::BlockStatus { context, descriptors };
                }
                let far = if self.dice.once_in(4) { self.dice.number() } else { 0 };
                let wide = |found: Descriptor| ExtendedDescriptor {
                    length: far | u64::from(found.length),
                    flags: far ^ u64::from(found.flags),
                };
                Chunk::BlockStatusExt { context, descriptors: descriptors.into_iter().map(wide).collect() }
            }
            3..6 => Chunk::OffsetHole { offset, length },
            _ => Chunk::OffsetData {
                offset,
                data: &DATA[..usize::try_from(length).map_or(0, |n| n.min(8192))],
            },
        }
    }
}
