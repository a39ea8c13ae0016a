//! Asks both sides, changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;

use super::Reconciler;
use super::class::FindingClass as C;
use super::judge::{Judged, Viewer};
use super::report::{Finding, LocalDevice, Reconciliation, Repair, Seen, SeenRecord};
use crate::record::{Operation, OperationFilter, RecoveryPoint, ReplicationJob, VolumeFilter, VolumeRecord};
use crate::state::{ContextEvent, JobKind, OperationKind, OperationStatus, VolumeStatus};
use crate::traits::{Snapshot, Snapshots, Volume};
use crate::{ContextId, DiskRef, InstanceId, Result, SnapshotId, VolumeId};

/// A comparison that is being made.
#[derive(Debug)]
pub(super) struct Look<'a> {
    of: &'a Reconciler,
    report: Reconciliation,
    devices: Option<&'a [LocalDevice]>,
    /// What the backend listed, before any record was read: what was made since is recorded and not listed.
    listed: Option<BTreeMap<VolumeId, Volume>>,
    /// Every volume that may have snapshots, with the disk that it is or was for.
    known: BTreeMap<VolumeId, DiskRef>,
    recorded: usize,
    /// Why nothing is repaired of this VM.
    held: BTreeMap<ContextId, Option<String>>,
}

impl<'a> Look<'a> {
    pub(super) async fn make(
        of: &'a Reconciler,
        devices: Option<&'a [LocalDevice]>,
    ) -> Result<Reconciliation> {
        let instance = of.services().volumes.instance().await?;
        let report = Reconciliation {
            instance,
            made_at: of.service.now(),
            in_order: 0,
            moving: 0,
            foreign: 0,
            findings: Vec::new(),
        };
        let (known, held) = (BTreeMap::new(), BTreeMap::new());
        let mut look = Self { of, report, devices, listed: None, known, recorded: 0, held };
        look.list().await;
        look.operations().await?;
        look.records().await?;
        look.orphans().await?;
        look.snapshots().await?;
        look.count_devices();
        look.be_strict();
        Ok(look.report)
    }

    fn instance(&self) -> &InstanceId {
        &self.report.instance
    }

    async fn list(&mut self) {
        let instance = self.report.instance.clone();
        let backend = &self.of.services().backend;
        let listing = backend.list(&instance).try_collect::<Vec<Volume>>();
        match self.of.service.answered(&instance, listing).await {
            Ok(listed) => {
                let is_ours =
                    |volume: &Volume| volume.tag.as_ref().is_some_and(|tag| tag.instance == instance);
                let (ours, foreign): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_ours);
                self.report.foreign += count(foreign.len());
                self.listed = Some(ours.into_iter().map(|volume| (volume.id.clone(), volume)).collect());
            }
            Err(error) => {
                let detail = format!("the volumes of this deployment: {}", error.chain());
                self.report.findings.push(Finding::new(C::CouldNotAsk, detail));
            }
        }
    }

    /// What has not ended. What a live job of another kind began, that one finishes.
    async fn operations(&mut self) -> Result<()> {
        for status in [OperationStatus::Executing, OperationStatus::Pending] {
            let filter = OperationFilter { status: Some(status), ..OperationFilter::default() };
            let left: Vec<Operation> = self.of.services().volumes.operations(filter).try_collect().await?;
            for operation in &left {
                let found = match status {
                    OperationStatus::Pending => self.due(operation).await?,
                    _ => self.undriven(operation).await?,
                };
                self.report.findings.extend(found);
            }
        }
        Ok(())
    }

    async fn undriven(&mut self, left: &Operation) -> Result<Option<Finding>> {
        if self.of.service.driven().has(&left.spec.id) {
            return Ok(None);
        }
        let live = self.of.services().jobs.live(&left.spec.disk.context).await?;
        if live.is_some_and(|job| !(self.is_left(&job) && job.disks.contains(&left.spec.disk.key))) {
            return Ok(None);
        }
        let forbidden = self.forbidden(&left.spec.disk.context).await?;
        let detail = format!("{} of {} has not ended, and nobody drives it", left.spec.kind, left.spec.disk);
        Ok(Some(about_operation(C::Undriven, detail, left, Repair::TakeUp, forbidden)))
    }

    async fn due(&mut self, pending: &Operation) -> Result<Option<Finding>> {
        let now = self.report.made_at;
        let Some(due_at) = pending.due_at.filter(|due_at| *due_at <= now) else { return Ok(None) };
        let detail = format!("its deletion was due at {due_at}");
        let why = self.vm_held(&pending.spec.disk.context).await?;
        Ok(Some(about_operation(C::Due, detail, pending, Repair::Delete, why)))
    }

    /// Whether a job that operates was left: nobody of this process drives it, and its lease has ended, or is of this worker and so
    /// of a process that died (L17).
    fn is_left(&self, job: &ReplicationJob) -> bool {
        let mine = job.owner.as_ref() == Some(self.of.service.worker());
        let ended = job.due_at.is_some_and(|due_at| due_at <= self.report.made_at);
        job.kind == JobKind::Operate && (mine || ended) && !self.of.service.driven().has_job(&job.id)
    }

    async fn records(&mut self) -> Result<()> {
        let records: Vec<VolumeRecord> =
            self.of.services().volumes.volumes(VolumeFilter::default()).try_collect().await?;
        self.recorded = records.len();
        for record in &records {
            self.known.insert(record.id.clone(), record.disk.clone());
            self.record(record).await?;
        }
        Ok(())
    }

    async fn record(&mut self, record: &VolumeRecord) -> Result<()> {
        let services = self.of.services();
        let answer = self.of.service.answered(&record.id, services.backend.get(&record.id)).await;
        if services.volumes.volume(&record.id).await?.as_ref() != Some(record) {
            self.report.moving += 1;
            return Ok(());
        }
        let linked =
            services.volumes.volume_of(&record.disk).await?.is_some_and(|volume| volume.id == record.id);
        let mut seen = Seen { record: Some(SeenRecord::of(record, linked)), volume: None };
        let judged = match answer {
            Err(error) => vec![(C::CouldNotAsk, error.chain(), None)],
            Ok(None) => self.gone(record),
            Ok(Some(volume)) => {
                let volume = seen.volume.insert(volume.into()).clone();
                let (instance, worker) = (self.instance(), self.of.service.worker());
                let viewer = Viewer { instance, worker, devices: self.devices };
                let told = seen.record.as_ref().map(|told| viewer.judge(&record.id, told, &volume));
                told.unwrap_or_default()
            }
        };
        if judged.is_empty() {
            self.report.in_order += 1;
            return Ok(());
        }
        self.found(record, &seen, judged).await
    }

    /// The backend was asked twice, in two ways; whoever doubts does not forget.
    fn gone(&self, record: &VolumeRecord) -> Vec<Judged> {
        let Some(listed) = &self.listed else {
            let detail = "the backend finds none, and could not list what there is".to_owned();
            return vec![(C::CouldNotAsk, detail, None)];
        };
        if listed.contains_key(&record.id) {
            return vec![(C::CouldNotAsk, "the backend listed it, then found none".to_owned(), None)];
        }
        let stands =
            matches!(record.status, VolumeStatus::Created | VolumeStatus::Attached | VolumeStatus::Detached);
        let detail = format!("the backend is sure that it has none; it was for {}", record.disk);
        vec![(C::Gone, detail, stands.then_some(Repair::Forget))]
    }

    async fn found(&mut self, record: &VolumeRecord, seen: &Seen, judged: Vec<Judged>) -> Result<()> {
        let all = judged.iter().all(|(_, _, repair)| repair.is_some());
        let why = match self.held(&record.disk).await? {
            None if !all => Some("something else about the volume is for an operator to decide".to_owned()),
            why => why,
        };
        for (class, detail, repair) in judged {
            let (volume, disk) = (Some(record.id.clone()), Some(record.disk.clone()));
            let mut finding =
                Finding { volume, disk, seen: seen.clone(), repair, ..Finding::new(class, detail) };
            if let Some(why) = &why {
                finding.withhold(why);
            }
            self.report.findings.push(finding);
        }
        Ok(())
    }

    /// What bears our mark and is in no record. Listed before the records were read: one that was made since is recorded, or its
    /// operation is.
    async fn orphans(&mut self) -> Result<()> {
        for (id, volume) in self.listed.clone().unwrap_or_default() {
            let services = self.of.services();
            let Some(tag) = volume.tag.clone() else { continue };
            if services.volumes.volume(&id).await?.is_some() {
                continue;
            }
            self.known.insert(id.clone(), tag.disk.clone());
            let unfinished = services.volumes.unfinished(&tag.disk).await?;
            if unfinished.is_some_and(|left| left.spec.kind == OperationKind::Create) {
                continue;
            }
            let finding = match self.of.service.answered(&id, services.backend.get(&id)).await {
                Ok(None) => continue,
                Ok(Some(now)) => {
                    let detail = self.origin(&id, &tag.to_string()).await?;
                    let seen = Seen { record: None, volume: Some(now.into()) };
                    Finding { seen, ..Finding::new(C::Orphan, detail) }
                }
                Err(error) => Finding::new(C::CouldNotAsk, error.chain()),
            };
            self.report.findings.push(Finding { volume: Some(id), disk: Some(tag.disk), ..finding });
        }
        Ok(())
    }

    /// What the operations tell of a volume that no record has.
    async fn origin(&self, id: &VolumeId, bears: &str) -> Result<String> {
        let filter = OperationFilter { volume: Some(id.clone()), ..OperationFilter::default() };
        let mut operations = self.of.services().volumes.operations(filter);
        Ok(match operations.try_next().await? {
            Some(last) => {
                format!(
                    "it bears {bears}; the last operation on it, {}, was {}",
                    last.spec.id, last.spec.kind
                )
            }
            None => format!("it bears {bears}; no operation tells of it"),
        })
    }

    async fn snapshots(&mut self) -> Result<()> {
        if self.of.services().backend.capabilities().snapshots == Snapshots::None {
            return Ok(());
        }
        for (id, disk) in self.known.clone() {
            let snapshots = self.of.services().backend.snapshots(&id).try_collect::<Vec<Snapshot>>();
            // Listed before the points are read: each was recorded before it was made.
            match self.of.service.answered(&id, snapshots).await {
                Err(error) => {
                    let detail = format!("its snapshots: {}", error.chain());
                    let finding = Finding::new(C::CouldNotAsk, detail);
                    self.report.findings.push(Finding { volume: Some(id), disk: Some(disk), ..finding });
                }
                Ok(found) if found.is_empty() => {}
                Ok(found) => self.unknown_snapshots(&disk, found).await?,
            }
        }
        Ok(())
    }

    async fn unknown_snapshots(&mut self, disk: &DiskRef, found: Vec<Snapshot>) -> Result<()> {
        let recorded = self.recorded_snapshots(&disk.context).await?;
        for Snapshot { spec, .. } in found.into_iter().filter(|found| !recorded.contains(&found.spec.id)) {
            if spec.tag.instance != *self.instance() {
                self.report.foreign += 1;
                continue;
            }
            let detail = format!("of {}, made for job {}", spec.tag, spec.job);
            self.report.findings.push(Finding {
                volume: Some(spec.volume),
                disk: Some(spec.tag.disk),
                snapshot: Some(spec.id),
                ..Finding::new(C::UnknownSnapshot, detail)
            });
        }
        Ok(())
    }

    async fn recorded_snapshots(&self, context: &ContextId) -> Result<BTreeSet<SnapshotId>> {
        let points: Vec<RecoveryPoint> = self.of.points.points(context).try_collect().await?;
        let of_points = points.into_iter().flat_map(|point| point.volumes).map(|volume| volume.snapshot.id);
        let filter = OperationFilter { context: Some(context.clone()), ..OperationFilter::default() };
        let operations: Vec<Operation> = self.of.services().volumes.operations(filter).try_collect().await?;
        Ok(of_points.chain(operations.into_iter().filter_map(|operation| operation.spec.snapshot)).collect())
    }

    fn count_devices(&mut self) {
        let devices = self.devices.unwrap_or_default();
        let ours = |id: &VolumeId| self.known.contains_key(id);
        let foreign = devices.iter().filter(|device| !device.volume.as_ref().is_some_and(ours)).count();
        self.report.foreign += count(foreign);
    }

    /// Takes repairs back that no longer stand once everything is known.
    fn be_strict(&mut self) {
        let old = self.report.findings.iter().any(|finding| finding.class == C::NewerGeneration);
        let orphaned: BTreeSet<DiskRef> = self
            .report
            .findings
            .iter()
            .filter(|finding| finding.class == C::Orphan)
            .filter_map(|finding| finding.disk.clone())
            .collect();
        let gone = self.report.findings.iter().filter(|finding| finding.class == C::Gone).count();
        let elsewhere =
            gone > 0 && (gone == self.recorded || self.listed.as_ref().is_none_or(BTreeMap::is_empty));
        for finding in &mut self.report.findings {
            if old {
                finding.withhold("the records are older than a volume: they prove nothing");
            }
            if elsewhere && finding.repair == Some(Repair::Forget) {
                finding.withhold("not one recorded volume is there: this may be another place");
            }
            if finding.disk.as_ref().is_some_and(|disk| orphaned.contains(disk)) {
                finding.withhold("a volume that no record knows bears the mark of the same disk");
            }
        }
    }

    /// Why nothing is changed at the volume of a disk just now.
    async fn held(&mut self, disk: &DiskRef) -> Result<Option<String>> {
        let why = self.vm_held(&disk.context).await?;
        if why.is_some() {
            return Ok(why);
        }
        let left = self.of.services().volumes.unfinished(disk).await?;
        Ok(left.map(|left| format!("operation {} of its disk has not ended", left.spec.id)))
    }

    async fn vm_held(&mut self, context: &ContextId) -> Result<Option<String>> {
        if let Some(known) = self.held.get(context) {
            return Ok(known.clone());
        }
        let live = self.of.services().jobs.live(context).await?.filter(|job| !self.is_left(job));
        let forbidden = self.forbidden(context).await?;
        let why = forbidden.or_else(|| live.map(|job| format!("job {} of its VM is live", job.id)));
        self.held.insert(context.clone(), why.clone());
        Ok(why)
    }

    /// Whether the VM's state keeps everybody from its volumes (L07).
    async fn forbidden(&self, context: &ContextId) -> Result<Option<String>> {
        let vm = self.of.inventory.context(context).await?;
        Ok(match vm {
            None => Some("its VM is not known".to_owned()),
            Some(vm) => match vm.status.next(ContextEvent::Replicate) {
                Ok(_) => None,
                Err(_) => Some(format!("its VM is {}", vm.status)),
            },
        })
    }
}

fn about_operation(
    class: C,
    detail: String,
    left: &Operation,
    repair: Repair,
    why: Option<String>,
) -> Finding {
    let mut finding = Finding {
        disk: Some(left.spec.disk.clone()),
        volume: left.spec.volume.clone(),
        operation: Some(left.spec.id.clone()),
        repair: Some(repair),
        ..Finding::new(class, detail)
    };
    if let Some(why) = why {
        finding.withhold(&why);
    }
    finding
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
