use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::traits::{Access, Drained, Export, ExportServer, ExportSpec, ExportStatistics};
use crate::{Error, ErrorKind, ExportName, Result};

/// An export server without a network: it keeps the table that every server keeps, and has no clients.
#[derive(Debug, Default)]
pub struct MemoryExportServer {
    exports: Mutex<BTreeMap<ExportName, ExportSpec>>,
}

impl MemoryExportServer {
    /// A server without exports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn exports(&self) -> MutexGuard<'_, BTreeMap<ExportName, ExportSpec>> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ExportServer for MemoryExportServer {
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        let mut exports = self.exports();
        let refused =
            |kind, reason: String| Err(Error::new(kind, "publish export", &spec.name).because(reason));
        if spec.access == Access::ReadWrite && spec.device.info().access == Access::ReadOnly {
            return refused(ErrorKind::Invalid, "its device is read-only; publish it for reading".to_owned());
        }
        let published = describe(&spec);
        if let Some(old) = exports.get(&spec.name) {
            if old.fence > spec.fence {
                let reason = format!("it is published with the newer token {}", old.fence);
                return refused(ErrorKind::Fenced, reason);
            }
            if old.fence == spec.fence && describe(old) != published {
                let reason = "the same token has published something else under this name".to_owned();
                return refused(ErrorKind::AlreadyExists, reason);
            }
        }
        let shares = |other: &&ExportSpec| {
            other.name != spec.name && other.device.info().identity == spec.device.info().identity
        };
        let writes =
            |other: &ExportSpec| other.access == Access::ReadWrite || spec.access == Access::ReadWrite;
        if let Some(other) = exports.values().find(|other| shares(other) && writes(other)) {
            let reason = format!("its device is exported as {} already; withdraw that first", other.name);
            return refused(ErrorKind::Conflict, reason);
        }
        exports.insert(spec.name.clone(), spec);
        Ok(published)
    }

    async fn withdraw(&self, name: &ExportName, _deadline: Duration) -> Result<Drained> {
        Ok(self.exports().remove(name).map_or(Drained::Absent, |_| Drained::Graceful))
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        let all: Vec<_> = self.exports().values().map(|spec| Ok(describe(spec))).collect();
        stream::iter(all).boxed()
    }

    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        Ok(self.exports().contains_key(name).then(ExportStatistics::default))
    }
}

fn describe(spec: &ExportSpec) -> Export {
    Export {
        name: spec.name.clone(),
        description: spec.description.clone(),
        access: spec.access,
        fence: spec.fence,
        capacity: spec.device.info().capacity,
        device: spec.device.info().identity.clone(),
    }
}
