-- What the queue of jobs needs, and the tables of automation and governance. See ../NOTES.md for the rules.

-- Larger priority first, then age. target is the place that the volumes live in: ossea_configs.name when it is a cloud.
-- attempts counts those that failed or whose worker vanished. live is NULL once the job has ended.
ALTER TABLE replication_jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE replication_jobs ADD COLUMN target TEXT;
ALTER TABLE replication_jobs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0);
ALTER TABLE replication_jobs ADD COLUMN live INTEGER
    GENERATED ALWAYS AS (CASE WHEN status NOT IN ('completed', 'failed', 'cancelled') THEN 1 END) VIRTUAL;
-- In place of one over the status, which a question for live = 1 does not find.
DROP INDEX ux_jobs_live;
CREATE UNIQUE INDEX ux_jobs_live ON replication_jobs (vm_context_id, live);
CREATE INDEX ix_jobs_queue ON replication_jobs (live, priority DESC, seq, status);
CREATE INDEX ix_jobs_owner ON replication_jobs (owner, due_at);
CREATE INDEX ix_jobs_ended ON replication_jobs (completed_at, status, bytes_transferred);

-- vm_id is the worker that sees the device: a path means another device on another machine. Both tables are made anew,
-- because a constraint cannot be changed; the exports first, or they would go with the mappings.
CREATE TABLE device_mappings_2 (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    volume_uuid       TEXT    NOT NULL UNIQUE REFERENCES ossea_volumes (volume_id) ON DELETE RESTRICT,
    volume_id_numeric INTEGER,
    vm_id             TEXT    NOT NULL DEFAULT '',
    device_path       TEXT    NOT NULL,
    size              INTEGER NOT NULL CHECK (size >= 0),
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    UNIQUE (vm_id, device_path)
) STRICT;
INSERT INTO device_mappings_2 (id, volume_uuid, volume_id_numeric, vm_id, device_path, size, created_at, updated_at)
SELECT id, volume_uuid, volume_id_numeric, COALESCE(vm_id, ''), device_path, size, created_at, updated_at FROM device_mappings;
CREATE TABLE nbd_exports_2 (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id              TEXT    NOT NULL REFERENCES replication_jobs (id) ON DELETE CASCADE,
    vm_disk_id          INTEGER NOT NULL REFERENCES vm_disks (id) ON DELETE CASCADE,
    device_mapping_uuid TEXT    NOT NULL REFERENCES device_mappings_2 (volume_uuid) ON DELETE CASCADE,
    export_name         TEXT    NOT NULL UNIQUE,
    port                INTEGER,
    device_path         TEXT,
    config_path         TEXT,
    status              TEXT    NOT NULL CHECK (status IN ('starting', 'running', 'draining', 'stopped')),
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;
INSERT INTO nbd_exports_2 (id, job_id, vm_disk_id, device_mapping_uuid, export_name, port, device_path, config_path, status,
                           created_at, updated_at)
SELECT id, job_id, vm_disk_id, device_mapping_uuid, export_name, port, device_path, config_path, status,
       created_at, updated_at FROM nbd_exports;
DROP VIEW vm_export_mappings;
DROP TABLE nbd_exports;
DROP TABLE device_mappings;
ALTER TABLE device_mappings_2 RENAME TO device_mappings;
ALTER TABLE nbd_exports_2 RENAME TO nbd_exports;
CREATE INDEX ix_exports_job ON nbd_exports (job_id);
CREATE INDEX ix_exports_disk ON nbd_exports (vm_disk_id);
CREATE INDEX ix_exports_mapping ON nbd_exports (device_mapping_uuid);
CREATE VIEW vm_export_mappings AS
SELECT e.id AS id, c.vmware_vm_id AS vm_id, d.unit_number AS disk_unit_number, c.vm_name AS vm_name,
       e.export_name AS export_name, m.device_path AS device_path,
       CASE e.status WHEN 'stopped' THEN 'inactive' ELSE 'active' END AS status,
       e.job_id AS job_id, e.created_at AS created_at, e.updated_at AS updated_at
FROM nbd_exports e
JOIN vm_disks d ON d.id = e.vm_disk_id
JOIN vm_replication_contexts c ON c.context_id = d.vm_context_id
JOIN device_mappings m ON m.volume_uuid = e.device_mapping_uuid;

CREATE INDEX ix_log_ts ON log_events (ts, id);
CREATE INDEX ix_log_level ON log_events (level, id);
CREATE INDEX ix_contexts_status ON vm_replication_contexts (current_status);

-- An email is stored in lower case. password_hash is a hash in its own notation ('$2b$12$...'), never a password.
CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    email         TEXT    NOT NULL UNIQUE CHECK (email = LOWER(email)),
    password_hash TEXT    NOT NULL CHECK (password_hash LIKE '$%'),
    full_name     TEXT    NOT NULL DEFAULT '',
    role          TEXT    NOT NULL DEFAULT 'viewer' CHECK (role IN ('viewer', 'operator', 'admin', 'agent')),
    is_active     INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    last_login_at INTEGER,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE servers (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    hostname    TEXT    NOT NULL UNIQUE,
    ip_address  TEXT    NOT NULL UNIQUE,
    os_type     TEXT,
    environment TEXT,
    status      TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'maintenance', 'inactive')),
    description TEXT,
    tags        TEXT    CHECK (tags IS NULL OR json_valid(tags)),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX ix_servers_status ON servers (status, id);

CREATE TABLE playbooks (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT    NOT NULL UNIQUE,
    file_path   TEXT    NOT NULL,
    description TEXT,
    variables   TEXT    CHECK (variables IS NULL OR json_valid(variables)),
    is_active   INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- One run of a playbook on a server. job_id is the UUID that others know it by.
CREATE TABLE jobs (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id        TEXT    NOT NULL UNIQUE,
    user_id       INTEGER NOT NULL REFERENCES users (id) ON DELETE RESTRICT,
    server_id     INTEGER NOT NULL REFERENCES servers (id) ON DELETE RESTRICT,
    playbook_id   INTEGER NOT NULL REFERENCES playbooks (id) ON DELETE RESTRICT,
    status        TEXT    NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    extra_vars    TEXT    CHECK (extra_vars IS NULL OR json_valid(extra_vars)),
    exit_code     INTEGER,
    error_message TEXT,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    started_at    INTEGER,
    completed_at  INTEGER
) STRICT;
CREATE INDEX ix_runs_status ON jobs (status, created_at, id);
CREATE INDEX ix_runs_created ON jobs (created_at, id);
CREATE INDEX ix_runs_user ON jobs (user_id, status, created_at, id);
CREATE INDEX ix_runs_server ON jobs (server_id, created_at, id);
CREATE INDEX ix_runs_playbook ON jobs (playbook_id, created_at, id);

-- What a run wrote. Lines are numbered from 1 on.
CREATE TABLE job_logs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id      INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    line_number INTEGER NOT NULL CHECK (line_number > 0),
    stream      TEXT    NOT NULL DEFAULT 'stdout' CHECK (stream IN ('stdout', 'stderr')),
    content     TEXT    NOT NULL,
    ts          INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX ux_job_logs_line ON job_logs (job_id, line_number);
CREATE INDEX ix_job_logs_ts ON job_logs (ts, id);

CREATE TABLE tickets (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    ticket_id   TEXT    NOT NULL UNIQUE,
    job_id      INTEGER REFERENCES jobs (id) ON DELETE RESTRICT,
    user_id     INTEGER NOT NULL REFERENCES users (id) ON DELETE RESTRICT,
    assigned_to INTEGER REFERENCES users (id) ON DELETE SET NULL,
    title       TEXT    NOT NULL,
    description TEXT,
    status      TEXT    NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'in_progress', 'resolved', 'closed')),
    priority    TEXT    NOT NULL DEFAULT 'medium' CHECK (priority IN ('low', 'medium', 'high', 'critical')),
    resolution  TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    resolved_at INTEGER,
    closed_at   INTEGER
) STRICT;
CREATE INDEX ix_tickets_status ON tickets (status, created_at, id);
CREATE INDEX ix_tickets_job ON tickets (job_id);
CREATE INDEX ix_tickets_user ON tickets (user_id, created_at, id);
CREATE INDEX ix_tickets_assigned ON tickets (assigned_to, status, id);

-- Who changed what. Rows are added and, once they are old enough, removed. Nothing changes one.
CREATE TABLE audit_logs (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id       INTEGER REFERENCES users (id) ON DELETE SET NULL,
    action        TEXT    NOT NULL,
    resource_type TEXT    NOT NULL,
    resource_id   TEXT    NOT NULL DEFAULT '',
    details       TEXT    CHECK (details IS NULL OR json_valid(details)),
    ip_address    TEXT,
    ts            INTEGER NOT NULL
) STRICT;
CREATE INDEX ix_audit_resource ON audit_logs (resource_type, resource_id, id);
CREATE INDEX ix_audit_user ON audit_logs (user_id, id);
CREATE INDEX ix_audit_ts ON audit_logs (ts, id);
