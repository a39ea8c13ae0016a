//! VMs, disks, volumes, jobs, their history and their log.

use super::{Rows, Write};

/// Tables whose numbers are given here.
pub(super) const NUMBERED: &[(&str, &str)] =
    &[("replication_jobs", "seq"), ("vm_disks", "id"), ("ossea_volumes", "id")];

/// In an order that foreign keys allow.
pub(super) fn all(write: Write) -> Vec<Rows> {
    vec![
        vms(write),
        jobs(write),
        disks(write),
        volumes(write),
        mappings(write),
        history(write),
        events(write),
    ]
}

pub(super) fn vms(write: Write) -> Rows {
    let shape = write.shape;
    let begin = write.time(&shape.begin.as_millis().to_string());
    let status = format!(
        "CASE WHEN i % {} = 0 THEN 'replicating' WHEN i % 20 = 19 THEN 'failed' ELSE 'ready_for_failover' END",
        shape.live_each
    );
    let columns = vec![
        ("context_id", write.vm("i")),
        ("vmware_vm_id", format!("'uuid-' || {}", write.vm("i"))),
        ("vcenter_host", host("i")),
        ("vm_name", "'web-' || i".to_owned()),
        ("vm_path", path("i")),
        ("current_status", status),
        ("epoch", (shape.rounds - 1).to_string()),
        ("total_jobs_run", shape.rounds.to_string()),
        ("successful_jobs", (shape.rounds - 1).to_string()),
        ("created_at", begin.clone()),
        ("updated_at", begin.clone()),
        ("last_status_change", begin),
    ];
    Rows::new("vm_replication_contexts", shape.vms, columns)
}

fn host(vm: &str) -> String {
    format!("'vcenter-' || (({vm}) % 8) || '.example'")
}

fn path(vm: &str) -> String {
    format!("'/DC' || (({vm}) % 4) || '/vm/web-' || ({vm})")
}

/// The newest of some VMs are live, and of these a few are being driven; one of twenty has failed.
pub(super) fn jobs(write: Write) -> Rows {
    let shape = write.shape;
    let count = shape.jobs();
    let vm = format!("i % {}", shape.vms);
    let is_newest = format!("i >= {}", shape.newest_job(0));
    let live = format!("{is_newest} AND ({vm}) % {} = 0", shape.live_each);
    let held = match shape.held_each {
        0 => "1 = 0".to_owned(),
        each => format!("{is_newest} AND ({vm}) % {each} = 0"),
    };
    let created = write.moment("i", count, 0);
    let begun = write.moment("i", count, 2_000);
    let ended = write.moment("i", count, 600_000);
    let never = write.time("4102444800000");
    let columns = vec![
        ("seq", "i + 1".to_owned()),
        ("id", write.job("i")),
        ("vm_context_id", write.vm(&vm)),
        ("source_vm_id", format!("'uuid-' || {}", write.vm(&vm))),
        ("source_vm_name", format!("'web-' || ({vm})")),
        ("source_vm_path", path(&vm)),
        ("vcenter_host", host(&vm)),
        ("replication_type", format!("CASE WHEN i < {} THEN 'initial' ELSE 'incremental' END", shape.vms)),
        ("priority", "i % 3".to_owned()),
        ("target", format!("'cloud-' || (({vm}) % 4)")),
        (
            "status",
            format!(
                "CASE WHEN {held} THEN 'replicating' WHEN {live} THEN 'initializing' \
                 WHEN i % 20 = 19 THEN 'failed' ELSE 'completed' END"
            ),
        ),
        ("epoch", format!("{} + 1", write.div("i", shape.vms))),
        ("disk_ids", r#"'["disk-2000","disk-2001"]'"#.to_owned()),
        ("request", "'{}'".to_owned()),
        ("bytes_transferred", "i % 1000 * 1048576".to_owned()),
        ("total_bytes", "i % 1000 * 1048576".to_owned()),
        ("error_message", "CASE WHEN i % 20 = 19 THEN 'the source does not answer' END".to_owned()),
        ("owner", format!("CASE WHEN {held} THEN 'appliance-' || (i % 4) END")),
        ("fence", "1".to_owned()),
        ("due_at", format!("CASE WHEN {held} THEN {never} WHEN {live} THEN {created} END")),
        ("created_at", created),
        ("updated_at", begun.clone()),
        ("started_at", format!("CASE WHEN {live} THEN NULL ELSE {begun} END")),
        ("completed_at", format!("CASE WHEN {live} THEN NULL ELSE {ended} END")),
    ];
    Rows::new("replication_jobs", count, columns)
}

/// Each VM's own live job.
pub(super) fn current_jobs() -> String {
    "UPDATE vm_replication_contexts SET current_job_id = (SELECT j.id FROM replication_jobs j \
     WHERE j.vm_context_id = context_id AND j.live = 1)"
        .to_owned()
}

/// The VM of a disk and of a volume, of which each VM has two.
fn vm_of_disk(write: Write) -> String {
    write.vm(&write.div("i", 2))
}

fn disks(write: Write) -> Rows {
    let shape = write.shape;
    let vm = write.div("i", 2);
    let begin = write.time(&shape.begin.as_millis().to_string());
    let columns = vec![
        ("id", "i + 1".to_owned()),
        ("vm_context_id", vm_of_disk(write)),
        ("job_id", write.job(&format!("{} + {vm}", shape.newest_job(0)))),
        ("disk_id", "'disk-' || (2000 + i % 2)".to_owned()),
        ("vm_dk_path", format!("'[store] web-' || {vm} || '/disk-' || (i % 2) || '.vmdk'")),
        ("unit_number", "i % 2".to_owned()),
        ("label", "'Hard disk ' || (i % 2 + 1)".to_owned()),
        ("capacity_bytes", "42949672960".to_owned()),
        ("generation", "1".to_owned()),
        ("disk_change_id", format!("'52 de c0/' || i || '/' || {}", shape.rounds)),
        ("change_generation", "1".to_owned()),
        ("change_endpoint", host(&vm)),
        ("epoch", (shape.rounds - 1).to_string()),
        ("sync_status", "'completed'".to_owned()),
        ("created_at", begin),
        ("updated_at", write.moment(&format!("{} + {vm}", shape.newest_job(0)), shape.jobs(), 600_000)),
    ];
    Rows::new("vm_disks", shape.vms * 2, columns)
}

fn volumes(write: Write) -> Rows {
    let begin = write.time(&write.shape.begin.as_millis().to_string());
    let columns = vec![
        ("id", "i + 1".to_owned()),
        ("volume_id", format!("'vol-' || {} || '-' || (i % 2)", vm_of_disk(write))),
        ("volume_name", "'migration-web-' || i".to_owned()),
        ("vm_context_id", vm_of_disk(write)),
        ("disk_id", "'disk-' || (2000 + i % 2)".to_owned()),
        ("capacity_bytes", "42949672960".to_owned()),
        ("generation", "1".to_owned()),
        ("content", "'epoch'".to_owned()),
        ("content_epoch", (write.shape.rounds - 1).to_string()),
        ("status", "'attached'".to_owned()),
        ("device_path", "'/dev/mapper/oma-' || i".to_owned()),
        ("created_at", begin.clone()),
        ("updated_at", begin),
    ];
    Rows::new("ossea_volumes", write.shape.vms * 2, columns)
}

fn mappings(write: Write) -> Rows {
    let begin = write.time(&write.shape.begin.as_millis().to_string());
    let columns = vec![
        ("volume_uuid", format!("'vol-' || {} || '-' || (i % 2)", vm_of_disk(write))),
        ("vm_id", "''".to_owned()),
        ("device_path", "'/dev/mapper/oma-' || i".to_owned()),
        ("size", "42949672960".to_owned()),
        ("created_at", begin.clone()),
        ("updated_at", begin),
    ];
    Rows::new("device_mappings", write.shape.vms * 2, columns)
}

/// One row for each disk of each job.
fn history(write: Write) -> Rows {
    let shape = write.shape;
    let job = write.div("i", 2);
    let change = |round: String| format!("'52 de c0/' || (i % 2) || '/' || ({round})");
    let round = write.div("i", 2 * shape.vms);
    let initial = format!("i < {}", 2 * shape.vms);
    let columns = vec![
        ("vm_context_id", write.vm(&format!("{job} % {}", shape.vms))),
        ("job_id", write.job(&job)),
        ("disk_id", "'disk-' || (2000 + i % 2)".to_owned()),
        ("change_id", change(format!("{round} + 1"))),
        ("previous_change_id", format!("CASE WHEN {initial} THEN NULL ELSE {} END", change(round))),
        ("sync_type", format!("CASE WHEN {initial} THEN 'initial' ELSE 'incremental' END")),
        ("blocks_changed", "i % 5000".to_owned()),
        ("bytes_transferred", "i % 5000 * 65536".to_owned()),
        ("sync_duration_seconds", "600".to_owned()),
        ("sync_success", "1".to_owned()),
        ("created_at", write.moment("i", shape.jobs() * 2, 0)),
    ];
    Rows::new("cbt_history", shape.jobs() * 2, columns)
}

/// Ten of each job; fifty jobs write by turns.
fn events(write: Write) -> Rows {
    let shape = write.shape;
    let columns = vec![
        ("job_id", write.job(&format!("{} * 50 + i % 50", write.div("i", 500)))),
        (
            "level",
            "CASE WHEN i % 100 = 99 THEN 'ERROR' WHEN i % 20 = 19 THEN 'WARN' ELSE 'INFO' END".to_owned(),
        ),
        (
            "message",
            "'copied extent ' || i || ' of disk-2000: 524288 bytes at offset ' || (i * 524288)".to_owned(),
        ),
        ("ts", write.moment("i", shape.lines(), 0)),
    ];
    Rows::new("log_events", shape.lines(), columns)
}
