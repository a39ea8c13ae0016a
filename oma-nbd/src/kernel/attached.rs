//! One export while the kernel has it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use oma_core::traits::{Drained, ExportSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::KernelConfig;
use super::block;
use super::error::Failure;
use super::identity::Identity;
use super::netlink::{Connect, Netlink};
use crate::Server;
use crate::protocol::{
    ExportNameReply, Greeting, NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES, NBD_OPT_EXPORT_NAME,
    OptionHeader,
};

/// How often a device that somebody has for himself is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Time for our own server to answer the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Sectors of disks; the kernel counts in nothing smaller.
pub(super) const SECTOR: u32 = 512;

/// An export that is attached.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) index: u32,
    pub(super) identity: Identity,
    /// The connections of the kernel. They end when it lets go, or with this value.
    serving: JoinSet<()>,
}

/// Runs what blocks.
pub(super) async fn run<T, F>(call: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Failure> + Send + 'static,
{
    tokio::task::spawn_blocking(call).await.map_err(|_| Failure::Shutdown)?
}

impl Attached {
    /// Has the kernel attach an export that is served, by connections of its own.
    pub(super) async fn new(
        server: &Server,
        spec: &ExportSpec,
        config: &KernelConfig,
    ) -> Result<Self, Failure> {
        let (mut serving, mut sockets, mut flags) = (JoinSet::new(), Vec::new(), 0);
        for _ in 0..config.connections.max(1) {
            let (ours, mut theirs) = UnixStream::pair().map_err(Failure::Handshake)?;
            let server = server.clone();
            serving.spawn(async move {
                // How it ended is the kernel's to tell.
                let _ = server.serve_stream(ours, CancellationToken::new()).await;
            });
            let reply = timeout(HANDSHAKE, shake(&mut theirs, spec.name.as_str())).await;
            flags = reply.map_err(|late| Failure::Handshake(late.into()))?.map_err(Failure::Handshake)?.flags;
            sockets.push(blocking(theirs).map_err(Failure::Handshake)?);
        }
        let (identity, info) = (Identity::new(spec), spec.device.info());
        let (size, block_size) = (info.capacity.bytes(), info.block_sizes.minimum.max(SECTOR));
        let (text, timeouts) = (identity.text(), [config.request_timeout, config.dead_timeout]);
        let index = run(move || {
            let [timeout, dead_timeout] = timeouts.map(|time| time.as_secs());
            let identifier = &text;
            Netlink::open()?.connect(&Connect {
                sockets: &sockets,
                size,
                block_size,
                flags,
                timeout,
                dead_timeout,
                identifier,
            })
        });
        let attached = Self { index: index.await?, identity, serving };
        attached.prove(size).await?;
        tracing::info!(export = %spec.name, node = %block::node(attached.index).display(), "attached an export");
        Ok(attached)
    }

    /// Looks whether the kernel has what it was given (L05).
    async fn prove(&self, size: u64) -> Result<(), Failure> {
        let index = self.index;
        let found = run(move || block::size(index)).await?;
        if found != Some(size) || !self.is_there().await? {
            let found = format!("{found:?} bytes in place of {size}");
            // It is ours by what the kernel said just now, whatever it looks like.
            run(move || Netlink::open()?.disconnect(index)).await?;
            return Err(Failure::Stranger { index, found });
        }
        Ok(())
    }

    /// Whether the kernel still has it.
    pub(super) async fn is_there(&self) -> Result<bool, Failure> {
        let index = self.index;
        Ok(run(move || block::identity(index)).await?.as_ref() == Some(&self.identity))
    }

    /// Waits until nobody has the device for himself, brings all that was written to it to where it belongs, and lets requests finish;
    /// then takes it from the kernel. After the deadline it is taken as it is.
    pub(super) async fn detach(&self, deadline: Duration) -> Result<Drained, Failure> {
        let (index, deadline) = (self.index, Instant::now() + deadline);
        let mut drained = Drained::Cut;
        if self.is_there().await? {
            // What blocks goes on after the deadline until its requests fail; nobody waits for it then.
            match timeout_at(deadline, settle(index)).await {
                Ok(Ok(())) => drained = Drained::Graceful,
                // Whoever wrote is told by the kernel when he asks. The device must go all the same.
                Ok(Err(error)) => tracing::warn!(index, %error, "what was written cannot be flushed"),
                Err(_) => tracing::warn!(index, "it is in use, or what was written is not flushed in time"),
            }
        }
        self.disconnect().await?;
        Ok(drained)
    }

    /// Lets the connections end by themselves: what they have in the device is never dropped, and the server waits for it (L23).
    pub(super) fn release(mut self) {
        self.serving.detach_all();
    }

    /// Takes it from the kernel as it is; one that is somebody else's by now is left alone.
    pub(super) async fn disconnect(&self) -> Result<(), Failure> {
        if !self.is_there().await? {
            return Ok(());
        }
        let index = self.index;
        run(move || Netlink::open()?.disconnect(index)).await?;
        tracing::info!(export = %self.identity.name, node = %block::node(index).display(), "detached an export");
        Ok(())
    }
}

/// Waits until nobody has a device for himself, nothing written waits, and nothing is under way.
async fn settle(index: u32) -> Result<(), Failure> {
    while run(move || block::is_held(index)).await? {
        sleep(TICK).await;
    }
    run(move || block::flush(index)).await?;
    // What is under way past the page cache, the kernel would fail (L23).
    while run(move || block::is_busy(index)).await? {
        sleep(TICK).await;
    }
    Ok(())
}

/// The kernel does not speak the handshake: it is made for it, with what it understands, which is simple replies.
async fn shake(stream: &mut UnixStream, name: &str) -> io::Result<ExportNameReply> {
    stream.read_exact(&mut [0; Greeting::SIZE]).await?;
    let length = u32::try_from(name.len()).map_err(io::Error::other)?;
    let option = OptionHeader { option: NBD_OPT_EXPORT_NAME, length };
    let flags = (NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES).to_be_bytes();
    stream.write_all(&[&flags[..], &option.encode(), name.as_bytes()].concat()).await?;
    let mut reply = [0; ExportNameReply::SIZE];
    stream.read_exact(&mut reply).await?;
    ExportNameReply::decode(&reply).map_err(io::Error::other)
}

fn blocking(stream: UnixStream) -> io::Result<OwnedFd> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}
