//! Bytes of the handshake in and out.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::{OptionHeader, OptionReplyHeader};
use crate::server::error::Closed;

/// A longer payload is not kept: no option needs it.
const KEPT: usize = 64 << 10;
/// A longer payload is not even skipped.
const SKIPPED: usize = 1 << 20;

/// One connection during the handshake. It never reads behind the option it was asked for.
pub(super) struct Wire<'a, S> {
    stream: &'a mut S,
    out: BytesMut,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Wire<'a, S> {
    pub(super) fn new(stream: &'a mut S) -> Self {
        Self { stream, out: BytesMut::new() }
    }

    /// Receives so many bytes.
    pub(super) async fn receive<const N: usize>(&mut self) -> Result<[u8; N], Closed> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.map_err(vanished)?;
        Ok(bytes)
    }

    /// Receives an option; `None` for a payload that is longer than any option needs.
    pub(super) async fn option(&mut self) -> Result<(u32, Option<Vec<u8>>), Closed> {
        let OptionHeader { option, length } = OptionHeader::decode(&self.receive().await?)?;
        let size = usize::try_from(length).ok().filter(|size| *size <= SKIPPED);
        let size = size.ok_or(Closed::OptionTooLong { option, length })?;
        if size > KEPT {
            self.skip(size).await?;
            return Ok((option, None));
        }
        let mut payload = vec![0; size];
        self.stream.read_exact(&mut payload).await.map_err(vanished)?;
        Ok((option, Some(payload)))
    }

    async fn skip(&mut self, mut size: usize) -> Result<(), Closed> {
        let mut scrap = [0; 4096];
        while size > 0 {
            let part = size.min(scrap.len());
            self.stream.read_exact(&mut scrap[..part]).await.map_err(vanished)?;
            size -= part;
        }
        Ok(())
    }

    /// Adds bytes to be sent.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Adds a reply to an option to be sent.
    pub(super) fn reply(&mut self, option: u32, reply: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("replies to options are short");
        self.put(&OptionReplyHeader { option, reply, length }.encode());
        self.put(payload);
    }

    /// Sends all that was added.
    pub(super) async fn send(&mut self) -> Result<(), Closed> {
        self.stream.write_all_buf(&mut self.out).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

fn vanished(error: io::Error) -> Closed {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Closed::Vanished,
        _ => Closed::Io(error),
    }
}
