//! Exports of a running nbd-server, kept in its configuration, for sites that keep nbd-server.
//!
//! ```text
//!  publish   section in ── link in ── SIGHUP ── open it as a client does: right size, right access?
//!  withdraw  link out ── wait for connections, then end their processes ── section out
//! ```
//!
//! nbd-server reads new sections on SIGHUP, but neither changes nor forgets one before it is restarted, which would cut off
//! everybody (L22). So each section names a link of ours in place of the device: nbd-server opens it for each connection, and an
//! export whose link is gone is closed to everybody.
//!
//! What nbd-server cannot do stays undone:
//! - Nobody tells its clients that an export is withdrawn. They may finish and leave until the deadline; the
//!   process of each connection that is there afterwards is ended, or left alone and the answer is `Busy` ([`Overdue`]). Either
//!   way nothing lands once the withdrawal has answered.
//! - A name that was served for writing cannot be served for reading only afterwards, nor the other way round: `Conflict` until
//!   nbd-server is restarted.
//! - It counts no requests and no bytes; of the statistics only the connections are true.
//! - Descriptions are kept, but not shown to clients.
//! - Before 3.25 it cannot read its configuration again without damage, see [`Unsound`]. It is told only of names that it does not
//!   serve already.
//! - It does not start without any export: before a restart there must be one.

mod config;
mod document;
mod error;
mod file;
mod links;
mod locate;
mod process;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use oma_core::traits::{
    Access, Admission, BlockDevice, Drained, Export, ExportServer, ExportSpec, ExportStatistics,
};
use oma_core::{Error, ErrorKind, ExportName, Result};
use tokio::time::{Instant, sleep};

use self::document::Document;
use self::error::Failure;
use self::file::Locked;
use self::links::Links;
use self::process::{DeviceKey, holders, reload};
use self::record::{Record, check_name};
use crate::{Client, ClientConfig};

pub use config::{NbdServerConfig, Overdue, Unsound};
pub use locate::{KnownPaths, Locate};

/// How often a process that takes a change, or is about to leave, is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Time for a process that was ended to be gone; one whose device hangs takes longer.
const END: Duration = Duration::from_secs(5);

/// The exports of a running nbd-server. A clone is another handle on the same server.
///
/// Several of them, in several processes, may keep one configuration: what there is to know stands in the file.
#[derive(Clone, Debug)]
pub struct NbdServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: NbdServerConfig,
    links: Links,
    locate: Arc<dyn Locate>,
}

/// What must happen before an export is served.
enum Step {
    /// It stands in the configuration; since just now, or from before.
    Open { new: bool },
    /// Connections of an older token must be gone first.
    Cut(Record),
}

impl NbdServer {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(config: NbdServerConfig, locate: Arc<dyn Locate>) -> Self {
        let links = Links(config.links.clone());
        Self(Arc::new(Inner { config, links, locate }))
    }

    /// Runs what blocks.
    async fn run<T, F>(&self, call: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
    {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || call(&inner)).await.map_err(|_| Failure::Shutdown)?
    }

    async fn try_publish(&self, spec: &ExportSpec) -> Result<Export, Failure> {
        check_name(&spec.name)?;
        let device = self.0.locate.locate(&*spec.device)?;
        let new = loop {
            let (wanted, device) = (spec.clone(), device.clone());
            match self.run(move |inner| inner.admit(&wanted, &device)).await? {
                Step::Open { new } => break new,
                Step::Cut(old) => {
                    tracing::info!(export = %spec.name, "replacing an export");
                    self.cut(&old.path).await?;
                    self.run(move |inner| inner.forget(&old)).await?;
                }
            }
        };
        let record = Record::new(spec, &device);
        let opened = record.clone();
        let served = async {
            self.run(move |inner| inner.open(&opened)).await?;
            // It may know the name from before.
            match self.look(spec).await {
                Ok(found) => found,
                Err(_) => {
                    self.run(Inner::reload).await?;
                    self.prove(spec).await
                }
            }
        };
        match served.await {
            Ok(()) => {}
            // What is not served must not look as if it were; what stood there before is not ours to take out.
            Err(failure) if new => {
                if let Err(error) = self.run(move |inner| inner.forget(&record)).await {
                    tracing::warn!(export = %spec.name, %error, "cannot take out an export that is not served");
                }
                return Err(failure);
            }
            Err(failure) => return Err(failure),
        }
        tracing::info!(export = %spec.name, "published an export");
        Ok(spec.export())
    }

    /// Looks until nbd-server has taken the export, or does not in time.
    async fn prove(&self, spec: &ExportSpec) -> Result<(), Failure> {
        let waited = self.0.config.settle;
        let deadline = Instant::now() + waited;
        loop {
            match self.look(spec).await {
                Ok(found) => return found,
                Err(error) if Instant::now() >= deadline || !may_come(&error) => {
                    return Err(Failure::NotTaken { waited, source: error });
                }
                Err(_) => sleep(TICK).await,
            }
        }
    }

    /// Opens the export as a client does.
    async fn look(&self, spec: &ExportSpec) -> Result<Result<(), Failure>> {
        let config = &self.0.config;
        let uri = config.uri.with_export(spec.name.as_str())?;
        let settings =
            ClientConfig { connections: 1, connect_timeout: config.settle, ..ClientConfig::default() };
        let client = Client::connect(&uri, settings).await?;
        let found = client.info().clone();
        client.close().await;
        Ok(served_as_asked(spec, found.capacity, found.access))
    }

    async fn try_withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained, Failure> {
        let wanted = name.clone();
        let Some(record) = self.run(move |inner| inner.close(&wanted)).await? else {
            return Ok(Drained::Absent);
        };
        let mut drained = Drained::Graceful;
        if !self.empties(&record.path, deadline).await? {
            if self.0.config.overdue == Overdue::Wait {
                return Err(Failure::Held);
            }
            self.cut(&record.path).await?;
            drained = Drained::Cut;
        }
        self.run(move |inner| inner.forget(&record)).await?;
        tracing::info!(export = %name, ?drained, "withdrew an export");
        Ok(drained)
    }

    /// Ends the connections of a device.
    async fn cut(&self, device: &Path) -> Result<(), Failure> {
        let path = device.to_owned();
        self.run(move |inner| inner.holders(&path)?.iter().try_for_each(process::Process::kill)).await?;
        if self.empties(device, END).await? { Ok(()) } else { Err(Failure::Held) }
    }

    /// Whether all connections of a device are gone in time. Its link is gone, so none comes any more; but one may have been about
    /// to open it, so it is looked at twice.
    async fn empties(&self, device: &Path, time: Duration) -> Result<bool, Failure> {
        let deadline = Instant::now() + time;
        let mut empty = 0;
        loop {
            let path = device.to_owned();
            let held = self.run(move |inner| Ok(!inner.holders(&path)?.is_empty())).await?;
            empty = if held { 0 } else { empty + 1 };
            if empty == 2 {
                return Ok(true);
            }
            if held && Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(TICK).await;
        }
    }
}

/// Whether what a client was told may pass once nbd-server has read its configuration.
fn may_come(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable | ErrorKind::PermissionDenied)
}

/// Whether a client found what was published.
fn served_as_asked(spec: &ExportSpec, capacity: oma_core::ByteSize, access: Access) -> Result<(), Failure> {
    let wanted = spec.export();
    if capacity != wanted.capacity {
        return Err(Failure::Stale(format!("{capacity} in place of {}", wanted.capacity)));
    }
    if access != wanted.access {
        let found = if access == Access::ReadOnly { "for reading only" } else { "for writing" };
        return Err(Failure::Stale(format!("it is open {found}")));
    }
    Ok(())
}

impl Inner {
    fn locked(&self) -> Result<(Locked, Document), Failure> {
        let locked = Locked::new(&self.config.file)?;
        let document = locked.read()?;
        Ok((locked, document))
    }

    /// Brings an export into the configuration.
    fn admit(&self, spec: &ExportSpec, device: &Path) -> Result<Step, Failure> {
        let (locked, document) = self.locked()?;
        let served: Vec<_> = document.records().into_iter().map(Record::export).collect();
        let admission = spec.admit(&served)?;
        let old = document.record(&spec.name);
        if admission == Admission::Replace
            && let Some(old) = old
        {
            self.links.close(&spec.name)?;
            return Ok(Step::Cut(old.clone()));
        }
        let key = DeviceKey::of(device).map_err(Failure::on(device))?;
        if let Some(section) = document.foreign().iter().find(|section| section.serves(key)) {
            return Err(Failure::Shared { section: section.name.clone() });
        }
        let new = admission == Admission::Serve;
        if new {
            let record = Record::new(spec, device);
            let with = document.with(&record, &self.links.path(&spec.name))?;
            locked.replace(&document, &with, self.config.backups)?;
        }
        Ok(Step::Open { new })
    }

    /// Opens an export that stands in the configuration. In this order: killed in between, there is
    /// a section that nobody can open, and no link that nobody knows of.
    fn open(&self, record: &Record) -> Result<(), Failure> {
        let (_locked, document) = self.locked()?;
        if document.record(&record.name) != Some(record) {
            return Err(Failure::Overtaken);
        }
        self.links.open(&record.name, &record.path)
    }

    fn reload(&self) -> Result<(), Failure> {
        reload(&self.config.pid_file, &self.file()?, self.config.unsound)
    }

    /// The configuration without symbolic links, as processes are compared by it.
    fn file(&self) -> Result<PathBuf, Failure> {
        self.config.file.canonicalize().map_err(Failure::on(&self.config.file))
    }

    /// Closes an export to new connections.
    fn close(&self, name: &ExportName) -> Result<Option<Record>, Failure> {
        let (_locked, document) = self.locked()?;
        let record = document.record(name).cloned();
        if record.is_some() {
            self.links.close(name)?;
        }
        Ok(record)
    }

    /// Takes exactly this export out, not one that took its name since.
    fn forget(&self, record: &Record) -> Result<(), Failure> {
        let (locked, document) = self.locked()?;
        match document.record(&record.name) {
            None => Ok(()),
            Some(found) if found != record => Err(Failure::Overtaken),
            Some(_) => {
                self.links.close(&record.name)?;
                locked.replace(&document, &document.without(&record.name)?, self.config.backups)
            }
        }
    }

    fn holders(&self, device: &Path) -> Result<Vec<process::Process>, Failure> {
        match DeviceKey::of(device) {
            Ok(key) => holders(key, &self.file()?),
            // A device that is gone is open nowhere that could be found by it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Failure::on(device)(error)),
        }
    }
}

#[async_trait]
impl ExportServer for NbdServer {
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        self.try_publish(&spec).await.map_err(|failure| failure.at("publish export", &spec.name))
    }

    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        self.try_withdraw(name, deadline).await.map_err(|failure| failure.at("withdraw export", name))
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        let read = self.run(|inner| {
            let (_locked, document) = inner.locked()?;
            Ok(document.records().into_iter().map(|record| Ok(record.export())).collect::<Vec<_>>())
        });
        let file = self.0.config.file.display();
        let exports = async move { read.await.map_err(|failure| failure.at("list exports", file)) };
        stream::once(exports).map_ok(stream::iter).try_flatten().boxed()
    }

    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        let wanted = name.clone();
        let counted = self.run(move |inner| {
            let (_locked, document) = inner.locked()?;
            document.record(&wanted).map(|record| inner.holders(&record.path)).transpose()
        });
        let holders = counted.await.map_err(|failure| failure.at("count", name))?;
        Ok(holders.map(|holders| {
            let connections = u64::try_from(holders.len()).unwrap_or(u64::MAX);
            ExportStatistics { connections, ..ExportStatistics::default() }
        }))
    }
}
