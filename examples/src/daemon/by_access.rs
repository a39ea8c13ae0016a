//! Two servers of exports that are one: by what clients may do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use oma_core::traits::{Access, Drained, Export, ExportServer, ExportSpec, ExportStatistics};
use oma_core::{ExportName, Result};

/// Serves what is only looked at by one server, and what is written by another. Each device has one writer, which opened it alone: no
/// device is served by both.
#[derive(Debug)]
pub struct ByAccess {
    read: Arc<dyn ExportServer>,
    written: Arc<dyn ExportServer>,
}

impl ByAccess {
    /// These two.
    pub const fn new(read: Arc<dyn ExportServer>, written: Arc<dyn ExportServer>) -> Self {
        Self { read, written }
    }
}

#[async_trait]
impl ExportServer for ByAccess {
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        match spec.access {
            Access::ReadOnly => self.read.publish(spec).await,
            Access::ReadWrite => self.written.publish(spec).await,
        }
    }

    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        match self.written.withdraw(name, deadline).await? {
            Drained::Absent => self.read.withdraw(name, deadline).await,
            drained @ (Drained::Graceful | Drained::Cut) => Ok(drained),
        }
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        self.read.list().chain(self.written.list()).boxed()
    }

    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        match self.written.statistics(name).await? {
            None => self.read.statistics(name).await,
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;
    use oma_core::memory::{MemoryDevice, MemoryExportServer};
    use oma_core::{ByteSize, Fence};

    #[tokio::test]
    async fn what_is_written_is_served_apart_and_withdrawn_wherever_it_is() {
        let (read, written) = (MemoryExportServer::new(), MemoryExportServer::new());
        let both = ByAccess::new(Arc::new(read.clone()), Arc::new(written.clone()));
        let name = |text: &str| ExportName::parse(text).unwrap();
        for (text, access) in [("r", Access::ReadOnly), ("w", Access::ReadWrite)] {
            let device = Arc::new(MemoryDevice::new(text, ByteSize::mib(1)));
            let description = String::new();
            let spec = ExportSpec { name: name(text), description, access, fence: Fence(1), device };
            both.publish(spec).await.unwrap();
        }
        assert!(read.connect(&name("w")).is_err() && written.connect(&name("w")).is_ok());
        assert!(read.connect(&name("r")).is_ok() && written.connect(&name("r")).is_err());
        assert_eq!(both.list().try_collect::<Vec<_>>().await.unwrap().len(), 2);
        for text in ["r", "w"] {
            assert!(both.statistics(&name(text)).await.unwrap().is_some());
            assert_eq!(both.withdraw(&name(text), Duration::ZERO).await.unwrap(), Drained::Graceful);
            assert_eq!(both.withdraw(&name(text), Duration::ZERO).await.unwrap(), Drained::Absent);
        }
        assert!(both.statistics(&name("w")).await.unwrap().is_none());
    }
}
