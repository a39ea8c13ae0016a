//! Intents and how they end.

use std::time::Duration;

use super::error::Refusal;
use super::{Intent, State};
use crate::record::{Lease, Operation, OperationFilter, OperationSpec, VolumeContent, VolumeRecord};
use crate::state::{JobKind, OperationEvent, OperationKind, OperationStatus, VolumeEvent, VolumeStatus};
use crate::traits::Volume;
use crate::{ContextId, DiskRef, OperationId, Timestamp};

impl State {
    pub(super) fn unfinished(&self, disk: &DiskRef) -> Option<&Operation> {
        let mut operations = self.operations.values().map(|intent| &intent.record);
        operations.find(|operation| operation.spec.disk == *disk && !operation.status.is_terminal())
    }

    pub(super) fn begin_operation(
        &mut self,
        lease: &Lease,
        spec: &OperationSpec,
        now: Timestamp,
    ) -> Result<Operation, Refusal> {
        if let Some(known) = self.known(lease, spec)? {
            return Ok(known);
        }
        self.check_operation(lease, spec)?;
        if let (OperationKind::Delete, Some(id)) = (spec.kind, &spec.volume) {
            self.check_operates(lease)?;
            self.unless_protected(&spec.disk.context, JobKind::Operate)?;
            let volume = self.volume_mut(id)?;
            if volume.held_epoch {
                return Err(Refusal::HeldEpoch);
            }
            volume.status = volume.status.next(VolumeEvent::Delete)?;
            volume.updated_at = now;
        }
        Ok(self.record_intent(lease, spec, OperationStatus::Executing, None, now))
    }

    pub(super) fn condemn_volume(
        &mut self,
        lease: &Lease,
        spec: &OperationSpec,
        grace: Duration,
        now: Timestamp,
    ) -> Result<Operation, Refusal> {
        if let Some(known) = self.known(lease, spec)? {
            return Ok(known);
        }
        let (OperationKind::Delete, Some(id)) = (spec.kind, &spec.volume) else {
            return Err(Refusal::Input("only a volume that is to be deleted is condemned"));
        };
        self.check_operation(lease, spec)?;
        self.check_operates(lease)?;
        self.unless_protected(&spec.disk.context, JobKind::Operate)?;
        let volume = self.volume_mut(id)?;
        volume.status = volume.status.next(VolumeEvent::Condemn)?;
        volume.updated_at = now;
        Ok(self.record_intent(lease, spec, OperationStatus::Pending, Some(now.after(grace)), now))
    }

    pub(super) fn execute(
        &mut self,
        lease: &Lease,
        id: &OperationId,
        now: Timestamp,
    ) -> Result<Operation, Refusal> {
        let known = self.intent(lease, id)?.record.clone();
        self.check_operates(lease)?;
        let status = known.status.next(OperationEvent::Execute)?;
        if known.status == status {
            return Ok(known);
        }
        if let Some(due_at) = known.due_at.filter(|due_at| *due_at > now) {
            return Err(Refusal::NotDue(due_at));
        }
        self.unless_protected(&known.spec.disk.context, JobKind::Operate)?;
        self.move_condemned(&known, VolumeEvent::Delete, now)?;
        Ok(self.close_intent(lease, id, status, None, now)?.clone())
    }

    pub(super) fn pardon(
        &mut self,
        lease: &Lease,
        id: &OperationId,
        reason: &str,
        now: Timestamp,
    ) -> Result<Operation, Refusal> {
        let known = self.intent(lease, id)?.record.clone();
        self.check_operates(lease)?;
        if known.status == OperationStatus::Cancelled {
            return Ok(known);
        }
        let status = known.status.next(OperationEvent::Cancel)?;
        self.move_condemned(&known, VolumeEvent::Pardon, now)?;
        if let Some(volume) = known.spec.volume.as_ref().filter(|id| self.volumes.contains_key(*id)) {
            self.renewed_generation(volume, now)?;
        }
        Ok(self.close_intent(lease, id, status, Some(reason), now)?.clone())
    }

    pub(super) fn fail_operation(
        &mut self,
        lease: &Lease,
        id: &OperationId,
        error: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let known = self.intent(lease, id)?.record.clone();
        if known.status == OperationStatus::Failed {
            return Ok(());
        }
        Refusal::unless_same(&known.status, &OperationStatus::Executing)?;
        let status = known.status.next(OperationEvent::Fail)?;
        if known.spec.kind == OperationKind::Delete {
            self.move_condemned(&known, VolumeEvent::Keep, now)?;
        }
        self.close_intent(lease, id, status, Some(error), now).map(|_| ())
    }

    pub(super) fn operations_of(&self, filter: &OperationFilter) -> Vec<Operation> {
        let wanted = |operation: &&Operation| {
            filter.lets_through(operation)
                && !(filter.left_only && self.has_live_job(&operation.spec.disk.context))
        };
        let all = self.operations.values().map(|intent| &intent.record);
        let mut found: Vec<_> = all.filter(wanted).cloned().collect();
        found.sort_by(|one, other| filter.order.compare(&one.place(), &other.place()));
        found
    }

    fn has_live_job(&self, vm: &ContextId) -> bool {
        self.contexts.get(vm).is_some_and(|context| context.current_job.is_some())
    }

    /// The operation of this id, when it wants the same.
    fn known(&self, lease: &Lease, spec: &OperationSpec) -> Result<Option<Operation>, Refusal> {
        self.guard(lease)?;
        let Some(known) = self.operations.get(&spec.id) else { return Ok(None) };
        let same = known.record.spec == *spec;
        same.then(|| Some(known.record.clone())).ok_or(Refusal::OtherSpec)
    }

    fn record_intent(
        &mut self,
        lease: &Lease,
        spec: &OperationSpec,
        status: OperationStatus,
        due_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Operation {
        let record = Operation {
            spec: spec.clone(),
            worker: Some(lease.worker.clone()),
            status,
            error: None,
            made: None,
            due_at,
            created_at: now,
            updated_at: now,
        };
        self.operations.insert(spec.id.clone(), Intent { record: record.clone(), answer: None });
        record
    }

    fn close_intent(
        &mut self,
        lease: &Lease,
        id: &OperationId,
        status: OperationStatus,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<&Operation, Refusal> {
        let record = &mut self.intent(lease, id)?.record;
        record.status = status;
        record.error = error.map(str::to_owned);
        record.due_at = None;
        record.updated_at = now;
        Ok(record)
    }

    /// Moves the volume of a delete, unless it is gone from the records meanwhile.
    fn move_condemned(
        &mut self,
        operation: &Operation,
        event: VolumeEvent,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(volume) = operation.spec.volume.as_ref().and_then(|id| self.volumes.get_mut(id)) else {
            return Ok(());
        };
        volume.status = volume.status.next(event)?;
        volume.updated_at = now;
        Ok(())
    }

    fn check_operates(&self, lease: &Lease) -> Result<(), Refusal> {
        Refusal::unless_same(&self.guard(lease)?.record.kind, &JobKind::Operate)
    }

    fn check_operation(&self, lease: &Lease, spec: &OperationSpec) -> Result<(), Refusal> {
        if spec.job != lease.job {
            return Err(Refusal::Input("the operation names another job than the lease"));
        }
        if !self.is_of(lease, &spec.disk) {
            return Err(Refusal::unknown("disk of this job", &spec.disk));
        }
        let made_for = |id| self.volumes.get(id).is_some_and(|volume| volume.disk == spec.disk);
        match &spec.volume {
            None if spec.kind != OperationKind::Create => {
                return Err(Refusal::Input("the operation names no volume; only a create may"));
            }
            Some(id) if !made_for(id) => return Err(Refusal::unknown("volume of this disk", id)),
            _ => {}
        }
        if spec.kind.is_of_snapshot() && spec.snapshot.is_none() {
            return Err(Refusal::Input("the operation names no snapshot"));
        }
        let live = self.unfinished(&spec.disk);
        live.map_or(Ok(()), |live| Err(Refusal::LiveOperation(live.spec.id.clone())))
    }

    /// An operation on a disk of the lease's job.
    pub(super) fn intent(&mut self, lease: &Lease, id: &OperationId) -> Result<&mut Intent, Refusal> {
        self.guard(lease)?;
        let disk = self.operations.get(id).map(|intent| &intent.record.spec.disk);
        if !disk.is_some_and(|disk| self.is_of(lease, disk)) {
            return Err(Refusal::unknown("operation of this job", id));
        }
        self.operations.get_mut(id).ok_or_else(|| Refusal::unknown("operation", id))
    }

    pub(super) fn complete(
        &mut self,
        lease: &Lease,
        id: &OperationId,
        volume: &Volume,
        content: VolumeContent,
        now: Timestamp,
    ) -> Result<VolumeRecord, Refusal> {
        let intent = self.intent(lease, id)?;
        if let Some(answer) = &intent.answer {
            return Ok(answer.clone());
        }
        let spec = intent.record.spec.clone();
        let status = intent.record.status.next(OperationEvent::Complete)?;
        if spec.volume.as_ref().is_some_and(|named| *named != volume.id) {
            return Err(Refusal::Input("the operation names another volume"));
        }
        let answer = match spec.kind {
            OperationKind::Create => self.created(&spec.disk, volume, content, now)?,
            OperationKind::Attach => self.attached(&lease.worker, volume, now)?,
            OperationKind::Detach => self.detached(&volume.id, now)?,
            OperationKind::Resize => {
                let record = self.volume_mut(&volume.id)?;
                record.capacity = volume.capacity;
                record.updated_at = now;
                record.clone()
            }
            OperationKind::Snapshot | OperationKind::DeleteSnapshot => self.volume_mut(&volume.id)?.clone(),
            OperationKind::Revert => self.next_generation(&spec.disk, &volume.id, now)?,
            OperationKind::Delete => {
                let last = self.volume_mut(&volume.id)?.clone();
                self.remove_volume(&volume.id, now);
                let status = VolumeStatus::Deleted;
                VolumeRecord { status, device_path: None, attached_to: None, updated_at: now, ..last }
            }
        };
        let intent = self.intent(lease, id)?;
        intent.record.status = status;
        intent.record.error = None;
        intent.record.made = Some(answer.id.clone());
        intent.record.updated_at = now;
        intent.answer = Some(answer.clone());
        Ok(answer)
    }
}
