//! Rows as records. Everything is parsed again: a row that was changed by hand is `Corrupt`, not believed.

use std::fmt;

use oma_core::record::{
    CbtRecord, CommittedChange, ContentStamp, DiskRecord, ExportRecord, JobLine, JobStep, LogEvent,
    Operation, OperationSpec, ReplicationJob, SourceIdentity, VmContext, VolumeContent, VolumeRecord,
};
use oma_core::traits::Provisioning;
use oma_core::{ByteSize, DiskRef, Epoch, Fence, Generation, LogId, WorkerId};

use crate::db::{Fields, Row};
use crate::error::Result;

pub(crate) fn job(row: &Row) -> Result<ReplicationJob> {
    let fields = row.fields("replication_jobs", "id");
    Ok(ReplicationJob {
        id: fields.parse("id")?,
        context: fields.parse("vm_context_id")?,
        kind: fields.parse("kind")?,
        replication_type: fields.parse("replication_type")?,
        status: fields.parse("status")?,
        epoch: Epoch(fields.count("epoch")?),
        disks: fields.json("disk_ids")?,
        priority: narrow(&fields, "priority")?,
        target: fields.opt_parse("target")?,
        request: fields.opt_text("request")?.map(str::to_owned),
        wanted: fields.parse("wanted")?,
        error: fields.opt_text("error_message")?.map(str::to_owned),
        attempts: narrow(&fields, "attempts")?,
        due_at: fields.opt_time("due_at")?,
        fence: Fence(fields.count("fence")?),
        owner: fields.opt_parse("owner")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
        completed_at: fields.opt_time("completed_at")?,
    })
}

pub(crate) fn context(row: &Row) -> Result<VmContext> {
    let fields = row.fields("vm_replication_contexts", "context_id");
    Ok(VmContext {
        id: fields.parse("context_id")?,
        identity: SourceIdentity {
            instance_uuid: fields.parse("vmware_vm_id")?,
            endpoint: fields.parse("vcenter_host")?,
        },
        name: fields.text("vm_name")?.to_owned(),
        path: fields.parse("vm_path")?,
        status: fields.parse("current_status")?,
        epoch: Epoch(fields.count("epoch")?),
        current_job: fields.opt_parse("current_job_id")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

/// A number of fewer bits than its column's.
fn narrow<T: TryFrom<i64, Error: fmt::Display>>(fields: &Fields<'_>, column: &'static str) -> Result<T> {
    T::try_from(fields.int(column)?).map_err(|error| fields.damaged(column, error))
}

fn disk_ref(fields: &Fields<'_>) -> Result<DiskRef> {
    Ok(DiskRef { context: fields.parse("vm_context_id")?, key: fields.parse("disk_id")? })
}

pub(crate) fn disk(row: &Row) -> Result<DiskRecord> {
    let fields = row.fields("vm_disks", "row_id");
    let unit = fields.opt_int("unit_number")?.map(u32::try_from).transpose();
    Ok(DiskRecord {
        disk: disk_ref(&fields)?,
        job: fields.opt_parse("job_id")?,
        label: fields.text("label")?.to_owned(),
        location: fields.text("vm_dk_path")?.to_owned(),
        capacity: fields.size("capacity_bytes")?,
        unit_number: unit.map_err(|error| fields.damaged("unit_number", error))?,
        volume: fields.opt_parse("volume_id")?,
        change_id: fields.opt_parse("disk_change_id")?,
        epoch: Epoch(fields.count("epoch")?),
        zeroes_broken: fields.int("zeroes_broken")? != 0,
        status: fields.parse("sync_status")?,
        bytes_synced: fields.size("bytes_synced")?,
        updated_at: fields.time("updated_at")?,
    })
}

/// The change id of a disk with all that it is bound to, if it has one.
pub(crate) fn committed(row: &Row) -> Result<Option<CommittedChange>> {
    let fields = row.fields("vm_disks", "row_id");
    let Some(change_id) = fields.opt_parse("disk_change_id")? else {
        return Ok(None);
    };
    let size = fields.opt_int("committed_bytes")?.map(u64::try_from).transpose();
    Ok(Some(CommittedChange {
        disk: disk_ref(&fields)?,
        change_id,
        generation: Generation(fields.count("change_generation")?),
        endpoint: fields.parse("change_endpoint")?,
        epoch: Epoch(fields.count("epoch")?),
        capacity: size.map_err(|error| fields.damaged("committed_bytes", error))?.map(ByteSize::new),
    }))
}

pub(crate) fn volume(row: &Row) -> Result<VolumeRecord> {
    let fields = row.fields("ossea_volumes", "volume_id");
    let content = match fields.text("content")? {
        "blank" => VolumeContent::Blank,
        "inconsistent" => VolumeContent::Inconsistent,
        "epoch" => VolumeContent::Epoch(Epoch(fields.count("content_epoch")?)),
        other => return Err(fields.damaged("content", format!("{other:?} is not a content"))),
    };
    Ok(VolumeRecord {
        id: fields.parse("volume_id")?,
        name: fields.text("volume_name")?.to_owned(),
        disk: disk_ref(&fields)?,
        capacity: fields.size("capacity_bytes")?,
        generation: Generation(fields.count("generation")?),
        content,
        held_epoch: fields.flag("held_epoch")?,
        stamp: fields.opt_text("content_stamp")?.map(|stamp| ContentStamp(stamp.to_owned())),
        status: fields.parse("status")?,
        device_path: fields.opt_text("device_path")?.map(str::to_owned),
        attached_to: match fields.opt_text("vm_id")? {
            // Before the second step of the schema it was not recorded.
            None | Some("") => None,
            Some(_) => fields.opt_parse("vm_id")?,
        },
        updated_at: fields.time("updated_at")?,
    })
}

/// `ossea_volumes.content` and `content_epoch`.
pub(crate) fn content_columns(content: VolumeContent) -> (&'static str, Option<Epoch>) {
    match content {
        VolumeContent::Blank => ("blank", None),
        VolumeContent::Inconsistent => ("inconsistent", None),
        VolumeContent::Epoch(epoch) => ("epoch", Some(epoch)),
    }
}

/// `volume_operations.provisioning`.
pub(crate) const fn provisioning_column(provisioning: Option<Provisioning>) -> Option<&'static str> {
    match provisioning {
        None => None,
        Some(Provisioning::Thin) => Some("thin"),
        Some(Provisioning::Thick) => Some("thick"),
    }
}

pub(crate) fn operation(row: &Row) -> Result<Operation> {
    let fields = row.fields("volume_operations", "id");
    let capacity = fields.opt_int("capacity_bytes")?.map(u64::try_from).transpose();
    Ok(Operation {
        spec: OperationSpec {
            id: fields.parse("id")?,
            kind: fields.parse("type")?,
            disk: disk_ref(&fields)?,
            volume: fields.opt_parse("volume_id")?,
            job: fields.parse("job_id")?,
            capacity: capacity.map_err(|error| fields.damaged("capacity_bytes", error))?.map(ByteSize::new),
            name: fields.opt_text("volume_name")?.map(str::to_owned),
            provisioning: match fields.opt_text("provisioning")? {
                None => None,
                Some("thin") => Some(Provisioning::Thin),
                Some("thick") => Some(Provisioning::Thick),
                Some(other) => {
                    return Err(fields.damaged("provisioning", format!("{other:?} is no provisioning")));
                }
            },
            snapshot: fields.opt_parse("snapshot_id")?,
        },
        worker: fields.opt_parse("worker")?,
        status: fields.parse("status")?,
        error: fields.opt_text("error")?.map(str::to_owned),
        made: fields.opt_parse("made_volume")?,
        due_at: fields.opt_time("due_at")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

pub(crate) fn export(row: &Row) -> Result<ExportRecord> {
    let fields = row.fields("nbd_exports", "export_name");
    Ok(ExportRecord {
        name: fields.parse("export_name")?,
        job: fields.parse("job_id")?,
        disk: disk_ref(&fields)?,
        volume: fields.parse("device_mapping_uuid")?,
        status: fields.parse("status")?,
        updated_at: fields.time("updated_at")?,
    })
}

pub(crate) fn history(row: &Row) -> Result<CbtRecord> {
    let fields = row.fields("cbt_history", "id");
    Ok(CbtRecord {
        job: fields.parse("job_id")?,
        disk: disk_ref(&fields)?,
        change_id: fields.parse("change_id")?,
        previous: fields.opt_parse("previous_change_id")?,
        sync_type: fields.parse("sync_type")?,
        extents: fields.count("blocks_changed")?,
        bytes_transferred: fields.size("bytes_transferred")?,
        success: fields.flag("sync_success")?,
        created_at: fields.time("created_at")?,
    })
}

pub(crate) fn event(row: &Row) -> Result<(LogId, LogEvent)> {
    let fields = row.fields("log_events", "id");
    let attrs = fields.opt_text("attrs")?.map(|_| fields.json("attrs")).transpose()?;
    let event = LogEvent {
        job: fields.opt_parse("job_id")?,
        step: opt_number(&fields, "step")?,
        level: fields.parse("level")?,
        message: fields.text("message")?.to_owned(),
        attrs,
        at: fields.time("ts")?,
    };
    Ok((LogId(fields.count("id")?), event))
}

fn opt_number(fields: &Fields<'_>, column: &'static str) -> Result<Option<u32>> {
    let number = fields.opt_int(column)?.map(u32::try_from).transpose();
    number.map_err(|error| fields.damaged(column, error))
}

/// What else is kept of a step (`job_steps.metadata`); another program may keep something else.
#[derive(Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub(crate) struct StepMetadata {
    pub(crate) attempt: u64,
    pub(crate) worker: Option<WorkerId>,
}

pub(crate) fn step(row: &Row) -> Result<JobStep> {
    let fields = row.fields("job_steps", "id");
    let metadata: StepMetadata = fields.opt_json("metadata")?.unwrap_or_default();
    Ok(JobStep {
        job: fields.parse("job_id")?,
        number: opt_number(&fields, "seq")?.unwrap_or_default(),
        name: fields.text("name")?.to_owned(),
        status: fields.parse("status")?,
        attempt: Fence(metadata.attempt),
        worker: metadata.worker,
        started_at: fields.time("started_at")?,
        ended_at: fields.opt_time("completed_at")?,
        error: fields.opt_text("error_message")?.map(str::to_owned),
    })
}

pub(crate) fn line(row: &Row) -> Result<JobLine> {
    let fields = row.fields("job_logs", "line_number");
    Ok(JobLine {
        number: fields.count("line_number")?,
        stream: fields.parse("stream")?,
        text: fields.text("content")?.to_owned(),
        at: fields.time("ts")?,
    })
}
