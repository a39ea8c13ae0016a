//! Exports as block devices of this machine: `/dev/nbdN`.
//!
//! ```text
//!  /dev/nbd0 ── the kernel's NBD client ══ unix socket pairs ══ Server ── any BlockDevice, also a Client
//! ```
//!
//! The kernel is told by generic netlink, which hands it sockets that are connected already, chooses a device that nobody uses, and keeps a name
//! of ours beside it (`/sys/block/nbdN/backend`). By that name a device is recognised, whoever attached it; one with
//! another name, or none, is never touched.
//!
//! This process serves what is attached. When it ends without a withdrawal, requests on the device fail; [`sweep`] takes
//! such devices from the kernel, which belongs into every start (L24). A program that writes to the device of its own process under memory pressure may
//! wait for itself: let somebody else use it.
//!
//! The crate `nbd-async` is not used: it announces neither flush nor FUA, so that nothing written would ever be durable; it clears whatever
//! is attached to the device it is given; it ends the process on write-zeroes and on disconnect; and it serves one request at a time.

mod attached;
mod block;
mod config;
mod error;
mod identity;
mod message;
mod netlink;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::traits::{
    BlockDevice, DeviceIdentity, Drained, Export, ExportServer, ExportSpec, ExportStatistics,
};
use oma_core::{ExportName, Fence, Result};
use tokio::sync::RwLock;
use tokio::time::Instant;

use self::attached::{Attached, SECTOR, run};
use self::error::Failure;
use self::identity::Identity;
use self::netlink::Netlink;
use crate::{Server, ServerConfig};

pub use config::KernelConfig;

/// Blocks of a page are the largest that the kernel takes.
const PAGE: u32 = 4096;

/// Attaches what it publishes as block devices of this machine. A clone is another handle on the same exports.
///
/// Withdraw everything before the last one goes: what is attached then fails its requests until it is swept.
#[derive(Clone, Debug)]
pub struct KernelExports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: KernelConfig,
    server: Server,
    slots: Mutex<BTreeMap<ExportName, Slot>>,
}

/// What is attached under a name. Held for writing while that changes.
type Slot = Arc<RwLock<Option<Attached>>>;

/// An export that is attached to this machine, by whichever process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The block device.
    pub path: PathBuf,
    /// The export's name.
    pub name: ExportName,
    /// The token it was published with.
    pub fence: Fence,
    /// The device behind it.
    pub device: DeviceIdentity,
    /// Whether the process that serves it lives.
    pub is_served: bool,
}

impl KernelExports {
    /// Attaches nothing yet, and asks the kernel nothing.
    #[must_use]
    pub fn new(config: KernelConfig) -> Self {
        let server = Server::new(ServerConfig::default());
        Self(Arc::new(Inner { config, server, slots: Mutex::default() }))
    }

    /// Where an export is attached; `None` also while it is being attached or withdrawn.
    pub async fn path(&self, name: &ExportName) -> Option<PathBuf> {
        // Whoever asks while it is withdrawn shall not begin to use it.
        self.slot(name).try_read().ok()?.as_ref().map(|attached| block::node(attached.index))
    }

    fn slot(&self, name: &ExportName) -> Slot {
        // One call.
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(name.clone()).or_default().clone()
    }

    async fn attach(&self, spec: &ExportSpec, slot: &mut Option<Attached>) -> Result<(), Failure> {
        if let Some(old) = slot {
            if old.identity == Identity::new(spec) && old.is_there().await? {
                return Ok(());
            }
            // An older token's connections were cut when the new one was admitted; or somebody detached it behind our back.
            old.disconnect().await?;
        }
        if let Some(old) = slot.take() {
            old.release();
        }
        *slot = Some(Attached::new(&self.0.server, spec, &self.0.config).await?);
        Ok(())
    }
}

/// Everything of ours that is attached to this machine.
///
/// # Errors
/// `PermissionDenied` and `Unavailable` when the kernel does not tell.
pub async fn attached() -> Result<Vec<Attachment>> {
    let found = run(block::ours).await.map_err(|failure| failure.at("list", "attached exports"))?;
    Ok(found.into_iter().map(|(index, identity)| attachment(index, &identity)).collect())
}

/// Takes from the kernel what processes of ours left behind that are gone (L24); what it took. Requests on such a device fail already, so
/// nothing is lost that was not lost before. What is served, and what is somebody else's, is left alone.
///
/// # Errors
/// `Unsupported` when something is to be taken and the kernel's NBD client is not there, `PermissionDenied` without the right to.
pub async fn sweep() -> Result<Vec<Attachment>> {
    let swept = run(|| {
        let mut swept = Vec::new();
        for (index, identity) in block::ours()? {
            if !identity.is_served() {
                Netlink::open()?.disconnect(index)?;
                swept.push(attachment(index, &identity));
            }
        }
        Ok(swept)
    });
    swept.await.map_err(|failure| failure.at("sweep", "attached exports"))
}

fn attachment(index: u32, identity: &Identity) -> Attachment {
    Attachment {
        path: block::node(index),
        name: identity.name.clone(),
        fence: identity.fence,
        device: DeviceIdentity(identity.device.clone()),
        is_served: identity.is_served(),
    }
}

/// Refuses what the kernel would cut short.
fn check(device: &dyn BlockDevice) -> Result<(), Failure> {
    let info = device.info();
    let (size, block) = (info.capacity.bytes(), info.block_sizes.minimum);
    if !size.is_multiple_of(SECTOR.into()) {
        return Err(Failure::Size(size));
    }
    if block > PAGE { Err(Failure::BlockSize(block)) } else { Ok(()) }
}

#[async_trait]
impl ExportServer for KernelExports {
    /// As the trait says; also `Invalid` for a device that has no whole sectors, and `Unsupported` without the kernel's NBD client.
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        let at = |failure: Failure| failure.at("attach export", &spec.name);
        check(&*spec.device).map_err(at)?;
        let slot = self.slot(&spec.name);
        let mut slot = slot.write().await;
        let export = self.0.server.publish(spec.clone()).await?;
        if let Err(failure) = self.attach(&spec, &mut slot).await {
            // What is not attached must not look as if it were.
            self.0.server.withdraw(&spec.name, Duration::ZERO).await?;
            return Err(at(failure));
        }
        Ok(export)
    }

    /// As the trait says. A file system on the device is waited for until it is unmounted; after the deadline it loses its device. All that was
    /// written is flushed before, if that can be done in time.
    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        let slot = self.slot(name);
        let mut slot = slot.write().await;
        let begun = Instant::now();
        let mut detached = None;
        if let Some(attached) = &*slot {
            let drained = attached.detach(deadline).await;
            detached = Some(drained.map_err(|failure| failure.at("detach export", name))?);
        }
        if let Some(attached) = slot.take() {
            attached.release();
        }
        let served = self.0.server.withdraw(name, deadline.saturating_sub(begun.elapsed())).await?;
        Ok(if detached == Some(Drained::Cut) { Drained::Cut } else { served })
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        self.0.server.list()
    }

    /// As the trait says; the connections are those of the kernel.
    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        self.0.server.statistics(name).await
    }
}
