//! Which exports are served. The lock is never held across I/O.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oma_core::traits::{Admission, Drained, Export, ExportSpec};
use oma_core::{Error, ErrorKind, ExportName};

use super::ExportOptions;
use super::served::{Attachment, Served};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Exports by name. One that is being withdrawn stays until its last connection is gone, so that its device is not
/// given to anybody else before (L06).
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<BTreeMap<ExportName, Arc<Served>>>);

/// Why a connection was not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// There is no such export.
    Absent,
    /// It has as many connections as it may.
    Full,
}

impl Table {
    pub(super) async fn publish(&self, spec: &ExportSpec, options: &ExportOptions) -> Result<Export> {
        while let Some(old) = self.try_publish(spec, options)? {
            tracing::info!(export = %spec.name, "replacing an export");
            old.cut().await;
            self.remove(&old);
        }
        Ok(spec.export())
    }

    pub(super) async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        let Some(served) = self.exports().get(name).cloned() else { return Ok(Drained::Absent) };
        let drained = served.drain(deadline).await?;
        self.remove(&served);
        tracing::info!(export = %name, ?drained, "withdrew an export");
        Ok(drained)
    }

    /// The export with this name, if it takes connections.
    pub(super) fn find(&self, name: &ExportName) -> Option<Arc<Served>> {
        self.exports().get(name).filter(|served| served.is_open()).cloned()
    }

    /// Attaches a connection to an export.
    pub(super) fn open(&self, name: &ExportName) -> Result<Attachment, NotOpened> {
        let exports = self.exports();
        let served = exports.get(name).filter(|served| served.is_open()).ok_or(NotOpened::Absent)?;
        served.attach().ok_or(NotOpened::Full)
    }

    /// Everything through which a write may land, by name.
    pub(super) fn list(&self) -> Vec<Arc<Served>> {
        self.exports().values().cloned().collect()
    }

    pub(super) fn any(&self, name: &ExportName) -> Option<Arc<Served>> {
        self.exports().get(name).cloned()
    }

    /// Serves a spec, or tells which export must be gone first.
    fn try_publish(&self, spec: &ExportSpec, options: &ExportOptions) -> Result<Option<Arc<Served>>> {
        let mut exports = self.exports();
        let admission = spec.admit(exports.values().map(|served| &served.export))?;
        let old = exports.get(&spec.name).cloned();
        if let Some(old) = old.as_ref().filter(|old| admission == Admission::Keep && old.is_open()) {
            if old.clients == options.clients {
                return Ok(None);
            }
            return Err(Error::new(ErrorKind::AlreadyExists, "publish export", &spec.name).because(
                "it is open to other clients; publish it with a newer token, or withdraw it first",
            ));
        }
        if old.is_none() {
            exports.insert(spec.name.clone(), Arc::new(Served::new(spec, options)));
            tracing::info!(export = %spec.name, device = %spec.device.info().identity, "published an export");
        }
        Ok(old)
    }

    /// Takes exactly this export out, not one that took its name since.
    fn remove(&self, served: &Arc<Served>) {
        let mut exports = self.exports();
        if exports.get(&served.export.name).is_some_and(|found| Arc::ptr_eq(found, served)) {
            exports.remove(&served.export.name);
        }
    }

    fn exports(&self) -> MutexGuard<'_, BTreeMap<ExportName, Arc<Served>>> {
        // Each change of the table is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
