//! The client's side of the handshake.
//!
//! ```text
//!  greeting → [STARTTLS →] EXTENDED_HEADERS ───────────► SET_META_CONTEXT → GO ─────────────► transmission
//!                            └ refused: STRUCTURED_REPLY ┘                  └ unknown option ► EXPORT_NAME
//!                                         └ refused: without
//! ```

use std::io;

use bytes::BufMut;

use super::ClientConfig;
use super::error::{Failure, Offer, Violation};
use super::export::{Export, block_sizes};
use super::socket::Socket;
use crate::protocol::{
    BASE_ALLOCATION, ExportNameReply, Greeting, Headers, InfoReply, InfoRequest, ListReply, MAX_STRING,
    MetaContextReply, MetaContextRequest, NBD_CLISERV_MAGIC, NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES,
    NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES, NBD_INFO_BLOCK_SIZE, NBD_MAGIC, NBD_OPT_ABORT,
    NBD_OPT_EXPORT_NAME, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_LIST, NBD_OPT_LIST_META_CONTEXT,
    NBD_OPT_SET_META_CONTEXT, NBD_OPT_STARTTLS, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NBD_REP_ERR_PLATFORM,
    NBD_REP_ERR_POLICY, NBD_REP_ERR_SHUTDOWN, NBD_REP_ERR_TLS_REQD, NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_UNSUP,
    NBD_REP_FLAG_ERROR, NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER, OMA_BLAKE3, OptionHeader,
    OptionReplyHeader,
};
use crate::tls::Session;

/// No reply to an option has more payload: two texts of the protocol and their lengths, with room to spare.
const MAX_REPLY: u32 = 64 << 10;
/// No option has more replies: a list of that many exports is of no use to anybody.
const MAX_REPLIES: usize = 64 << 10;
/// Nor have they more bytes together: they are kept until the last one came.
const MAX_REPLIED: usize = 16 << 20;

/// One export of a server's list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedExport {
    /// Its name.
    pub name: String,
    /// A text for readers, may be empty.
    pub description: String,
}

/// The end of an option.
enum Outcome {
    Acknowledged,
    Refused { reply: u32, text: String },
}

/// A session that has not entered transmission.
#[derive(Debug)]
pub(super) struct Handshake {
    socket: Socket,
    fixed: bool,
    no_zeroes: bool,
}

impl Handshake {
    /// Exchanges greetings.
    pub(super) async fn begin(socket: Socket) -> Result<Self, Failure> {
        let mut bytes = [0; Greeting::SIZE];
        receive(&socket, &mut bytes[..8]).await?;
        if bytes[..8] != NBD_MAGIC.to_be_bytes() {
            return Err(Failure::NotNbd(String::from_utf8_lossy(&bytes[..8]).into_owned()));
        }
        receive(&socket, &mut bytes[8..16]).await?;
        if bytes[8..16] == NBD_CLISERV_MAGIC.to_be_bytes() {
            return Err(Failure::Oldstyle);
        }
        receive(&socket, &mut bytes[16..]).await?;
        let greeting = Greeting::decode(&bytes)?;
        let fixed = greeting.flags & NBD_FLAG_FIXED_NEWSTYLE != 0;
        let no_zeroes = greeting.flags & NBD_FLAG_NO_ZEROES != 0;
        let mut flags = 0;
        if fixed {
            flags |= NBD_FLAG_C_FIXED_NEWSTYLE;
        }
        if no_zeroes {
            flags |= NBD_FLAG_C_NO_ZEROES;
        }
        send(&socket, &flags.to_be_bytes()).await?;
        Ok(Self { socket, fixed, no_zeroes })
    }

    /// Puts TLS under all that follows. Without it nothing more is said.
    pub(super) async fn secure(mut self, session: Session) -> Result<Self, Failure> {
        if !self.fixed {
            return Err(Failure::TlsNotOffered("it is older than TLS in NBD".to_owned()));
        }
        match self.option(NBD_OPT_STARTTLS, &[], NBD_REP_ACK, |_| Ok(())).await? {
            Outcome::Acknowledged => {}
            Outcome::Refused { reply, text } => {
                self.abort().await;
                let reason = if text.is_empty() { format!("it answered {reply:#x}") } else { text };
                return Err(Failure::TlsNotOffered(reason));
            }
        }
        let socket = self.socket.secure(session).await.map_err(Failure::Tls)?;
        Ok(Self { socket, ..self })
    }

    /// Opens an export and enters transmission.
    pub(super) async fn open(
        mut self,
        name: &str,
        config: &ClientConfig,
    ) -> Result<(Socket, Export), Failure> {
        if !self.fixed {
            return self.export_name(name, Export::default()).await;
        }
        let mut export = Export { headers: self.headers(config).await?, ..Export::default() };
        if export.headers != Headers::Simple {
            export.contexts = self.set_contexts(name, export.headers, &config.contexts).await?;
        }
        match self.go(name, &mut export).await? {
            Outcome::Acknowledged => Ok((self.socket, export)),
            Outcome::Refused { reply: NBD_REP_ERR_UNSUP, .. } if export.headers == Headers::Extended => {
                Err(Violation::Handshake("extended headers without the option to use them").into())
            }
            Outcome::Refused { reply: NBD_REP_ERR_UNSUP, .. } => self.export_name(name, export).await,
            Outcome::Refused { reply: NBD_REP_ERR_UNKNOWN, .. } => {
                let offer = self.offer().await;
                self.abort().await;
                Err(Failure::UnknownExport { name: name.to_owned(), offer })
            }
            Outcome::Refused { reply, text } => {
                self.abort().await;
                Err(refusal("the export", reply, text))
            }
        }
    }

    /// What the server offers.
    pub(super) async fn list(mut self) -> Result<Vec<ListedExport>, Failure> {
        self.only_fixed("list exports")?;
        let listed = self.listing().await?;
        self.abort().await;
        listed.map_err(|(reply, text)| refusal("the list of exports", reply, text))
    }

    /// The names of an export's metadata contexts that fit a query.
    pub(super) async fn list_contexts(mut self, name: &str, query: &str) -> Result<Vec<String>, Failure> {
        self.only_fixed("list metadata contexts")?;
        if !self.agree(NBD_OPT_STRUCTURED_REPLY).await? {
            self.abort().await;
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        let payload = context_request(name, &[query]);
        let outcome = self
            .option(NBD_OPT_LIST_META_CONTEXT, &payload, NBD_REP_META_CONTEXT, |payload| {
                names.push(MetaContextReply::decode(payload)?.name.to_owned());
                Ok(())
            })
            .await?;
        match outcome {
            Outcome::Acknowledged => {
                self.abort().await;
                Ok(names)
            }
            Outcome::Refused { reply: NBD_REP_ERR_UNSUP, .. } => {
                self.abort().await;
                Ok(Vec::new())
            }
            Outcome::Refused { reply: NBD_REP_ERR_UNKNOWN, .. } => {
                let offer = self.offer().await;
                self.abort().await;
                Err(Failure::UnknownExport { name: name.to_owned(), offer })
            }
            Outcome::Refused { reply, text } => {
                self.abort().await;
                Err(refusal("the list of metadata contexts", reply, text))
            }
        }
    }

    const fn only_fixed(&self, what: &'static str) -> Result<(), Failure> {
        if self.fixed { Ok(()) } else { Err(Failure::Cannot(what)) }
    }

    /// The best headers that both sides know.
    async fn headers(&mut self, config: &ClientConfig) -> Result<Headers, Failure> {
        if config.extended_headers && self.agree(NBD_OPT_EXTENDED_HEADERS).await? {
            return Ok(Headers::Extended);
        }
        let structured = self.agree(NBD_OPT_STRUCTURED_REPLY).await?;
        Ok(if structured { Headers::Structured } else { Headers::Simple })
    }

    /// Whether the server takes an option without a payload.
    async fn agree(&mut self, option: u32) -> Result<bool, Failure> {
        match self.option(option, &[], NBD_REP_ACK, |_| Ok(())).await? {
            Outcome::Acknowledged => Ok(true),
            Outcome::Refused { reply: reply @ (NBD_REP_ERR_TLS_REQD | NBD_REP_ERR_SHUTDOWN), text } => {
                self.abort().await;
                Err(refusal("replies in chunks", reply, text))
            }
            Outcome::Refused { .. } => Ok(false),
        }
    }

    /// Asks for contexts; those that the export does not have are left out of the answer.
    async fn set_contexts(
        &mut self,
        name: &str,
        headers: Headers,
        wanted: &[String],
    ) -> Result<Vec<(String, u32)>, Failure> {
        let mut queries = vec![BASE_ALLOCATION];
        if headers == Headers::Extended {
            queries.push(OMA_BLAKE3);
        }
        let own = queries.clone();
        queries.extend(wanted.iter().map(String::as_str).filter(|name| !own.contains(name)));
        let mut found: Vec<(String, u32)> = Vec::new();
        let payload = context_request(name, &queries);
        let outcome = self
            .option(NBD_OPT_SET_META_CONTEXT, &payload, NBD_REP_META_CONTEXT, |payload| {
                let context = MetaContextReply::decode(payload)?;
                if !queries.contains(&context.name) {
                    return Err(Violation::Handshake("a metadata context that was not asked for").into());
                }
                if found.iter().any(|(name, id)| name == context.name || *id == context.id) {
                    return Err(Violation::Handshake("the same metadata context twice").into());
                }
                found.push((context.name.to_owned(), context.id));
                Ok(())
            })
            .await?;
        match outcome {
            Outcome::Acknowledged => Ok(found),
            // The export may be unknown; then GO says so with more to tell.
            Outcome::Refused { .. } => Ok(Vec::new()),
        }
    }

    async fn go(&mut self, name: &str, export: &mut Export) -> Result<Outcome, Failure> {
        let mut payload = Vec::new();
        InfoRequest { name, wanted: vec![NBD_INFO_BLOCK_SIZE] }.encode(&mut payload);
        let mut told = false;
        let outcome = self
            .option(NBD_OPT_GO, &payload, NBD_REP_INFO, |payload| {
                match InfoReply::decode(payload)? {
                    InfoReply::Export { size, flags } => {
                        (export.size, export.flags) = (size, flags);
                        told = true;
                    }
                    InfoReply::BlockSize { minimum, preferred, maximum } => {
                        export.block_sizes = block_sizes(minimum, preferred, maximum)?;
                    }
                    InfoReply::Name(_) | InfoReply::Description(_) | InfoReply::Unknown(_) => {}
                }
                Ok(())
            })
            .await?;
        if let Outcome::Acknowledged = outcome {
            if !told {
                return Err(Violation::Handshake("an export without a size").into());
            }
            export.check()?;
        }
        Ok(outcome)
    }

    /// The way into an export before `GO` was invented. The server refuses by closing the connection.
    async fn export_name(self, name: &str, mut export: Export) -> Result<(Socket, Export), Failure> {
        self.request(NBD_OPT_EXPORT_NAME, name.as_bytes()).await?;
        let mut bytes = [0; ExportNameReply::SIZE];
        receive(&self.socket, &mut bytes).await?;
        let reply = ExportNameReply::decode(&bytes)?;
        if !self.no_zeroes {
            receive(&self.socket, &mut [0; ExportNameReply::ZEROES]).await?;
        }
        (export.size, export.flags) = (reply.size, reply.flags);
        export.check()?;
        Ok((self.socket, export))
    }

    async fn offer(&mut self) -> Offer {
        match self.listing().await {
            Ok(Ok(exports)) => Offer::Names(exports.into_iter().map(|export| export.name).collect()),
            Ok(Err(_)) | Err(_) => Offer::Untold,
        }
    }

    async fn listing(&mut self) -> Result<Result<Vec<ListedExport>, (u32, String)>, Failure> {
        let mut exports = Vec::new();
        let outcome = self
            .option(NBD_OPT_LIST, &[], NBD_REP_SERVER, |payload| {
                let ListReply { name, description } = ListReply::decode(payload)?;
                exports.push(ListedExport { name: name.to_owned(), description: description.to_owned() });
                Ok(())
            })
            .await?;
        Ok(match outcome {
            Outcome::Acknowledged => Ok(exports),
            Outcome::Refused { reply, text } => Err((reply, text)),
        })
    }

    /// Says goodbye; whether the server hears it does not matter.
    async fn abort(&self) {
        if let Err(failure) = self.request(NBD_OPT_ABORT, &[]).await {
            tracing::debug!(%failure, "the server left first");
        }
    }

    async fn request(&self, option: u32, payload: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(payload.len()).expect("options are made of short names");
        let mut bytes = Vec::with_capacity(OptionHeader::SIZE + payload.len());
        bytes.put_slice(&OptionHeader { option, length }.encode());
        bytes.put_slice(payload);
        send(&self.socket, &bytes).await
    }

    /// Sends an option and takes its replies: those of kind `item` go to `each`.
    async fn option(
        &mut self,
        option: u32,
        payload: &[u8],
        item: u32,
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        self.request(option, payload).await?;
        let mut replied = 0;
        for _ in 0..MAX_REPLIES {
            let (reply, payload) = self.reply(option).await?;
            replied += payload.len();
            if reply == NBD_REP_ACK {
                return Ok(Outcome::Acknowledged);
            }
            if reply & NBD_REP_FLAG_ERROR != 0 {
                let shown = &payload[..payload.len().min(MAX_STRING)];
                let text = String::from_utf8_lossy(shown).escape_debug().to_string();
                return Ok(Outcome::Refused { reply, text });
            }
            if reply != item {
                return Err(Violation::Handshake("a kind of reply that this option does not have").into());
            }
            if replied > MAX_REPLIED {
                break;
            }
            each(&payload)?;
        }
        Err(Violation::Handshake("replies without end").into())
    }

    async fn reply(&self, option: u32) -> Result<(u32, Vec<u8>), Failure> {
        let mut bytes = [0; OptionReplyHeader::SIZE];
        receive(&self.socket, &mut bytes).await?;
        let header = OptionReplyHeader::decode(&bytes)?;
        if header.option != option {
            return Err(Violation::OtherOption { asked: option, found: header.option }.into());
        }
        if header.length > MAX_REPLY {
            let (length, limit) = (header.length.into(), MAX_REPLY.into());
            return Err(Violation::TooLong { what: "an option reply", length, limit }.into());
        }
        let mut payload = vec![0; usize::try_from(header.length).expect("64 KiB fit usize")];
        receive(&self.socket, &mut payload).await?;
        Ok((header.reply, payload))
    }
}

fn context_request(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut payload = Vec::new();
    MetaContextRequest { name, queries: queries.to_vec() }.encode(&mut payload);
    payload
}

fn refusal(what: &'static str, reply: u32, text: String) -> Failure {
    let text = match (reply, text.is_empty()) {
        (_, false) => text,
        (NBD_REP_ERR_POLICY, true) => "its policy forbids it to this client".to_owned(),
        (NBD_REP_ERR_PLATFORM, true) => "it cannot do that on its platform".to_owned(),
        (_, true) => format!("with the code {reply:#x}"),
    };
    match reply {
        NBD_REP_ERR_TLS_REQD => Failure::TlsRequired,
        NBD_REP_ERR_SHUTDOWN => Failure::ShuttingDown,
        NBD_REP_ERR_UNSUP => Failure::Cannot(what),
        _ => Failure::Refused { what, text },
    }
}

async fn receive(socket: &Socket, buffer: &mut [u8]) -> Result<(), Failure> {
    socket.fill(buffer).await.map_err(in_handshake)
}

async fn send(socket: &Socket, bytes: &[u8]) -> Result<(), Failure> {
    socket.send(bytes).await.map_err(in_handshake)
}

fn in_handshake(error: io::Error) -> Failure {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | ConnectionReset | BrokenPipe => Failure::ClosedInHandshake,
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests;
