//! What each option is answered with.

use std::sync::{Arc, Weak};

use oma_core::ExportName;
use oma_core::traits::Export;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::Wire;
use super::{Agreed, Chosen, Selected, Tls, Visitor};
use crate::protocol::{
    ExportNameReply, Headers, InfoReply, InfoRequest, ListReply, MAX_STRING, Malformed, MetaContextReply,
    MetaContextRequest, NBD_INFO_DESCRIPTION, NBD_INFO_NAME, NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME,
    NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_LIST, NBD_OPT_LIST_META_CONTEXT,
    NBD_OPT_SET_META_CONTEXT, NBD_OPT_STARTTLS, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK,
    NBD_REP_ERR_EXT_HEADER_REQD, NBD_REP_ERR_INVALID, NBD_REP_ERR_POLICY, NBD_REP_ERR_TLS_REQD,
    NBD_REP_ERR_TOO_BIG, NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_UNSUP, NBD_REP_INFO, NBD_REP_META_CONTEXT,
    NBD_REP_SERVER,
};
use crate::server::error::Closed;
use crate::server::served::Served;
use crate::server::table::NotOpened;
use crate::server::{Inner, Listing, MetaContext};

/// All that may be asked where TLS is demanded and not started.
const WITHOUT_TLS: [u32; 2] = [NBD_OPT_STARTTLS, NBD_OPT_ABORT];

/// How the handshake goes on.
#[derive(Debug)]
pub(super) enum Step {
    Next,
    Open(Agreed),
    Secure,
    Leave,
}

/// Why an option is refused: the reply and a sentence for readers.
struct Refused(u32, String);

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self(NBD_REP_ERR_INVALID, malformed.to_string())
    }
}

impl From<NotOpened> for Refused {
    fn from(not: NotOpened) -> Self {
        match not {
            NotOpened::Absent => unknown(),
            NotOpened::Full => Self(
                NBD_REP_ERR_POLICY,
                "the export has as many connections as it may; come again".to_owned(),
            ),
        }
    }
}

/// What was agreed so far.
pub(super) struct Options<'a> {
    server: &'a Inner,
    no_zeroes: bool,
    visitor: &'a Visitor,
    headers: Headers,
    chosen: Chosen,
}

impl<'a> Options<'a> {
    pub(super) fn new(server: &'a Inner, no_zeroes: bool, visitor: &'a Visitor) -> Self {
        Self { server, no_zeroes, visitor, headers: Headers::Simple, chosen: None }
    }

    /// Answers an option. Without a payload it was too long.
    pub(super) fn answer<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        option: u32,
        payload: Option<&[u8]>,
        wire: &mut Wire<'_, S>,
    ) -> Result<Step, Closed> {
        let unsafe_yet = self.visitor.tls == Tls::Demanded && !WITHOUT_TLS.contains(&option);
        if option == NBD_OPT_EXPORT_NAME {
            return if unsafe_yet { Err(Closed::TlsDemanded) } else { self.export_name(payload, wire) };
        }
        let answered = match payload {
            _ if unsafe_yet => Err(Refused(NBD_REP_ERR_TLS_REQD, "TLS must be started first".to_owned())),
            Some(payload) => self.dispatch(option, payload, wire),
            None => Err(Refused(NBD_REP_ERR_TOO_BIG, "the option is too long".to_owned())),
        };
        match answered {
            Ok(step) => {
                wire.reply(option, NBD_REP_ACK, &[]);
                Ok(step)
            }
            Err(Refused(reply, reason)) => {
                wire.reply(option, reply, reason.as_bytes());
                Ok(Step::Next)
            }
        }
    }

    fn dispatch<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        option: u32,
        payload: &[u8],
        wire: &mut Wire<'_, S>,
    ) -> Result<Step, Refused> {
        match option {
            NBD_OPT_ABORT => return Ok(Step::Leave),
            NBD_OPT_STARTTLS => return self.start_tls(payload),
            NBD_OPT_LIST => self.list(payload, wire)?,
            NBD_OPT_INFO | NBD_OPT_GO => return self.info(option, payload, wire),
            NBD_OPT_STRUCTURED_REPLY => {
                nothing_in(payload)?;
                if self.headers == Headers::Extended {
                    let reason = "extended headers are agreed, and stay".to_owned();
                    return Err(Refused(NBD_REP_ERR_EXT_HEADER_REQD, reason));
                }
                self.headers = Headers::Structured;
            }
            NBD_OPT_EXTENDED_HEADERS => {
                nothing_in(payload)?;
                self.headers = Headers::Extended;
            }
            NBD_OPT_LIST_META_CONTEXT | NBD_OPT_SET_META_CONTEXT => {
                self.meta_context(option, payload, wire)?;
            }
            _ => return Err(Refused(NBD_REP_ERR_UNSUP, "the option is not supported".to_owned())),
        }
        Ok(Step::Next)
    }

    fn start_tls(&self, payload: &[u8]) -> Result<Step, Refused> {
        let refused = |reply, reason: &str| Err(Refused(reply, reason.to_owned()));
        match self.visitor.tls {
            Tls::Absent => refused(NBD_REP_ERR_UNSUP, "TLS is not served here"),
            Tls::Done => refused(NBD_REP_ERR_INVALID, "TLS was started already"),
            Tls::Possible | Tls::Demanded => nothing_in(payload).map(|()| Step::Secure),
        }
    }

    /// The option that cannot be refused but by closing the connection.
    fn export_name<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        payload: Option<&[u8]>,
        wire: &mut Wire<'_, S>,
    ) -> Result<Step, Closed> {
        if self.headers == Headers::Extended {
            return Err(Closed::ExportName);
        }
        let name = payload.and_then(|payload| std::str::from_utf8(payload).ok());
        let agreed = name.and_then(|name| self.open(name).ok()).ok_or(Closed::UnknownExport)?;
        let served = &agreed.export.served;
        let flags = served.transmission_flags(agreed.headers, !agreed.contexts.is_empty());
        wire.put(&ExportNameReply { size: served.export.capacity.bytes(), flags }.encode());
        if !self.no_zeroes {
            wire.put(&[0; ExportNameReply::ZEROES]);
        }
        Ok(Step::Open(agreed))
    }

    fn list<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        payload: &[u8],
        wire: &mut Wire<'_, S>,
    ) -> Result<(), Refused> {
        nothing_in(payload)?;
        for served in self.server.table.list().iter().filter(|served| served.is_open()) {
            if served.listing == Listing::Unlisted || !served.clients.admit(&self.visitor.principal) {
                continue;
            }
            let Export { name, description, .. } = &served.export;
            let mut reply = Vec::new();
            ListReply { name: name.as_str(), description: text(description) }.encode(&mut reply);
            wire.reply(NBD_OPT_LIST, NBD_REP_SERVER, &reply);
        }
        Ok(())
    }

    fn info<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        option: u32,
        payload: &[u8],
        wire: &mut Wire<'_, S>,
    ) -> Result<Step, Refused> {
        let request = InfoRequest::decode(payload)?;
        // The export is attached before anything is told about it, so that it cannot go in between.
        let (served, step) = match option {
            NBD_OPT_GO => {
                let agreed = self.open(request.name)?;
                (agreed.export.served.clone(), Step::Open(agreed))
            }
            _ => (self.find(request.name)?, Step::Next),
        };
        let contexts = match &step {
            Step::Open(agreed) => !agreed.contexts.is_empty(),
            Step::Next | Step::Secure | Step::Leave => {
                self.chosen.as_ref().is_some_and(|(of, chosen)| is_of(of, &served) && !chosen.is_empty())
            }
        };
        let mut told = vec![
            InfoReply::Export {
                size: served.export.capacity.bytes(),
                flags: served.transmission_flags(self.headers, contexts),
            },
            self.block_size(&served),
        ];
        if request.wanted.contains(&NBD_INFO_NAME) {
            told.push(InfoReply::Name(served.export.name.as_str()));
        }
        if request.wanted.contains(&NBD_INFO_DESCRIPTION) && !served.export.description.is_empty() {
            told.push(InfoReply::Description(text(&served.export.description)));
        }
        for info in told {
            let mut reply = Vec::new();
            info.encode(&mut reply);
            wire.reply(option, NBD_REP_INFO, &reply);
        }
        Ok(step)
    }

    fn block_size(&self, served: &Served) -> InfoReply<'static> {
        let sizes = served.device.info().block_sizes;
        let advertised = self.server.config.advertised_payload.min(self.server.config.max_payload);
        // The protocol wants a multiple of the smallest block, and no less than the preferred one.
        let maximum = (advertised - advertised % sizes.minimum.max(1)).max(sizes.preferred);
        InfoReply::BlockSize { minimum: sizes.minimum, preferred: sizes.preferred, maximum }
    }

    fn meta_context<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        option: u32,
        payload: &[u8],
        wire: &mut Wire<'_, S>,
    ) -> Result<(), Refused> {
        let setting = option == NBD_OPT_SET_META_CONTEXT;
        if setting {
            self.chosen = None;
        }
        if self.headers == Headers::Simple {
            let reason = "structured replies or extended headers must be asked for first".to_owned();
            return Err(Refused(NBD_REP_ERR_INVALID, reason));
        }
        let request = MetaContextRequest::decode(payload)?;
        let served = self.find(request.name)?;
        let wanted = |name: &str| match setting {
            true => request.queries.contains(&name),
            false => request.queries.is_empty() || request.queries.iter().any(|query| matches(query, name)),
        };
        let mut selected = Vec::new();
        let possible =
            |context: &dyn MetaContext| self.headers == Headers::Extended || !context.is_computed();
        let chosen = |context: &dyn MetaContext| wanted(context.name()) && possible(context);
        for (id, context) in (0..).zip(&served.contexts).filter(|(_, context)| chosen(&***context)) {
            let mut reply = Vec::new();
            MetaContextReply { id, name: context.name() }.encode(&mut reply);
            wire.reply(option, NBD_REP_META_CONTEXT, &reply);
            selected.push(id);
        }
        if setting {
            self.chosen = Some((Arc::downgrade(&served), selected));
        }
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<Agreed, Refused> {
        let export = self.server.table.open(&self.find(name)?.export.name)?;
        self.admit(&export.served).ok_or_else(unknown)?;
        // Contexts chosen for another export, or for one that was replaced since, are void.
        let chosen = self.chosen.take().filter(|(of, _)| is_of(of, &export.served));
        let ids = chosen.map(|(_, ids)| ids).unwrap_or_default();
        let known = (0..).zip(&export.served.contexts).filter(|(id, _)| ids.contains(id));
        let contexts = known.map(|(id, context)| Selected { id, context: context.clone() }).collect();
        Ok(Agreed { headers: self.headers, contexts, export })
    }

    fn find(&self, name: &str) -> Result<Arc<Served>, Refused> {
        let served = self.resolve(name).and_then(|name| self.server.table.find(&name));
        served.filter(|served| self.admit(served).is_some()).ok_or_else(unknown)
    }

    /// Lets a client have an export, or has it know nothing of it.
    fn admit(&self, served: &Served) -> Option<()> {
        let principal = &self.visitor.principal;
        if served.clients.admit(principal) {
            return Some(());
        }
        tracing::info!(export = %served.export.name, client = %principal, "a client may not open an export");
        None
    }

    fn resolve(&self, name: &str) -> Option<ExportName> {
        if name.is_empty() {
            return self.server.config.default_export.clone();
        }
        ExportName::parse(name).ok()
    }
}

/// Whether contexts were chosen for exactly this export, not one that took its name since.
fn is_of(chosen: &Weak<Served>, served: &Arc<Served>) -> bool {
    std::ptr::eq(chosen.as_ptr(), Arc::as_ptr(served))
}

fn unknown() -> Refused {
    // Without the name: it may be as long as the whole reply.
    Refused(NBD_REP_ERR_UNKNOWN, "there is no such export".to_owned())
}

fn nothing_in(payload: &[u8]) -> Result<(), Refused> {
    match payload.len() {
        0 => Ok(()),
        extra => Err(Malformed::Trailing { what: "the option", extra }.into()),
    }
}

/// Whether a query of a list means a context: its name, its namespace, or the part of its name up to a colon.
fn matches(query: &str, name: &str) -> bool {
    query == name || (query.ends_with(':') && name.starts_with(query))
}

/// As much of a text as fits a reply.
fn text(whole: &str) -> &str {
    &whole[..whole.floor_char_boundary(MAX_STRING)]
}
