//! Asks all sides what there is of a job, and changes nothing.

use std::collections::BTreeSet;
use std::fmt;

use futures_util::TryStreamExt as _;

use super::{CleanupRequest, CleanupService};
use crate::engine::volumes::VolumeServices;
use crate::record::{
    Cleanup, CleanupAction as A, CleanupFilter, CleanupItem, CleanupItemKind as K, CleanupPlan, DiskRecord,
    ExportRecord, FailoverRecord, KeepVolumes, OperationFilter, RecoveryPoint, ReplicationJob, VmContext,
};
use crate::state::{
    ContextEvent, ContextStatus, FailoverKind, FailoverStatus, JobKind, JobStatus, PointStatus,
};
use crate::traits::Volume;
use crate::{ContextId, DiskRef, Error, ErrorKind, ExportName, JobId, Result, SnapshotId, VolumeId};

/// Why something stays.
#[derive(Clone, Debug)]
pub(super) struct Stays {
    pub(super) why: String,
    /// Whether that passes: then another plan may remove it.
    pub(super) for_now: bool,
}

impl Stays {
    pub(super) fn for_now(why: impl Into<String>) -> Self {
        Self { why: why.into(), for_now: true }
    }

    pub(super) fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), for_now: false }
    }
}

/// A plan that is being made.
#[derive(Debug)]
pub(super) struct Look<'a> {
    pub(super) of: &'a CleanupService,
    pub(super) request: &'a CleanupRequest,
    pub(super) job: Option<ReplicationJob>,
    pub(super) plan: CleanupPlan,
    /// What could not be asked: then the plan tells less than there is.
    pub(super) unasked: Option<Error>,
    /// Why nothing is changed at the volumes of the VM.
    pub(super) held: Option<Stays>,
    /// What of the job stays for now: its record is needed for as long.
    pub(super) waits: Option<String>,
    /// What the backend listed of this deployment; `None` when it was not needed or could not.
    pub(super) listed: Option<Vec<Volume>>,
    /// Snapshots that go with recovery points.
    pub(super) dropped: BTreeSet<SnapshotId>,
    pub(super) detaches: Vec<A>,
    pub(super) deletes: Vec<A>,
    pub(super) forgets: Vec<A>,
}

impl<'a> Look<'a> {
    pub(super) async fn make(of: &'a CleanupService, request: &'a CleanupRequest) -> Result<Self> {
        let job = of.volumes().services().jobs.get(&request.job).await?;
        let context = match &job {
            Some(job) => job.context.clone(),
            None => named(of, request).await?,
        };
        let found = of.0.services.inventory.context(&context).await?;
        let vm = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "find the VM of job", &request.job))?;
        let plan = CleanupPlan {
            instance: of.volumes().services().volumes.instance().await?,
            job: request.job.clone(),
            job_status: job.as_ref().map(|job| job.status),
            context,
            vm: vm.path.clone(),
            failover_job: request.failover_job.clone(),
            volumes: request.volumes,
            first: Vec::new(),
            items: Vec::new(),
            steps: Vec::new(),
        };
        let mut look = Self {
            of,
            request,
            job,
            plan,
            unasked: None,
            held: None,
            waits: None,
            listed: None,
            dropped: BTreeSet::new(),
            detaches: Vec::new(),
            deletes: Vec::new(),
            forgets: Vec::new(),
        };
        look.state().await?;
        let failovers = of.records().failovers(&vm.id).await?;
        look.hold(&vm, &failovers).await?;
        look.exports(&vm).await?;
        look.points().await?;
        look.snapshots().await?;
        look.disks().await?;
        for steps in [&mut look.detaches, &mut look.deletes, &mut look.forgets] {
            look.plan.steps.append(steps);
        }
        look.failover(&failovers)?;
        look.record();
        look.plan.steps.push(A::Check);
        Ok(look)
    }

    pub(super) fn services(&self) -> &'a VolumeServices {
        self.of.volumes().services()
    }

    pub(super) fn item(&mut self, kind: K, id: &dyn fmt::Display, detail: String, protected: Option<String>) {
        self.plan.items.push(CleanupItem { kind, id: id.to_string(), detail, protected });
    }

    pub(super) fn first(&mut self, what: String) {
        self.plan.first.push(what);
    }

    /// The record of the job stays with what stays for now: without it nobody could plan for that again.
    pub(super) fn wait_for(&mut self, what: &dyn fmt::Display, why: &str) {
        self.waits.get_or_insert_with(|| format!("{what} stays for now: {why}"));
    }

    /// Could not ask is not gone (L21).
    pub(super) fn unasked(&mut self, what: &str, error: Error) {
        self.first(format!("{what}: {}; see that it answers, then plan again", error.chain()));
        self.unasked = Some(error);
    }

    /// Whether a job in this state can be cleaned up.
    async fn state(&mut self) -> Result<()> {
        let Some(job) = self.job.clone() else { return Ok(()) };
        if job.kind == JobKind::Operate {
            let reason = "it changed one volume for an operator, and leaves nothing; clean up the job that the volume was made for";
            return Err(Error::new(ErrorKind::Invalid, "plan the cleanup of job", &job.id).because(reason));
        }
        if !job.status.is_terminal() {
            let id = &job.id;
            self.first(format!(
                "job {id} is {}: cancel it, wait until it has ended, then plan again",
                job.status
            ));
        }
        if job.status == JobStatus::Completed && self.request.volumes == KeepVolumes::Condemn {
            let reason = "it is completed: its volumes are no leftovers; delete them one by one as volumes";
            return Err(Error::new(ErrorKind::Invalid, "plan the cleanup of job", &job.id).because(reason));
        }
        Ok(())
    }

    /// What keeps everybody from the volumes of the VM (L07).
    async fn hold(&mut self, vm: &VmContext, failovers: &[FailoverRecord]) -> Result<()> {
        let live = self.services().jobs.live(&vm.id).await?.filter(|live| live.id != self.request.job);
        let named = self.request.failover_job.as_slice();
        self.held = if vm.status.next(ContextEvent::Replicate).is_err() {
            let why = format!("its VM is {}", vm.status);
            Some(Stays { why, for_now: vm.status == ContextStatus::FailedOverTest })
        } else if let Some(failover) = FailoverRecord::protecting(failovers, named) {
            Some(Stays { why: failover.protection(), for_now: !is_for_good(failover) })
        } else {
            live.as_ref().map(|live| Stays::for_now(format!("job {} of its VM is live", live.id)))
        };
        // It ends soon, and what it changes is not known before.
        if let Some(live) = live.filter(|live| live.kind == JobKind::Operate) {
            self.first(format!(
                "job {} changes a volume of the VM: wait until it has ended, then plan again",
                live.id
            ));
        }
        Ok(())
    }

    /// Exports that a job which has ended left, by its records and on this machine (L24).
    async fn exports(&mut self, vm: &VmContext) -> Result<()> {
        let services = &self.of.0.services;
        let recorded: Vec<ExportRecord> = services.exports.exports().try_collect().await?;
        for export in &recorded {
            if self.is_left(export).await? {
                self.export(export).await?;
            }
        }
        let served: Vec<_> = services.server.list().map_ok(|export| export.name).try_collect().await?;
        for key in self.job.iter().flat_map(|job| job.disks.clone()).collect::<Vec<_>>() {
            let Ok(of_disk) = ExportName::for_disk(&vm.identity.instance_uuid, &key) else { continue };
            let is_recorded = |name: &ExportName| recorded.iter().any(|export| export.name == *name);
            for name in served.iter().filter(|name| serves(name, &of_disk) && !is_recorded(name)) {
                let why = self.held.clone().map(|held| held.why);
                self.item(K::ServedExport, name, "served, and no record knows it".to_owned(), why.clone());
                if why.is_none() {
                    let disk = DiskRef { context: vm.id.clone(), key: key.clone() };
                    self.plan.steps.push(A::Withdraw { export: name.clone(), disk });
                }
            }
        }
        Ok(())
    }

    /// Whether an export is the job's, or of one of its disks by a job that has ended.
    async fn is_left(&self, export: &ExportRecord) -> Result<bool> {
        if export.job == self.request.job {
            return Ok(true);
        }
        let is_disk = self
            .job
            .as_ref()
            .is_some_and(|job| export.disk.context == job.context && job.disks.contains(&export.disk.key));
        if !is_disk {
            return Ok(false);
        }
        self.is_live(&export.job).await.map(|is_live| !is_live)
    }

    async fn is_live(&self, job: &JobId) -> Result<bool> {
        Ok(self.services().jobs.get(job).await?.is_some_and(|job| !job.status.is_terminal()))
    }

    async fn export(&mut self, export: &ExportRecord) -> Result<()> {
        let volume = self.services().volumes.volume(&export.volume).await?;
        let machine = volume.and_then(|volume| volume.attached_to);
        let elsewhere = machine
            .filter(|machine| machine != self.of.volumes().worker())
            .map(|machine| format!("it is on the machine of worker {machine}: plan the cleanup there"));
        let why = self.held.clone().map(|held| held.why).or(elsewhere);
        let detail = format!("{} for job {}, volume {}", export.status, export.job, export.volume);
        self.item(K::Export, &export.name, detail, why.clone());
        match why {
            // The record of its job cannot go before.
            Some(why) if export.job == self.request.job => {
                self.first(format!("export {} cannot be withdrawn: {why}; then plan again", export.name));
            }
            Some(_) => {}
            None => {
                let (export, disk) = (export.name.clone(), export.disk.clone());
                self.plan.steps.push(A::Withdraw { export, disk });
            }
        }
        Ok(())
    }

    async fn points(&mut self) -> Result<()> {
        let services = &self.of.0.services;
        let points: Vec<RecoveryPoint> = services.points.points(&self.plan.context).try_collect().await?;
        for point in points {
            let is_ready = point.status == PointStatus::Ready;
            // What an earlier job left unfinished is nobody's any more; the next run would delete it.
            if point.job != self.request.job && (is_ready || self.is_live(&point.job).await?) {
                continue;
            }
            let detail = format!("of job {}, epoch {}, {}", point.job, point.epoch, point.status);
            let why = match &self.held {
                _ if is_ready => Some("it is a committed epoch: delete it as a recovery point".to_owned()),
                held => held.as_ref().map(|held| held.why.clone()),
            };
            self.item(K::RecoveryPoint, &point.id, detail, why.clone());
            match why {
                None => {
                    self.dropped.extend(point.volumes.iter().map(|volume| volume.snapshot.id.clone()));
                    self.plan.steps.push(A::DropPoint { point: point.id });
                }
                // It names its job.
                Some(why) if point.job == self.request.job => {
                    self.wait_for(&format_args!("recovery point {}", point.id), &why);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Snapshots that the job made and that no recovery point knows, on whatever volume of its VM they are.
    async fn snapshots(&mut self) -> Result<()> {
        let late = match self.of.late_snapshots(&self.plan).await {
            Ok(late) => late,
            Err(error) => {
                self.unasked("the snapshots of the VM could not be listed", error);
                return Ok(());
            }
        };
        for snapshot in late.snapshots {
            let why = self.held.clone().map(|held| held.why).or_else(|| late.newer.clone());
            let detail = format!("of volume {}, and no recovery point knows it", snapshot.volume);
            self.item(K::Snapshot, &snapshot.id, detail, why.clone());
            match why {
                None => {
                    self.dropped.insert(snapshot.id.clone());
                    self.plan.steps.push(A::DropSnapshot { snapshot });
                }
                Some(why) => self.wait_for(&format_args!("snapshot {}", snapshot.id), &why),
            }
        }
        Ok(())
    }

    /// Volumes of the job's disks: recorded, recorded before, and in the backend only.
    async fn disks(&mut self) -> Result<()> {
        let Some(job) = self.job.clone() else { return Ok(()) };
        let disks: Vec<DiskRecord> = self.of.0.services.inventory.disks(&job.context).await?;
        let disks: Vec<_> = disks.into_iter().filter(|disk| job.disks.contains(&disk.disk.key)).collect();
        let listing = self.services().backend.list(&self.plan.instance).try_collect::<Vec<Volume>>();
        match self.of.volumes().answered(&self.plan.instance, listing).await {
            Ok(mut listed) => {
                listed.sort_by(|one, other| one.id.cmp(&other.id));
                self.listed = Some(listed);
            }
            Err(error) => self.unasked("the backend could not list its volumes", error),
        }
        for disk in &disks {
            self.volume(disk).await?;
        }
        self.orphans(&disks).await?;
        self.former(&disks).await
    }

    /// No record proves that nobody needs these.
    async fn orphans(&mut self, disks: &[DiskRecord]) -> Result<()> {
        for volume in self.listed.clone().unwrap_or_default() {
            let Some(tag) = volume.tag.filter(|tag| disks.iter().any(|disk| disk.disk == tag.disk)) else {
                continue;
            };
            if self.services().volumes.volume(&volume.id).await?.is_some() {
                continue;
            }
            let why = "no record proves that nobody needs it: see what `oma volumes reconcile` tells of it";
            let detail = format!("{:?} bears {tag}, and no record knows it", volume.name);
            self.item(K::Orphan, &volume.id, detail, Some(why.to_owned()));
        }
        Ok(())
    }

    /// Volumes that the disks had before.
    async fn former(&mut self, disks: &[DiskRecord]) -> Result<()> {
        let filter =
            OperationFilter { context: Some(self.plan.context.clone()), ..OperationFilter::default() };
        let operations: Vec<_> = self.services().volumes.operations(filter).try_collect().await?;
        let known: BTreeSet<VolumeId> = operations
            .into_iter()
            .flat_map(|operation| [operation.made, operation.spec.volume])
            .flatten()
            .collect();
        for id in known {
            let Some(record) = self.services().volumes.volume(&id).await? else { continue };
            let disk = disks.iter().find(|disk| disk.disk == record.disk);
            if disk.is_some_and(|disk| disk.volume.as_ref() != Some(&id)) {
                let why = "another volume took its place: see what `oma volumes reconcile` tells of it";
                let detail = format!("{:?} of {}, {}", record.name, record.disk, record.status);
                self.item(K::FormerVolume, &id, detail, Some(why.to_owned()));
            }
        }
        Ok(())
    }

    fn failover(&mut self, failovers: &[FailoverRecord]) -> Result<()> {
        for failover in failovers {
            let is_wanted = self.request.failover_job.as_ref() == Some(&failover.id);
            if !is_wanted && failover.replication_job.as_ref() != Some(&self.request.job) {
                continue;
            }
            let detail = format!("{}, {}", failover.kind, failover.status);
            let is_live = is_for_good(failover);
            let why = match failover.needed() {
                None if !is_wanted => Some("it was not named: it only loses its link to the job".to_owned()),
                why => why,
            };
            self.item(K::Failover, &failover.id, detail, why.clone());
            match why {
                None => self.plan.steps.push(A::DeleteFailover { failover_job: failover.id.clone() }),
                // For good, and so for others to end: its volumes are held, and the job's record is not needed for it.
                Some(_) if is_live => {}
                Some(why) if is_wanted || !failover.status.is_over() => {
                    let id = &failover.id;
                    self.first(format!("failover job {id} cannot be cleaned up: {why}; then plan again"));
                }
                Some(_) => {}
            }
        }
        let Some(wanted) = &self.request.failover_job else { return Ok(()) };
        match failovers.iter().find(|failover| failover.id == *wanted) {
            None => Err(Error::new(ErrorKind::NotFound, "find the failover job of this VM", wanted)),
            Some(found) if found.replication_job.as_ref().is_some_and(|job| *job != self.request.job) => {
                let reason = format!("it is not of job {}", self.request.job);
                Err(Error::new(ErrorKind::Invalid, "plan the cleanup of failover job", wanted)
                    .because(reason))
            }
            Some(_) => Ok(()),
        }
    }

    /// The record of the job itself, last.
    fn record(&mut self) {
        let Some(job) = self.job.clone() else { return };
        let why = match job.status {
            JobStatus::Failed | JobStatus::Cancelled => self.waits.clone(),
            JobStatus::Completed => Some("it is completed: only what it left behind is removed".to_owned()),
            status => Some(format!("it is {status}")),
        };
        let detail = match &job.error {
            Some(error) => format!("{}: {error}", job.status),
            None => job.status.to_string(),
        };
        self.item(K::Job, &job.id, detail, why.clone());
        if why.is_none() {
            self.plan.steps.push(A::DeleteJob { job: job.id });
        }
    }
}

fn is_for_good(failover: &FailoverRecord) -> bool {
    failover.kind == FailoverKind::Live && failover.status == FailoverStatus::Completed
}

/// Whether an export is of this disk: by its name, or by that and a number that only one agent was told of.
fn serves(name: &ExportName, of_disk: &ExportName) -> bool {
    let told = name.as_str().strip_prefix(of_disk.as_str());
    let is_number = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    told.is_some_and(|told| told.is_empty() || told.strip_prefix('-').is_some_and(is_number))
}

/// The VM of a job that is not recorded, by what still names it.
async fn named(of: &CleanupService, request: &CleanupRequest) -> Result<ContextId> {
    let filter = CleanupFilter { job: Some(request.job.clone()), ..CleanupFilter::default() };
    let before: Option<Cleanup> = of.records().cleanups(filter).try_next().await?;
    if let Some(before) = before {
        return Ok(before.spec.plan.context);
    }
    let exports: Vec<ExportRecord> = of.0.services.exports.exports().try_collect().await?;
    if let Some(export) = exports.into_iter().find(|export| export.job == request.job) {
        return Ok(export.disk.context);
    }
    let filter = OperationFilter { left_only: true, ..OperationFilter::default() };
    let left: Vec<_> = of.volumes().services().volumes.operations(filter).try_collect().await?;
    let left = left.into_iter().find(|operation| operation.spec.job == request.job);
    left.map(|operation| operation.spec.disk.context).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "clean up job", &request.job)
            .because("there is no such job, and nothing that names it")
    })
}
