//! The handshake: options until an export is chosen.

mod options;
mod wire;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use self::options::{Options, Step};
use self::wire::Wire;
use super::served::{Attachment, Served};
use super::{Inner, MetaContext};
use crate::protocol::{
    Greeting, NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES, NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES,
};
use crate::server::error::Closed;

/// What both sides agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) export: Attachment,
    /// Whether replies are structured.
    pub(super) structured: bool,
    /// Metadata contexts for block status.
    pub(super) contexts: Vec<Selected>,
}

/// A metadata context and its id on this connection.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    pub(super) id: u32,
    pub(super) context: Arc<dyn MetaContext>,
}

/// Speaks with a client until it has chosen an export; `None` when it left in peace.
pub(super) async fn negotiate<S>(server: &Inner, stream: &mut S) -> Result<Option<Agreed>, Closed>
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
    let mut options = Options::new(server, flags & NBD_FLAG_C_NO_ZEROES != 0);
    for _ in 0..server.config.max_options {
        let (option, payload) = wire.option().await?;
        let step = options.answer(option, payload.as_deref(), &mut wire)?;
        wire.send().await?;
        match step {
            Step::Next => {}
            Step::Open(agreed) => return Ok(Some(agreed)),
            Step::Leave => return Ok(None),
        }
    }
    Err(Closed::TooManyOptions)
}

/// The contexts that a client chose, for one export as it was then.
type Chosen = Option<(Arc<Served>, Vec<Selected>)>;
