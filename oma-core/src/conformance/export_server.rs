//! What every [`ExportServer`] promises.

mod clients;
mod publish;
mod withdraw;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;

use super::{Case, Guard};
use crate::memory::{HeldDevice, Hold, MemoryDevice};
use crate::traits::{
    Access, BlockDevice, Drained, Durability, Export, ExportServer, ExportSpec, ExportStatistics,
};
use crate::{ByteSize, ExportName, Fence, Result};

/// Opens an export as a client does, without trying again when it is refused or disconnected.
pub type Connect = Arc<dyn Fn(ExportName) -> BoxFuture<'static, Result<Arc<dyn BlockDevice>>> + Send + Sync>;

/// A server without exports, to be put to the test.
pub struct ExportSubject {
    /// The server.
    pub server: Arc<dyn ExportServer>,
    /// Its clients.
    pub connect: Connect,
    /// What it lives on.
    pub guard: Guard,
}

impl fmt::Debug for ExportSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportSubject").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Cases over any server.
#[must_use]
pub fn export_server_cases() -> Vec<Case<ExportSubject>> {
    let mut all = publish::cases();
    all.extend(withdraw::cases());
    all.extend(clients::cases());
    all
}

/// Size of the exports.
const SIZE: ByteSize = ByteSize::mib(1);
/// A deadline that is not reached.
const LONG: Duration = Duration::from_secs(30);
/// A deadline that is.
const SHORT: Duration = Duration::from_millis(20);

/// The server with comfort for tests.
impl ExportSubject {
    async fn publish(&self, spec: ExportSpec) -> Export {
        self.server.publish(spec).await.unwrap()
    }

    async fn withdraw(&self, text: &str) -> Drained {
        self.server.withdraw(&name(text), LONG).await.unwrap()
    }

    async fn client(&self, text: &str) -> Arc<dyn BlockDevice> {
        (self.connect)(name(text)).await.unwrap()
    }

    async fn is_refused(&self, text: &str) -> bool {
        (self.connect)(name(text)).await.is_err()
    }

    async fn names(&self) -> Vec<String> {
        let exports: Vec<_> = self.server.list().try_collect().await.unwrap();
        exports.into_iter().map(|export| export.name.to_string()).collect()
    }

    async fn statistics(&self, text: &str) -> Option<ExportStatistics> {
        self.server.statistics(&name(text)).await.unwrap()
    }
}

fn name(text: &str) -> ExportName {
    ExportName::parse(text).unwrap()
}

fn device(identity: &str) -> MemoryDevice {
    MemoryDevice::new(identity, SIZE)
}

/// `device` for writing under a name, with token 5.
fn spec(text: &str, device: &MemoryDevice) -> ExportSpec {
    ExportSpec {
        name: name(text),
        description: format!("the export {text}"),
        access: Access::ReadWrite,
        fence: Fence(5),
        device: Arc::new(device.clone()),
    }
}

fn with_fence(fence: u64, spec: ExportSpec) -> ExportSpec {
    ExportSpec { fence: Fence(fence), ..spec }
}

fn read_only(spec: ExportSpec) -> ExportSpec {
    ExportSpec { access: Access::ReadOnly, ..spec }
}

/// The same, but its device's calls can be held.
fn held(spec: ExportSpec) -> (ExportSpec, Hold) {
    let hold = Hold::default();
    let device = Arc::new(HeldDevice::new(spec.device.clone(), hold.clone()));
    (ExportSpec { device, ..spec }, hold)
}

async fn write(client: &dyn BlockDevice, text: &'static str) -> Result<()> {
    client.write_at(0, Bytes::from_static(text.as_bytes()), Durability::Cached).await
}

async fn read(client: &dyn BlockDevice, length: usize) -> Result<String> {
    let bytes = client.read_at(0, BytesMut::zeroed(length)).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
