//! Breaks the records in every way that `check` knows: those of `breaks.txt`.

use oma_store::SqlStore;
use oma_store::servers::ServerEngine;

use crate::place::{Engine, Place};
use crate::vm::Vm;

const JOB: &str = "INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, vcenter_host, \
    replication_type, epoch, disk_ids, status, due_at, completed_at, created_at, updated_at) VALUES";
const VOLUME: &str = "INSERT INTO ossea_volumes (id, volume_id, volume_name, vm_context_id, disk_id, capacity_bytes, generation, \
    content, status, device_path, created_at, updated_at) VALUES";
const OPERATION: &str = "INSERT INTO volume_operations (id, type, status, vm_context_id, disk_id, job_id, ossea_volume_id, \
    made_volume_id, completed_at, created_at, updated_at) VALUES";
const EXPORT: &str = "INSERT INTO nbd_exports (id, job_id, vm_disk_id, device_mapping_uuid, export_name, status, created_at, \
    updated_at) VALUES";
const MAPPING: &str =
    "INSERT INTO device_mappings (id, volume_uuid, vm_id, device_path, size, created_at, updated_at) VALUES";
const FAILOVER: &str = "INSERT INTO failover_jobs (id, job_id, vm_context_id, vm_id, replication_job_id, job_type, status, \
    source_vm_name, created_at, updated_at) VALUES";
const RUN: &str =
    "INSERT INTO jobs (id, job_id, user_id, server_id, playbook_id, status, created_at, updated_at) VALUES";
const LINE: &str = "INSERT INTO job_logs (id, job_id, line_number, stream, content, ts) VALUES";
const TICKET: &str = "INSERT INTO tickets (id, ticket_id, job_id, user_id, assigned_to, title, status, priority, created_at, \
    updated_at) VALUES";
const TOKEN: &str =
    "INSERT INTO access_tokens (id, user_id, kind, name, role, token_hash, created_at, expires_at) VALUES";
const LOG: &str = "INSERT INTO log_events (id, job_id, step_id, level, message, ts) VALUES";
const POINT: &str = "INSERT INTO recovery_points (id, vm_context_id, job_id, epoch, status, volumes, created_at, updated_at) VALUES";
/// A report that is as it should be.
pub(crate) const REPORT: &str = r#"'{"report":{"version":1,"job":"j","context":"c","vm":"/a/vm/b","epoch":1,"scope":{"level":"full"},"leaf_bytes":65536,"begun":1,"ended":2,"disks":[]},"seal":null}'"#;
/// A plan that is as it should be.
pub(crate) const PLAN: &str = r#"'{"instance":"i","job":"j","job_status":"failed","context":"c","vm":"/a/vm/b","failover_job":null,"volumes":"keep","first":[],"items":[],"steps":[{"do":"check"}]}'"#;
const CLEANUP: &str = "INSERT INTO cleanups (seq, id, job_id, vm_context_id, worker, plan, status, created_at, updated_at) VALUES";
const STEP: &str = "INSERT INTO job_steps (id, job_id, name, seq, status, started_at) VALUES";

/// Rows of users, runs and the like that are as they should be.
pub(crate) fn automation(engine: Engine) -> String {
    let text = format!(
        "INSERT INTO users (id, email, password_hash, created_at, updated_at) VALUES (1, 'a@b.c', '$2b$12$x', {{t}}, {{t}}); \
         INSERT INTO servers (id, hostname, ip_address, created_at, updated_at) VALUES (1, 'h', '192.0.2.1', {{t}}, {{t}}); \
         INSERT INTO playbooks (id, name, file_path, created_at, updated_at) VALUES (1, 'p', 'p.yml', {{t}}, {{t}}); \
         {RUN} (1, 'run-1', 1, 1, 1, 'completed', {{t}}, {{t}}); {LINE} (1, 1, 1, 'stderr', 'a line', {{t}}); \
         {TICKET} (1, 't-1', 1, 1, 1, 'x', 'open', 'low', {{t}}, {{t}}); \
         {TOKEN} ('tok-1', 1, 'api', 'n', 'viewer', 'h', {{t}}, {{t}}); \
         INSERT INTO audit_logs (id, user_id, action, resource_type, ts) VALUES (1, 1, 'create', 'job', {{t}})"
    );
    text.replace("{t}", engine.moment())
}

/// What the server would not let pass otherwise: the unique keys that two rules are about, and PostgreSQL's checks.
fn unlocked(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => {
            "DROP INDEX ux_jobs_live; DROP INDEX ux_operations_unfinished; DROP INDEX ux_job_logs_line; \
             PRAGMA legacy_alter_table = ON; ALTER TABLE device_mappings RENAME TO strict_mappings; \
             CREATE TABLE device_mappings (id INTEGER PRIMARY KEY, volume_uuid TEXT UNIQUE, volume_id_numeric INTEGER, \
             vm_id TEXT, device_path TEXT, size INTEGER, created_at INTEGER, updated_at INTEGER); \
             INSERT INTO device_mappings SELECT * FROM strict_mappings; DROP TABLE strict_mappings"
        }
        Engine::Server(ServerEngine::MariaDb) => {
            "ALTER TABLE replication_jobs DROP INDEX ux_jobs_live; \
             ALTER TABLE volume_operations DROP INDEX ux_operations_unfinished; \
             ALTER TABLE job_logs ADD INDEX (job_id), DROP INDEX ux_job_logs_line; \
             ALTER TABLE device_mappings DROP INDEX ux_mappings_device"
        }
        Engine::Server(ServerEngine::Postgres) => {
            "DROP INDEX ux_jobs_live, ux_operations_unfinished, ux_job_logs_line; \
             ALTER TABLE device_mappings DROP CONSTRAINT ux_mappings_device; \
             DO $$ DECLARE c record; BEGIN \
             FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint WHERE contype = 'c' AND coninhcount = 0 \
             AND connamespace = current_schema()::regnamespace \
             LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname); END LOOP; END $$"
        }
    }
}

/// Makes a VM for each, breaks it, and answers what `check` should find.
pub(crate) async fn all(engine: Engine, place: &Place, store: &SqlStore) -> Vec<(String, String, String)> {
    place.force(&automation(engine)).await;
    let other = Names::of(place, &Vm::committed(store, "other").await, 0).await;
    let live = Names::of(place, &Vm::copying(store, "live").await, 0).await;
    let mut expected = Vec::new();
    let mut statements = vec![unlocked(engine).to_owned()];
    let lines: Vec<&str> = include_str!("breaks.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let mut number = 50_000;
    for broken in lines.chunk_by(|_, next| next.starts_with(' ')) {
        number += 1;
        let name = format!("vm{number}");
        let (finding, on) = broken[0].rsplit_once(' ').unwrap();
        let vm = match on {
            "committed" => Vm::committed(store, &name).await,
            "copying" => Vm::copying(store, &name).await,
            other => panic!("{other} in {finding}"),
        };
        let names = Names::of(place, &vm, number).await;
        let text = |text: &str| names.text(text, engine, &other, &live);
        statements.extend(broken[1..].iter().map(|statement| text(statement)));
        let [rule, table, key] = finding.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        expected.push((rule.to_owned(), table.to_owned(), text(key)));
    }
    place.force(&statements.join("; ")).await;
    expected.sort();
    expected
}

/// What a VM's rows are called.
struct Names {
    vm: String,
    job: String,
    disk: i64,
    volume: String,
    row: i64,
    export: String,
    number: u32,
}

impl Names {
    async fn of(place: &Place, vm: &Vm<'_>, number: u32) -> Self {
        let (context, volume) = (vm.context.id.to_string(), vm.volume.to_string());
        Self {
            disk: place.number(&format!("SELECT id FROM vm_disks WHERE vm_context_id = '{context}'")).await,
            row: place.number(&format!("SELECT id FROM ossea_volumes WHERE volume_id = '{volume}'")).await,
            vm: context,
            job: vm.lease.job.to_string(),
            volume,
            export: vm.export.to_string(),
            number,
        }
    }

    fn text(&self, text: &str, engine: Engine, other: &Self, live: &Self) -> String {
        let mut text = text.to_owned();
        let replacements = [
            ("{REPORT}", REPORT.to_owned()),
            ("{POINT}", POINT.to_owned()),
            ("{JOB}", JOB.to_owned()),
            ("{VOLUME}", VOLUME.to_owned()),
            ("{OPERATION}", OPERATION.to_owned()),
            ("{EXPORT}", EXPORT.to_owned()),
            ("{MAPPING}", MAPPING.to_owned()),
            ("{FAILOVER}", FAILOVER.to_owned()),
            ("{RUN}", RUN.to_owned()),
            ("{LINE}", LINE.to_owned()),
            ("{TICKET}", TICKET.to_owned()),
            ("{TOKEN}", TOKEN.to_owned()),
            ("{LOG}", LOG.to_owned()),
            ("{STEP}", STEP.to_owned()),
            ("{CLEANUP}", CLEANUP.to_owned()),
            ("{PLAN}", PLAN.to_owned()),
            ("{vm}", self.vm.clone()),
            ("{job}", self.job.clone()),
            ("{disk}", self.disk.to_string()),
            ("{volume}", self.volume.clone()),
            ("{row}", self.row.to_string()),
            ("{export}", self.export.clone()),
            ("{n}", self.number.to_string()),
            ("{o_vm}", other.vm.clone()),
            ("{o_job}", other.job.clone()),
            ("{o_volume}", other.volume.clone()),
            ("{o_row}", other.row.to_string()),
            ("{l_vm}", live.vm.clone()),
            ("{l_job}", live.job.clone()),
            ("{l_disk}", live.disk.to_string()),
            ("{t}", engine.moment().to_owned()),
        ];
        for (name, value) in &replacements {
            text = text.replace(name, value);
        }
        text
    }
}
