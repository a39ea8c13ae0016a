//! A client that follows the protocol, or nearly, and knows what the disk must hold.

use oma_nbd::protocol::{
    BASE_ALLOCATION, Chunk, ExportNameReply, ExtendedRequest, Greeting, Headers, InfoRequest,
    MetaContextRequest, NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE, NBD_CMD_DISC, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FUA,
    NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_FLUSH, NBD_CMD_READ,
    NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_OPT_EXPORT_NAME, NBD_OPT_EXTENDED_HEADERS,
    NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_LIST, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT,
    NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NBD_REP_FLAG_ERROR, NBD_REPLY_FLAG_DONE, OptionHeader,
    OptionReplyHeader, ReplyHeader, Request, SimpleReply,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::dice::Dice;

/// Size of the export `disk`.
pub const SIZE: u64 = 1 << 18;
/// The largest payload that the server takes.
pub const PAYLOAD: u32 = 1 << 16;
const BITMAP: &str = "qemu:dirty-bitmap:b0";

/// The server hung up.
#[derive(Debug)]
pub struct Closed;

/// A connection to the server.
#[derive(Debug)]
pub struct Session<'a> {
    stream: DuplexStream,
    dice: Dice<'a>,
    /// Whether everything said so far was right, so that the server has no reason to hang up.
    polite: bool,
    headers: Headers,
    contexts: usize,
    disk: Vec<u8>,
    cookie: u64,
}

/// What a request was answered with.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done(Vec<u8>),
    Error,
}

impl<'a> Session<'a> {
    /// A connection without a word said.
    #[must_use]
    pub fn new(stream: DuplexStream, dice: Dice<'a>) -> Self {
        let disk = vec![0; usize::try_from(SIZE).expect("the disk is small")];
        Self { stream, dice, polite: true, headers: Headers::Simple, contexts: 0, disk, cookie: 0 }
    }

    /// Talks until the choices are used up or the server hangs up, then leaves in one of several ways.
    ///
    /// # Panics
    /// When the server answers what cannot be, or hangs up on a client that did nothing wrong.
    pub async fn talk(mut self) {
        if self.converse().await.is_err() {
            assert!(!self.polite, "the server hung up on a client that did nothing wrong");
        }
    }

    async fn converse(&mut self) -> Result<(), Closed> {
        let greeting = self.receive(Greeting::SIZE).await?;
        Greeting::decode(greeting.first_chunk().expect("it has this size")).expect("a greeting");
        self.say(&3_u32.to_be_bytes()).await?;
        for _ in 0..self.dice.below(8) {
            self.any_option().await?;
        }
        self.enter().await?;
        while !self.dice.is_empty() {
            self.any_request().await?;
        }
        match self.dice.below(3) {
            0 => {
                // Without a payload, which would have to follow.
                let goodbye = ExtendedRequest { flags: 0, command: NBD_CMD_DISC, ..self.request() };
                self.say(&self.header(&goodbye)).await
            }
            1 => self.stream.shutdown().await.map_err(|_| Closed),
            _ => Ok(()),
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        self.stream.write_all(bytes).await.map_err(|_| Closed)
    }

    async fn receive(&mut self, length: usize) -> Result<Vec<u8>, Closed> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.map_err(|_| Closed)?;
        Ok(bytes)
    }

    fn name(&mut self) -> &'static str {
        self.dice.one_of(&["disk", "disk", "disk", "other", "none", "", "dis", "disk\0", "\u{e9}"])
    }

    async fn any_option(&mut self) -> Result<(), Closed> {
        let (name, mut payload) = (self.name(), Vec::new());
        let option = self.dice.one_of(&[
            NBD_OPT_STRUCTURED_REPLY,
            NBD_OPT_SET_META_CONTEXT,
            NBD_OPT_LIST_META_CONTEXT,
            NBD_OPT_LIST,
            NBD_OPT_INFO,
            77,
            NBD_OPT_EXTENDED_HEADERS,
        ]);
        match option {
            NBD_OPT_INFO => {
                let wanted = (0..self.dice.below(5)).map(|_| u16::from(self.dice.below(6))).collect();
                InfoRequest { name, wanted }.encode(&mut payload);
            }
            NBD_OPT_SET_META_CONTEXT | NBD_OPT_LIST_META_CONTEXT => {
                let all = [BASE_ALLOCATION, BITMAP, "base:", "qemu:", "", "x"];
                let queries = (0..self.dice.below(4)).map(|_| self.dice.one_of(&all)).collect();
                MetaContextRequest { name, queries }.encode(&mut payload);
            }
            _ => {}
        }
        if self.dice.once_in(8) {
            let junk = self.dice.bytes(24);
            let at = usize::from(self.dice.byte()) % (payload.len() + 1);
            payload.truncate(at);
            payload.extend(junk);
        }
        let (reply, items) = self.option(option, &payload).await?;
        match (option, reply) {
            (NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK) => {
                assert_ne!(self.headers, Headers::Extended, "extended headers stay");
                self.headers = Headers::Structured;
            }
            (NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK) => self.headers = Headers::Extended,
            (NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK) if name == "disk" => self.contexts = items,
            // The choice is void, or is one for another export.
            (NBD_OPT_SET_META_CONTEXT, _) => self.contexts = 0,
            _ => {}
        }
        Ok(())
    }

    /// Sends an option; the last reply and the number of those before it.
    async fn option(&mut self, option: u32, payload: &[u8]) -> Result<(u32, usize), Closed> {
        let length = u32::try_from(payload.len()).expect("payloads are short");
        if self.dice.once_in(64) {
            // The other side waits for more, or takes what follows for the next option.
            self.polite = false;
            let option = if self.dice.once_in(2) { NBD_OPT_EXTENDED_HEADERS + 1 } else { option };
            let length = self.dice.one_of(&[u32::MAX, 1 << 30, length + 1, length.saturating_sub(1)]);
            self.say(&OptionHeader { option, length }.encode()).await?;
            self.say(payload).await?;
            self.stream.shutdown().await.map_err(|_| Closed)?;
            self.stream.read_to_end(&mut Vec::new()).await.map_err(|_| Closed)?;
            return Err(Closed);
        }
        self.say(&OptionHeader { option, length }.encode()).await?;
        self.say(payload).await?;
        for items in 0.. {
            let header = self.receive(OptionReplyHeader::SIZE).await?;
            let header = OptionReplyHeader::decode(header.first_chunk().expect("it has this size"))
                .expect("replies are well formed");
            assert_eq!(header.option, option);
            assert!(header.length <= 64 << 10, "a reply of {} bytes", header.length);
            self.receive(usize::try_from(header.length).expect("it is short")).await?;
            if header.reply == NBD_REP_ACK || header.reply & NBD_REP_FLAG_ERROR != 0 {
                return Ok((header.reply, items));
            }
        }
        unreachable!("the loop has no end")
    }

    /// Opens the export.
    async fn enter(&mut self) -> Result<(), Closed> {
        if self.headers != Headers::Extended && self.dice.once_in(8) {
            self.say(&OptionHeader { option: NBD_OPT_EXPORT_NAME, length: 4 }.encode()).await?;
            self.say(b"disk").await?;
            let reply = self.receive(ExportNameReply::SIZE).await?;
            let reply = ExportNameReply::decode(reply.first_chunk().expect("it has this size"));
            assert_eq!(reply.expect("a reply").size, SIZE);
            return Ok(());
        }
        let mut payload = Vec::new();
        InfoRequest { name: "disk", wanted: vec![] }.encode(&mut payload);
        let length = u32::try_from(payload.len()).expect("payloads are short");
        self.say(&OptionHeader { option: NBD_OPT_GO, length }.encode()).await?;
        self.say(&payload).await?;
        loop {
            let header = self.receive(OptionReplyHeader::SIZE).await?;
            let header = OptionReplyHeader::decode(header.first_chunk().expect("it has this size"))
                .expect("replies are well formed");
            self.receive(usize::try_from(header.length).expect("it is short")).await?;
            assert_eq!(header.reply & NBD_REP_FLAG_ERROR, 0, "the export is there");
            if header.reply == NBD_REP_ACK {
                return Ok(());
            }
        }
    }

    /// A request with fields that are right, nearly right or wrong.
    fn request(&mut self) -> ExtendedRequest {
        self.cookie = if self.dice.once_in(16) { self.dice.number() } else { self.cookie.wrapping_add(1) };
        let command = self.dice.one_of(&[
            NBD_CMD_READ,
            NBD_CMD_WRITE,
            NBD_CMD_WRITE_ZEROES,
            NBD_CMD_TRIM,
            NBD_CMD_FLUSH,
            NBD_CMD_BLOCK_STATUS,
            NBD_CMD_CACHE,
            99,
        ]);
        let flags = match self.dice.below(6) {
            0..3 => 0,
            3 => NBD_CMD_FLAG_FUA,
            4 => self.dice.one_of(&[NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_REQ_ONE]),
            _ => 1 << self.dice.below(16),
        };
        let near = u64::from(self.dice.byte());
        let offset = match self.dice.below(8) {
            0..4 => near * 512,
            4 => near,
            5 => SIZE - near,
            6 => SIZE,
            _ => self.dice.one_of(&[u64::MAX, 1 << 63, SIZE + 1, (1 << 32) - 1, u64::MAX - 511]),
        };
        let length = match self.dice.below(8) {
            0..4 => u32::from(self.dice.byte()) * 16,
            4 => u32::from(self.dice.byte()),
            5 => 0,
            6 => PAYLOAD,
            _ => self.dice.one_of(&[u32::MAX, PAYLOAD + 1, 1 << 18, (1 << 18) + 1, 1 << 31]),
        };
        let mut length = u64::from(length);
        if self.headers == Headers::Extended && self.dice.once_in(16) {
            length = self.dice.one_of(&[1 << 32, u64::MAX, 1 << 63, SIZE]) | length;
        }
        ExtendedRequest { flags, command, cookie: self.cookie, offset, length }
    }

    /// A request as the bytes that were agreed on.
    fn header(&self, request: &ExtendedRequest) -> Vec<u8> {
        if self.headers == Headers::Extended {
            return request.encode().to_vec();
        }
        let compact = Request::try_from(*request);
        compact.expect("lengths of 64 bits are only for extended headers").encode().to_vec()
    }

    /// Whether data follows a request.
    fn has_payload(&self, request: &ExtendedRequest) -> bool {
        request.command == NBD_CMD_WRITE || (self.headers == Headers::Extended && request.has_payload())
    }

    async fn any_request(&mut self) -> Result<(), Closed> {
        let request = self.request();
        if self.dice.once_in(64) {
            self.polite = false;
            let mut header = self.header(&request);
            let at = usize::from(self.dice.byte()) % header.len();
            header[at] ^= 1 << self.dice.below(8);
            self.say(&header).await?;
            return self.leave().await;
        }
        self.say(&self.header(&request)).await?;
        let mut data = Vec::new();
        if self.has_payload(&request) {
            if request.length > PAYLOAD.into() {
                self.polite = false;
                return self.leave().await;
            }
            let fill = self.dice.byte();
            data = (0..request.length).map(|n| fill.wrapping_add(n.to_le_bytes()[0])).collect();
            if self.dice.once_in(64) && request.length > 0 {
                self.polite = false;
                self.say(&data[1..]).await?;
                return self.leave().await;
            }
            self.say(&data).await?;
        }
        let answer = self.answer(&request).await?;
        self.judge(&request, &data, answer);
        Ok(())
    }

    /// Says no more, and hears what the server still has to say.
    async fn leave(&mut self) -> Result<(), Closed> {
        self.stream.shutdown().await.map_err(|_| Closed)?;
        self.stream.read_to_end(&mut Vec::new()).await.map_err(|_| Closed)?;
        Err(Closed)
    }

    async fn answer(&mut self, request: &ExtendedRequest) -> Result<Answer, Closed> {
        let (mut data, mut failed) = (Vec::new(), false);
        loop {
            let mut header = self.receive(SimpleReply::SIZE).await?;
            if ReplyHeader::decode(&header).expect("replies are well formed").is_none() {
                let rest = if self.headers == Headers::Extended { 16 } else { 4 };
                header.extend(self.receive(rest).await?);
            }
            let (header, _) = ReplyHeader::decode(&header).expect("well formed").expect("it is whole");
            match header {
                ReplyHeader::Simple(reply) => {
                    assert_eq!(reply.cookie, request.cookie);
                    let is_read = request.command == NBD_CMD_READ;
                    assert!(!is_read || self.headers == Headers::Simple, "a read is answered in chunks");
                    assert_ne!(self.headers, Headers::Extended, "everything is");
                    if reply.error != 0 {
                        return Ok(Answer::Error);
                    }
                    let length = if is_read { request.length } else { 0 };
                    let data = self.receive(usize::try_from(length).expect("it fits")).await?;
                    return Ok(Answer::Done(data));
                }
                ReplyHeader::Chunk(chunk) => {
                    assert!(self.headers == Headers::Structured && chunk.cookie == request.cookie);
                    self.chunk(request, chunk.kind, chunk.length.into(), &mut data, &mut failed).await?;
                    if chunk.flags & NBD_REPLY_FLAG_DONE != 0 {
                        return Ok(if failed { Answer::Error } else { Answer::Done(data) });
                    }
                }
                ReplyHeader::Extended(chunk) => {
                    assert!(self.headers == Headers::Extended && chunk.cookie == request.cookie);
                    assert_eq!(chunk.offset, request.offset);
                    self.chunk(request, chunk.kind, chunk.length, &mut data, &mut failed).await?;
                    if chunk.flags & NBD_REPLY_FLAG_DONE != 0 {
                        return Ok(if failed { Answer::Error } else { Answer::Done(data) });
                    }
                }
            }
        }
    }

    /// Takes the payload of a chunk.
    async fn chunk(
        &mut self,
        request: &ExtendedRequest,
        kind: u16,
        length: u64,
        data: &mut Vec<u8>,
        failed: &mut bool,
    ) -> Result<(), Closed> {
        let payload = self.receive(usize::try_from(length).expect("it fits")).await?;
        let lengths: Vec<u64> = match Chunk::decode(kind, &payload).expect("chunks are well formed") {
            Chunk::OffsetData { offset, data: part } => {
                assert_eq!(offset, request.offset + data.len() as u64, "data comes in order");
                data.extend(part);
                return Ok(());
            }
            Chunk::OffsetHole { offset, length } => {
                assert_eq!(offset, request.offset + data.len() as u64, "data comes in order");
                data.resize(data.len() + usize::try_from(length).expect("it fits"), 0);
                return Ok(());
            }
            Chunk::BlockStatus { descriptors, .. } if self.headers == Headers::Structured => {
                descriptors.iter().map(|found| found.length.into()).collect()
            }
            Chunk::BlockStatusExt { descriptors, .. } if self.headers == Headers::Extended => {
                descriptors.iter().map(|found| found.length).collect()
            }
            Chunk::Error { .. } | Chunk::ErrorOffset { .. } => {
                *failed = true;
                return Ok(());
            }
            Chunk::None => return Ok(()),
            other => panic!("{other:?} was not agreed"),
        };
        assert_eq!(request.command, NBD_CMD_BLOCK_STATUS);
        assert!(!lengths.is_empty() && lengths.iter().all(|length| *length > 0));
        let one = request.flags & NBD_CMD_FLAG_REQ_ONE != 0;
        assert!(!one || (lengths.len() == 1 && lengths[0] <= request.length));
        data.push(1);
        Ok(())
    }

    /// Compares an answer with what the disk must hold, and notes what the request changed.
    fn judge(&mut self, request: &ExtendedRequest, data: &[u8], answer: Answer) {
        let end = request.offset.checked_add(request.length).filter(|end| *end <= SIZE);
        let harmless = match request.command {
            NBD_CMD_READ => NBD_CMD_FLAG_DF,
            NBD_CMD_WRITE_ZEROES => NBD_CMD_FLAG_NO_HOLE,
            NBD_CMD_BLOCK_STATUS => NBD_CMD_FLAG_REQ_ONE,
            _ => 0,
        };
        let payload = if self.headers == Headers::Extended { NBD_CMD_FLAG_PAYLOAD_LEN } else { 0 };
        let harmless = if request.command == NBD_CMD_WRITE { payload } else { harmless };
        let known = request.flags & !(harmless | NBD_CMD_FLAG_FUA) == 0;
        let possible = match request.command {
            NBD_CMD_READ => end.is_some() && request.length <= PAYLOAD.into(),
            NBD_CMD_WRITE | NBD_CMD_WRITE_ZEROES | NBD_CMD_TRIM => end.is_some(),
            NBD_CMD_FLUSH => true,
            NBD_CMD_BLOCK_STATUS => end.is_some() && request.length > 0 && self.contexts > 0,
            _ => false,
        };
        let Answer::Done(found) = answer else {
            assert!(!(possible && known), "{request:?} must succeed");
            return;
        };
        assert!(possible || request.command == NBD_CMD_CACHE, "{request:?} must fail");
        let Some(end) = end else { return };
        let range = usize::try_from(request.offset).expect("it is in the disk")
            ..usize::try_from(end).expect("it is in the disk");
        match request.command {
            NBD_CMD_READ => assert!(found == self.disk[range], "{request:?} reads other bytes"),
            NBD_CMD_WRITE => self.disk[range].copy_from_slice(data),
            NBD_CMD_WRITE_ZEROES | NBD_CMD_TRIM => self.disk[range].fill(0),
            NBD_CMD_BLOCK_STATUS => assert_eq!(found.len(), self.contexts, "a chunk for each context"),
            _ => {}
        }
    }
}
