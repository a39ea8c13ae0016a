//! The exports of jobs: what agents write, and what is looked at while the appliance itself writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use oma_core::engine::Pushes;
use oma_core::record::ExportRecord;
use oma_core::state::{ExportStatus, Role};
use oma_core::traits::{Access, Export, ExportRegistry, ExportServer, ExportStatistics};
use oma_core::{Error, ErrorKind, ExportName, Result, Retry};

use super::unknown;
use crate::ExportRow;
use crate::server::access::Principal;
use crate::server::origin::Origin;
use crate::server::publish::Publisher;

/// The exports of jobs.
#[derive(Clone, Debug)]
pub struct JobExports {
    /// What is recorded of them.
    pub records: Arc<dyn ExportRegistry>,
    /// Serves those of jobs that are driven in this process: those that are written to whom the [`Publisher`]'s addresses are told,
    /// those for reading to nobody outside.
    pub server: Arc<dyn ExportServer>,
    /// Ends jobs whose export is revoked.
    pub pushes: Pushes,
}

impl JobExports {
    /// Those that a principal may know, by name. Who knows the name of one that is written, and has a certificate, writes: only those who
    /// may change things are told.
    pub(super) async fn seen(
        &self,
        by: &Principal,
        publisher: &Publisher,
        asker: Origin,
    ) -> Result<BTreeMap<ExportName, ExportRow>> {
        let served = self.served().await?;
        let mut rows = BTreeMap::new();
        let mut records = self.records.exports();
        while let Some(record) = records.try_next().await? {
            let export = served.get(&record.name);
            if is_told(by, export) {
                rows.insert(record.name.clone(), self.row(&record, export, publisher, asker).await?);
            }
        }
        Ok(rows)
    }

    /// One of them.
    pub(super) async fn one(
        &self,
        by: &Principal,
        publisher: &Publisher,
        asker: Origin,
        name: &ExportName,
    ) -> Result<ExportRow> {
        let served = self.served().await?;
        let export = served.get(name);
        let record = self.records.export(name).await?.filter(|_| is_told(by, export));
        self.row(&record.ok_or_else(|| unknown(name))?, export, publisher, asker).await
    }

    /// Cuts the clients of one off that an agent writes, and ends its job. Nothing can land through it any more then.
    pub(super) async fn revoke(&self, name: &ExportName) -> Result<()> {
        let record = self.records.export(name).await?.ok_or_else(|| unknown(name))?;
        let refused = |kind, reason| Error::new(kind, "revoke export", name).because(reason);
        match self.served().await?.get(name).map(|export| export.access) {
            Some(Access::ReadWrite) => {}
            Some(Access::ReadOnly) => {
                let reason =
                    "the appliance itself writes there, and lets no client in; pause or cancel the job";
                return Err(refused(ErrorKind::Conflict, reason));
            }
            None if record.status == ExportStatus::Stopped => return Ok(()),
            None => {
                let reason = "this process does not serve it, or not yet; ask again, or cancel its job";
                return Err(refused(ErrorKind::Unavailable, reason).with_retry(Retry::Later));
            }
        }
        // First of all: whoever drives the job may be waiting for a disk.
        let withdrawn = self.server.withdraw(name, Duration::ZERO).await;
        self.pushes.revoke(&record.job, name).await?;
        withdrawn.map(drop)
    }

    async fn served(&self) -> Result<HashMap<ExportName, Export>> {
        self.server.list().map_ok(|export| (export.name.clone(), export)).try_collect().await
    }

    async fn row(
        &self,
        record: &ExportRecord,
        export: Option<&Export>,
        publisher: &Publisher,
        asker: Origin,
    ) -> Result<ExportRow> {
        let moved = match export {
            None => None,
            Some(_) => self.server.statistics(&record.name).await?,
        };
        let of = |figure: fn(&ExportStatistics) -> u64| moved.as_ref().map(figure);
        let is_written = export.is_some_and(|export| export.access == Access::ReadWrite);
        Ok(ExportRow {
            export_name: record.name.clone(),
            uri: is_written.then(|| publisher.uri(&record.name, asker)).transpose()?,
            volume_id: record.volume.clone(),
            job_id: Some(record.job.clone()),
            status: record.status,
            read_only: export.map(|export| export.access == Access::ReadOnly),
            capacity_bytes: export.map(|export| export.capacity),
            connections: of(|moved| moved.connections),
            requests: of(|moved| moved.requests),
            errors: of(|moved| moved.errors),
            bytes_read: of(|moved| moved.bytes_read),
            bytes_written: of(|moved| moved.bytes_written),
        })
    }
}

/// Of what is not served here it is not known whether somebody writes there.
fn is_told(by: &Principal, export: Option<&Export>) -> bool {
    by.role >= Role::Operator || export.is_some_and(|export| export.access == Access::ReadOnly)
}
