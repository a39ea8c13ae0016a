//! The disks of a running QEMU machine: frozen through its monitor, read through its NBD server, tracked by its dirty bitmaps.
//!
//! ```text
//!  QemuSource ── Session ── Qmp ─────────────▶ monitor    nodes, bitmaps, exports
//!      │            └────── Frozen ──────────▶ guest agent
//!      └── Client ───────────────────────────▶ NBD server  the disk as it was; which blocks changed
//! ```
//! A point in time is a copy-before-write filter above each disk: what the guest is about to overwrite goes to a sparse file first,
//! and the export shows the disk as it was. All filters take effect at one moment. When a copy fails or takes too long the point
//! in time breaks and reading it fails; a write of the guest never does.

mod agent;
mod bitmaps;
mod changes;
mod config;
mod error;
mod freeze;
mod fuzz;
mod lines;
mod lock;
mod machine;
mod names;
mod qmp;
mod release;
mod session;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use oma_core::record::{SourceDisk, SourceIdentity, SourceVm};
use oma_core::traits::{Access, BlockDevice, Changes, DiskSource, PointInTime};
use oma_core::{ByteSize, ChangeId, DiskKey, JobId, PointId, Result, VmPath};

use self::error::Failure;
use self::machine::Machine;
use self::session::Session;
use self::view::View;
use crate::client::{Client, ClientConfig};

pub use config::{OtherPoints, QemuConfig};

/// One running machine as the source of a replication.
///
/// Change ids are a UUID of the disk's chain of bitmaps and a sequence. Bitmaps live in qcow2 images across a clean end of the
/// machine; those of other formats, and all after QEMU was killed, are lost: changes are unknown then, and all is compared (L09).
/// Reverting to an internal snapshot (`loadvm`) and shrinking a disk that grows again before the next point in time are not
/// seen by QEMU's bitmaps.
///
/// It holds nothing open between calls. What it changes in a machine it changes under a lock of this host: a second process
/// waits, then gets `Busy`. What a killed run has left is taken down by the next freeze.
#[derive(Clone, Debug)]
pub struct QemuSource {
    config: QemuConfig,
}

impl QemuSource {
    /// A source that reads the machine of a monitor. Nothing is connected yet.
    #[must_use]
    pub fn new(config: QemuConfig) -> Self {
        let client = ClientConfig { access: Access::ReadOnly, ..config.client.clone() };
        Self { config: QemuConfig { client, ..config } }
    }

    /// What an operator should know: disks that are not replicated, and why; disks whose changes are forgotten when the machine
    /// ends.
    ///
    /// # Errors
    /// `Unavailable` or `Busy` when the machine could not be asked.
    pub async fn notes(&self) -> Result<Vec<String>> {
        let machine = self.look().await.map_err(|failure| self.failed("look at", failure))?;
        let skipped = machine.skipped.iter().map(|skipped| format!("not replicated: {skipped}"));
        let forgetful = machine.disks.iter().filter(|(_, disk)| !disk.stores_bitmaps).map(|(key, disk)| {
            format!(
                "{key}: {} stores no dirty bitmaps; after the machine's end all of it is compared",
                disk.driver
            )
        });
        Ok(skipped.chain(forgetful).collect())
    }

    async fn look(&self) -> Result<Machine, Failure> {
        let mut session = Session::open(&self.config).await?;
        Machine::look(&mut session.qmp).await
    }

    fn check(&self, vm: &VmPath) -> Result<(), Failure> {
        if *vm == self.config.vm { Ok(()) } else { Err(Failure::NotFound) }
    }

    fn failed(&self, operation: &'static str, failure: Failure) -> oma_core::Error {
        failure.at(operation, &self.config.vm)
    }

    async fn discovered(&self) -> Result<SourceVm, Failure> {
        let mut session = Session::open(&self.config).await?;
        let machine = Machine::look(&mut session.qmp).await?;
        machine.skipped.iter().for_each(|skipped| tracing::info!(skipped, "not replicated"));
        let (instance_uuid, endpoint) = session.identity();
        let describe = |(key, disk): (&DiskKey, &machine::Disk)| SourceDisk {
            key: key.clone(),
            label: key.to_string(),
            location: disk.location.clone(),
            capacity: ByteSize::new(disk.capacity),
            unit_number: None,
        };
        Ok(SourceVm {
            identity: SourceIdentity { instance_uuid, endpoint },
            name: self.config.vm.name().to_owned(),
            path: self.config.vm.clone(),
            disks: machine.disks.iter().map(describe).collect(),
        })
    }

    async fn opened(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>, Failure> {
        let job = names::job_of(point).ok_or(Failure::NotFound)?;
        let mut session = Session::open(&self.config).await?;
        let machine = Machine::look(&mut session.qmp).await?;
        changes::find(&machine, &job, key)?;
        let uri = session.uri(&names::export(&job, key))?;
        drop(session);
        Ok(Arc::new(View(Client::connect(&uri, self.config.client.clone()).await?)))
    }

    async fn freeze_locked(&self, job: &JobId) -> Result<PointInTime, Failure> {
        freeze::freeze(&mut Session::open_locked(&self.config).await?, job).await
    }

    async fn changed_locked(
        &self,
        point: &PointId,
        key: &DiskKey,
        since: &ChangeId,
    ) -> Result<Changes, Failure> {
        let job = names::job_of(point).ok_or(Failure::NotFound)?;
        changes::changed(&mut Session::open_locked(&self.config).await?, &job, key, since).await
    }

    async fn committed_locked(
        &self,
        point: &PointId,
        key: &DiskKey,
        change_id: &ChangeId,
    ) -> Result<(), Failure> {
        let job = names::job_of(point).ok_or(Failure::NotFound)?;
        changes::committed(&mut Session::open_locked(&self.config).await?, &job, key, change_id).await
    }

    async fn release_locked(&self, point: &PointId) -> Result<(), Failure> {
        let Some(job) = names::job_of(point) else { return Ok(()) };
        release::release(&mut Session::open_locked(&self.config).await?, &job).await
    }
}

/// Lets a monitor say these bytes, whatever is asked, to a session that looks at its machine: the entry of the fuzz target.
///
/// # Panics
/// When what is made of the answers breaks a promise.
#[doc(hidden)]
pub async fn fuzz_answers(bytes: &[u8]) {
    // Most of what is said is no answer.
    let _ = fuzz::answers(bytes).await;
}

#[async_trait]
impl DiskSource for QemuSource {
    /// Its writable disks that have a medium, by the ids of their devices. A writable disk without a name that lasts is refused.
    async fn discover(&self, vm: &VmPath) -> Result<SourceVm> {
        self.check(vm).map_err(|failure| failure.at("discover", vm))?;
        self.discovered().await.map_err(|failure| self.failed("discover", failure))
    }

    async fn freeze(&self, vm: &VmPath, job: &JobId) -> Result<PointInTime> {
        self.check(vm).map_err(|failure| failure.at("freeze", vm))?;
        self.freeze_locked(job).await.map_err(|failure| self.failed("freeze", failure))
    }

    async fn changed(&self, point: &PointId, key: &DiskKey, since: &ChangeId) -> Result<Changes> {
        let changed = self.changed_locked(point, key, since).await;
        changed.map_err(|failure| failure.at("ask for changes", format!("{point}/{key}")))
    }

    async fn committed(&self, point: &PointId, key: &DiskKey, change_id: &ChangeId) -> Result<()> {
        let told = self.committed_locked(point, key, change_id).await;
        told.map_err(|failure| failure.at("tell of a committed epoch", format!("{point}/{key}")))
    }

    async fn open(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>> {
        self.opened(point, key).await.map_err(|failure| failure.at("open disk", format!("{point}/{key}")))
    }

    /// What is frozen stays so, or its reads fail.
    async fn confirm(&self, _point: &PointInTime) -> Result<()> {
        Ok(())
    }

    async fn release(&self, point: &PointId) -> Result<()> {
        self.release_locked(point).await.map_err(|failure| failure.at("release point in time", point))
    }

    async fn release_job(&self, job: &JobId) -> Result<()> {
        self.release(&names::point(job)).await
    }
}
