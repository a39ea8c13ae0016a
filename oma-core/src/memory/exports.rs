use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};

use super::gate::Gate;
use crate::traits::{
    Admission, BlockDevice, BlockStatus, DeviceInfo, Drained, Durability, Export, ExportServer, ExportSpec,
    ExportStatistics, InPlace, LeafHasher, Zeroing,
};
use crate::{Error, ErrorKind, ExportName, Extent, Result, Retry};

/// Serves volumes to clients in this process. A clone is another handle on the same server.
#[derive(Clone, Debug, Default)]
pub struct MemoryExportServer {
    exports: Arc<Mutex<BTreeMap<ExportName, Arc<Served>>>>,
}

#[derive(Debug)]
struct Served {
    export: Export,
    device: Arc<dyn BlockDevice>,
    gate: Gate,
    connections: AtomicU64,
    answered: Mutex<ExportStatistics>,
}

impl MemoryExportServer {
    /// A server without exports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens an export as a client does. Once it is withdrawn, every call answers `Unavailable`.
    ///
    /// # Errors
    /// `NotFound` when it is not served.
    pub fn connect(&self, name: &ExportName) -> Result<Arc<dyn BlockDevice>> {
        let served = self.exports().get(name).filter(|served| !served.gate.is_closed()).cloned();
        let served = served.ok_or_else(|| Error::new(ErrorKind::NotFound, "connect to export", name))?;
        served.connections.fetch_add(1, Ordering::Relaxed);
        let info = DeviceInfo { access: served.export.access, ..served.device.info().clone() };
        Ok(Arc::new(Connection { info, served }))
    }

    fn exports(&self) -> MutexGuard<'_, BTreeMap<ExportName, Arc<Served>>> {
        // Each change of the table is one call.
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes exactly this export out, not one that took its name since.
    fn remove(&self, served: &Arc<Served>) {
        let mut exports = self.exports();
        if exports.get(&served.export.name).is_some_and(|found| Arc::ptr_eq(found, served)) {
            exports.remove(&served.export.name);
        }
    }

    /// Serves a spec, or tells which export must be gone first.
    fn try_publish(&self, spec: &ExportSpec) -> Result<Option<Arc<Served>>> {
        let mut exports = self.exports();
        let admission = spec.admit(exports.values().map(|served| &served.export))?;
        let old = exports.get(&spec.name).cloned();
        if admission == Admission::Keep && old.as_ref().is_some_and(|old| !old.gate.is_closed()) {
            return Ok(None);
        }
        if old.is_none() {
            exports.insert(spec.name.clone(), Arc::new(Served::new(spec)));
        }
        Ok(old)
    }
}

#[async_trait]
impl ExportServer for MemoryExportServer {
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        while let Some(old) = self.try_publish(&spec)? {
            old.gate.close();
            old.gate.empty().await;
            self.remove(&old);
        }
        Ok(spec.export())
    }

    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        let Some(served) = self.exports().get(name).cloned() else { return Ok(Drained::Absent) };
        served.gate.close();
        if !served.gate.empty_within(deadline).await {
            return Err(Error::new(ErrorKind::Busy, "withdraw export", name)
                .because("its device has not answered all requests; nobody can send more, ask again")
                .with_retry(Retry::Later));
        }
        self.remove(&served);
        Ok(Drained::Graceful)
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        let exports: Vec<_> = self.exports().values().map(|served| Ok(served.export.clone())).collect();
        stream::iter(exports).boxed()
    }

    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        Ok(self.exports().get(name).map(|served| served.statistics()))
    }
}

impl Served {
    fn new(spec: &ExportSpec) -> Self {
        Self {
            export: spec.export(),
            device: spec.device.clone(),
            gate: Gate::default(),
            connections: AtomicU64::new(0),
            answered: Mutex::default(),
        }
    }

    fn answered(&self) -> MutexGuard<'_, ExportStatistics> {
        // Counters only.
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statistics(&self) -> ExportStatistics {
        let connections = if self.gate.is_closed() { 0 } else { self.connections.load(Ordering::Relaxed) };
        ExportStatistics { connections, ..*self.answered() }
    }

    /// Passes one request on to the device and counts it.
    async fn pass<T>(
        &self,
        request: impl Future<Output = Result<T>>,
        count: fn(&mut ExportStatistics, u64),
        bytes: u64,
    ) -> Result<T> {
        let Some(_pass) = self.gate.enter() else {
            return Err(Error::new(ErrorKind::Unavailable, "use export", &self.export.name)
                .because("it was withdrawn")
                .with_retry(Retry::Later));
        };
        let answer = request.await;
        let mut answered = self.answered();
        answered.requests += 1;
        match &answer {
            Ok(_) => count(&mut answered, bytes),
            Err(_) => answered.errors += 1,
        }
        answer
    }
}

/// One client of an export.
#[derive(Debug)]
struct Connection {
    info: DeviceInfo,
    served: Arc<Served>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.served.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

const UNCOUNTED: fn(&mut ExportStatistics, u64) = |_, _| {};

#[async_trait]
impl BlockDevice for Connection {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        let length = u64::try_from(buffer.len()).expect("a buffer is smaller than 2^64");
        let request = self.served.device.read_at(offset, buffer);
        self.served.pass(request, |answered, bytes| answered.bytes_read += bytes, length).await
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        let length = u64::try_from(data.len()).expect("a buffer is smaller than 2^64");
        let request = async {
            self.info.check_change("write", offset, length)?;
            self.served.device.write_at(offset, data, durability).await
        };
        self.served.pass(request, |answered, bytes| answered.bytes_written += bytes, length).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let request = async {
            self.info.check_change("write zeroes", extent.offset(), extent.length())?;
            self.served.device.write_zeroes(extent, zeroing, durability).await
        };
        self.served.pass(request, UNCOUNTED, 0).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let request = async {
            self.info.check_change("write zeroes fast", extent.offset(), extent.length())?;
            self.served.device.zero_fast(extent, zeroing, durability).await
        };
        self.served.pass(request, UNCOUNTED, 0).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        let request = async {
            self.info.check_change("trim", extent.offset(), extent.length())?;
            self.served.device.trim(extent).await
        };
        self.served.pass(request, UNCOUNTED, 0).await
    }

    async fn flush(&self) -> Result<()> {
        self.served.pass(self.served.device.flush(), UNCOUNTED, 0).await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.served.pass(self.served.device.cache(extent), UNCOUNTED, 0).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.served.pass(self.served.device.block_status(extent), UNCOUNTED, 0).await
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        None
    }
}
