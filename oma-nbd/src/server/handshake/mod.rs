//! The handshake: options until an export is chosen.
//!
//! ```text
//!  greeting → options ──────────────────────────► GO
//!                └─ STARTTLS → TLS → options ──────┘   (nothing that was agreed before is kept)
//! ```

mod options;
mod wire;

use std::sync::{Arc, Weak};

use tokio::io::{AsyncRead, AsyncWrite};

use self::options::{Options, Step};
use self::wire::Wire;
use super::served::{Attachment, Served};
use super::{Inner, MetaContext};
use crate::protocol::{
    Greeting, Headers, NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES, NBD_FLAG_FIXED_NEWSTYLE,
    NBD_FLAG_NO_ZEROES,
};
use crate::server::error::Closed;
use crate::server::transport::Transport;
use crate::tls::{Principal, TlsPolicy, TlsStream};

/// What both sides agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) headers: Headers,
    /// Metadata contexts for block status.
    pub(super) contexts: Vec<Selected>,
    /// Dropped last: they hold the device, and who withdraws an export has it for himself then.
    pub(super) export: Attachment,
}

/// A metadata context and its id on this connection.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    pub(super) id: u32,
    pub(super) context: Arc<dyn MetaContext>,
}

/// How a handshake ended.
#[derive(Debug)]
enum Outcome {
    Open(Agreed),
    /// The client wants TLS, with another handshake inside; it was told to begin.
    Secure,
    /// The client left in peace.
    Left,
}

/// What is known of a client, and what it must do.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) tls: Tls,
    pub(super) principal: Principal,
}

/// Whether a client may, must or does speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    Absent,
    Possible,
    Demanded,
    Done,
}

impl From<&TlsPolicy> for Tls {
    fn from(policy: &TlsPolicy) -> Self {
        match policy {
            TlsPolicy::Off => Self::Absent,
            TlsPolicy::Optional(_) => Self::Possible,
            TlsPolicy::Required(_) => Self::Demanded,
        }
    }
}

/// The flags of a client, once it was greeted.
#[derive(Clone, Copy, Debug)]
struct ClientFlags {
    no_zeroes: bool,
}

/// Speaks with a client until it has chosen an export; `None` when it left in peace. The export is used through the
/// transport that comes back.
pub(super) async fn shake_hands(
    server: &Inner,
    policy: &TlsPolicy,
    mut transport: Transport,
    principal: Principal,
) -> Result<Option<(Transport, Agreed)>, Closed> {
    let flags = greet(&mut transport).await?;
    let mut visitor = Visitor { tls: policy.into(), principal };
    let mut outcome = negotiate(server, &mut transport, flags, &visitor).await?;
    if let (Outcome::Secure, Some(tls)) = (&outcome, policy.server()) {
        let session = tls.session().map_err(Closed::Tls)?;
        let stream = TlsStream::shake(transport, session).await.map_err(Closed::Tls)?;
        visitor.tls = Tls::Done;
        visitor.principal.extend(stream.session().names());
        tracing::debug!(tls = stream.session().agreed(), client = %visitor.principal, "TLS was started");
        transport = Transport::Tls(Box::new(stream));
        outcome = negotiate(server, &mut transport, flags, &visitor).await?;
    }
    let Outcome::Open(agreed) = outcome else { return Ok(None) };
    let capacity = agreed.export.served.export.capacity.bytes();
    let transport = transport.in_kernel(capacity).map_err(Closed::Tls)?;
    let (export, client) = (&agreed.export.served.export.name, format!("{} {transport}", visitor.principal));
    tracing::debug!(%export, client, "a client opened an export");
    agreed.export.meter.identify(client);
    Ok(Some((transport, agreed)))
}

/// Greets a client.
async fn greet<S>(stream: &mut S) -> Result<ClientFlags, Closed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire::new(stream);
    wire.put(&Greeting { flags: NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES }.encode());
    wire.send().await?;
    let flags = u32::from_be_bytes(wire.receive().await?);
    if flags & !(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) != 0 {
        return Err(Closed::ClientFlags(flags));
    }
    Ok(ClientFlags { no_zeroes: flags & NBD_FLAG_C_NO_ZEROES != 0 })
}

/// Answers options from nothing agreed until the client has chosen an export, TLS or to leave.
async fn negotiate<S>(
    server: &Inner,
    stream: &mut S,
    flags: ClientFlags,
    visitor: &Visitor,
) -> Result<Outcome, Closed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire::new(stream);
    let mut options = Options::new(server, flags.no_zeroes, visitor);
    for _ in 0..server.config.max_options {
        let (option, payload) = wire.option().await?;
        let step = options.answer(option, payload.as_deref(), &mut wire)?;
        wire.send().await?;
        match step {
            Step::Next => {}
            Step::Open(agreed) => return Ok(Outcome::Open(agreed)),
            Step::Secure => return Ok(Outcome::Secure),
            Step::Leave => return Ok(Outcome::Left),
        }
    }
    Err(Closed::TooManyOptions)
}

/// The ids of the contexts that a client chose, for one export as it was then. They hold nothing of it: it may be withdrawn,
/// and its device closed, before the client opens it.
type Chosen = Option<(Weak<Served>, Vec<u32>)>;
