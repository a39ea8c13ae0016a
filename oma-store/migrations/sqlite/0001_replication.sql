-- The replication tables. See ../NOTES.md for the rules. Times are milliseconds UTC, sizes are bytes.

CREATE TABLE oma_meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- A cloud that volumes live in. Its keys are not stored here: credential_ref says where they are.
CREATE TABLE ossea_configs (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    name                TEXT    NOT NULL UNIQUE,
    api_url             TEXT    NOT NULL,
    credential_ref      TEXT,
    domain              TEXT,
    zone                TEXT    NOT NULL,
    template_id         TEXT,
    network_id          TEXT,
    service_offering_id TEXT,
    disk_offering_id    TEXT,
    oma_vm_id           TEXT,
    is_active           INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;

CREATE TABLE schedules (
    id                  TEXT    NOT NULL PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,
    description         TEXT,
    cron_expression     TEXT    NOT NULL,
    timezone            TEXT    NOT NULL DEFAULT 'UTC',
    replication_type    TEXT    NOT NULL DEFAULT 'incremental' CHECK (replication_type IN ('initial', 'incremental')),
    max_concurrent_jobs INTEGER NOT NULL DEFAULT 1 CHECK (max_concurrent_jobs BETWEEN 1 AND 100),
    retry_attempts      INTEGER NOT NULL DEFAULT 3 CHECK (retry_attempts >= 0),
    retry_delay_minutes INTEGER NOT NULL DEFAULT 30 CHECK (retry_delay_minutes >= 0),
    skip_if_running     INTEGER NOT NULL DEFAULT 1 CHECK (skip_if_running IN (0, 1)),
    enabled             INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    created_by          TEXT    NOT NULL DEFAULT 'system',
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;

-- A VM, from its discovery on. Its identity is (vmware_vm_id, vcenter_host): instance UUID and source endpoint.
CREATE TABLE vm_replication_contexts (
    context_id             TEXT    NOT NULL PRIMARY KEY,
    vmware_vm_id           TEXT    NOT NULL,
    vcenter_host           TEXT    NOT NULL,
    vm_name                TEXT    NOT NULL,
    vm_path                TEXT    NOT NULL,
    datacenter             TEXT,
    current_status         TEXT    NOT NULL DEFAULT 'discovered'
        CHECK (current_status IN ('discovered', 'replicating', 'ready_for_failover', 'failed_over_test', 'failed_over_live', 'completed', 'failed', 'cleanup_required')),
    epoch                  INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    current_job_id         TEXT    REFERENCES replication_jobs (id) ON DELETE SET NULL,
    last_successful_job_id TEXT    REFERENCES replication_jobs (id) ON DELETE SET NULL,
    total_jobs_run         INTEGER NOT NULL DEFAULT 0,
    successful_jobs        INTEGER NOT NULL DEFAULT 0,
    failed_jobs            INTEGER NOT NULL DEFAULT 0,
    ossea_config_id        INTEGER REFERENCES ossea_configs (id) ON DELETE RESTRICT,
    created_at             INTEGER NOT NULL,
    updated_at             INTEGER NOT NULL,
    last_status_change     INTEGER NOT NULL,
    UNIQUE (vmware_vm_id, vcenter_host)
) STRICT;
CREATE INDEX ix_contexts_path ON vm_replication_contexts (vm_path, created_at, context_id);
CREATE INDEX ix_contexts_current_job ON vm_replication_contexts (current_job_id);
CREATE INDEX ix_contexts_last_job ON vm_replication_contexts (last_successful_job_id);
CREATE INDEX ix_contexts_config ON vm_replication_contexts (ossea_config_id);

-- seq is the order of insertion. owner, fence and due_at are the lease: due_at is when anybody may take the job up.
CREATE TABLE replication_jobs (
    seq               INTEGER PRIMARY KEY AUTOINCREMENT,
    id                TEXT    NOT NULL UNIQUE,
    vm_context_id     TEXT    NOT NULL REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    source_vm_id      TEXT    NOT NULL,
    source_vm_name    TEXT    NOT NULL,
    source_vm_path    TEXT    NOT NULL,
    vcenter_host      TEXT    NOT NULL,
    datacenter        TEXT,
    replication_type  TEXT    NOT NULL CHECK (replication_type IN ('initial', 'incremental')),
    target_network    TEXT,
    status            TEXT    NOT NULL DEFAULT 'initializing'
        CHECK (status IN ('initializing', 'provisioning', 'ready', 'replicating', 'finalizing', 'completed', 'failed', 'cancelled')),
    epoch             INTEGER NOT NULL CHECK (epoch > 0),
    disk_ids          TEXT    NOT NULL CHECK (json_valid(disk_ids)),
    bytes_transferred INTEGER NOT NULL DEFAULT 0 CHECK (bytes_transferred >= 0),
    total_bytes       INTEGER NOT NULL DEFAULT 0 CHECK (total_bytes >= 0),
    progress_percent  REAL    GENERATED ALWAYS AS (CASE
        WHEN status = 'completed' THEN 100.0
        WHEN total_bytes = 0 THEN 0.0
        WHEN bytes_transferred >= total_bytes THEN 100.0
        ELSE 100.0 * bytes_transferred / total_bytes END) VIRTUAL,
    error_message     TEXT,
    commit_digest     TEXT,
    ossea_config_id   INTEGER REFERENCES ossea_configs (id) ON DELETE RESTRICT,
    schedule_id       TEXT    REFERENCES schedules (id) ON DELETE SET NULL,
    owner             TEXT,
    fence             INTEGER NOT NULL DEFAULT 0 CHECK (fence >= 0),
    due_at            INTEGER,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    started_at        INTEGER,
    completed_at      INTEGER,
    CHECK ((due_at IS NULL) = (status IN ('completed', 'failed', 'cancelled'))),
    CHECK ((completed_at IS NULL) = (due_at IS NOT NULL)),
    CHECK (owner IS NULL OR due_at IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX ux_jobs_live ON replication_jobs (vm_context_id)
    WHERE status NOT IN ('completed', 'failed', 'cancelled');
CREATE INDEX ix_jobs_context ON replication_jobs (vm_context_id, seq);
CREATE INDEX ix_jobs_due ON replication_jobs (due_at, seq) WHERE due_at IS NOT NULL;
CREATE INDEX ix_jobs_path ON replication_jobs (source_vm_path);
CREATE INDEX ix_jobs_config ON replication_jobs (ossea_config_id);
CREATE INDEX ix_jobs_schedule ON replication_jobs (schedule_id);

-- A volume in the cloud or on this machine. A deleted one stays as a row of status 'deleted', which nothing answers for.
CREATE TABLE ossea_volumes (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    volume_id       TEXT    NOT NULL UNIQUE,
    volume_name     TEXT    NOT NULL,
    vm_context_id   TEXT    NOT NULL,
    disk_id         TEXT    NOT NULL,
    capacity_bytes  INTEGER NOT NULL CHECK (capacity_bytes >= 0),
    size_gb         INTEGER GENERATED ALWAYS AS ((capacity_bytes + 1073741823) / 1073741824) VIRTUAL,
    generation      INTEGER NOT NULL CHECK (generation > 0),
    content         TEXT    NOT NULL CHECK (content IN ('blank', 'inconsistent', 'epoch')),
    content_epoch   INTEGER CHECK (content_epoch >= 0),
    content_stamp   TEXT,
    status          TEXT    NOT NULL
        CHECK (status IN ('creating', 'created', 'attached', 'detached', 'condemned', 'deleting', 'deleted')),
    device_path     TEXT,
    mount_point     TEXT,
    volume_type     TEXT    NOT NULL DEFAULT 'DATADISK',
    ossea_config_id INTEGER REFERENCES ossea_configs (id) ON DELETE RESTRICT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    FOREIGN KEY (vm_context_id, disk_id) REFERENCES vm_disks (vm_context_id, disk_id) ON DELETE RESTRICT,
    CHECK ((content = 'epoch') = (content_epoch IS NOT NULL))
) STRICT;
CREATE INDEX ix_volumes_disk ON ossea_volumes (vm_context_id, disk_id);
CREATE INDEX ix_volumes_config ON ossea_volumes (ossea_config_id);

-- A disk of a VM, whichever job has it now. generation is the last one given to any volume of it.
CREATE TABLE vm_disks (
    id                    INTEGER PRIMARY KEY AUTOINCREMENT,
    vm_context_id         TEXT    NOT NULL REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    job_id                TEXT    REFERENCES replication_jobs (id) ON DELETE SET NULL,
    disk_id               TEXT    NOT NULL,
    vm_dk_path            TEXT    NOT NULL,
    datastore             TEXT,
    unit_number           INTEGER CHECK (unit_number BETWEEN 0 AND 4294967295),
    label                 TEXT    NOT NULL DEFAULT '',
    capacity_bytes        INTEGER NOT NULL CHECK (capacity_bytes > 0),
    size_gb               INTEGER GENERATED ALWAYS AS ((capacity_bytes + 1073741823) / 1073741824) VIRTUAL,
    provisioning_type     TEXT,
    ossea_volume_id       INTEGER UNIQUE REFERENCES ossea_volumes (id) ON DELETE SET NULL,
    generation            INTEGER NOT NULL DEFAULT 0 CHECK (generation >= 0),
    disk_change_id        TEXT,
    change_generation     INTEGER,
    change_endpoint       TEXT,
    epoch                 INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    sync_status           TEXT    NOT NULL DEFAULT 'pending' CHECK (sync_status IN ('pending', 'syncing', 'completed', 'failed')),
    planned_bytes         INTEGER NOT NULL DEFAULT 0 CHECK (planned_bytes >= 0),
    bytes_synced          INTEGER NOT NULL DEFAULT 0 CHECK (bytes_synced >= 0),
    sync_progress_percent REAL    GENERATED ALWAYS AS (CASE
        WHEN sync_status = 'completed' THEN 100.0
        WHEN planned_bytes = 0 THEN 0.0
        WHEN bytes_synced >= planned_bytes THEN 100.0
        ELSE 100.0 * bytes_synced / planned_bytes END) VIRTUAL,
    created_at            INTEGER NOT NULL,
    updated_at            INTEGER NOT NULL,
    UNIQUE (vm_context_id, disk_id),
    UNIQUE (job_id, disk_id),
    CHECK ((disk_change_id IS NULL) = (change_generation IS NULL)),
    CHECK ((disk_change_id IS NULL) = (change_endpoint IS NULL)),
    CHECK ((disk_change_id IS NULL) = (epoch = 0))
) STRICT;

-- Which local device is which volume. The RESTRICT keeps a volume's record while a device shows it.
CREATE TABLE device_mappings (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    volume_uuid       TEXT    NOT NULL UNIQUE REFERENCES ossea_volumes (volume_id) ON DELETE RESTRICT,
    volume_id_numeric INTEGER,
    vm_id             TEXT,
    device_path       TEXT    NOT NULL UNIQUE,
    size              INTEGER NOT NULL CHECK (size >= 0),
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL
) STRICT;

-- What was asked of the backend, of which volume, and which volume that made. job_id stays when the job is deleted.
CREATE TABLE volume_operations (
    id              TEXT    NOT NULL PRIMARY KEY,
    type            TEXT    NOT NULL CHECK (type IN ('create', 'attach', 'detach', 'delete', 'resize', 'snapshot', 'revert')),
    status          TEXT    NOT NULL CHECK (status IN ('pending', 'executing', 'completed', 'failed', 'cancelled')),
    vm_context_id   TEXT    NOT NULL,
    disk_id         TEXT    NOT NULL,
    job_id          TEXT    NOT NULL,
    ossea_volume_id INTEGER REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    made_volume_id  INTEGER REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    capacity_bytes  INTEGER CHECK (capacity_bytes >= 0),
    error           TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    completed_at    INTEGER,
    FOREIGN KEY (vm_context_id, disk_id) REFERENCES vm_disks (vm_context_id, disk_id) ON DELETE CASCADE,
    CHECK ((completed_at IS NULL) = (status IN ('pending', 'executing')))
) STRICT;
CREATE UNIQUE INDEX ux_operations_unfinished ON volume_operations (vm_context_id, disk_id)
    WHERE status IN ('pending', 'executing');
CREATE INDEX ix_operations_disk ON volume_operations (vm_context_id, disk_id);
CREATE INDEX ix_operations_volume ON volume_operations (ossea_volume_id);
CREATE INDEX ix_operations_made ON volume_operations (made_volume_id);

CREATE TABLE nbd_exports (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id              TEXT    NOT NULL REFERENCES replication_jobs (id) ON DELETE CASCADE,
    vm_disk_id          INTEGER NOT NULL REFERENCES vm_disks (id) ON DELETE CASCADE,
    device_mapping_uuid TEXT    NOT NULL REFERENCES device_mappings (volume_uuid) ON DELETE CASCADE,
    export_name         TEXT    NOT NULL UNIQUE,
    port                INTEGER,
    device_path         TEXT,
    config_path         TEXT,
    status              TEXT    NOT NULL CHECK (status IN ('starting', 'running', 'draining', 'stopped')),
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;
CREATE INDEX ix_exports_job ON nbd_exports (job_id);
CREATE INDEX ix_exports_disk ON nbd_exports (vm_disk_id);
CREATE INDEX ix_exports_mapping ON nbd_exports (device_mapping_uuid);

-- Which unit of which VM is exported under which name: always what nbd_exports says.
CREATE VIEW vm_export_mappings AS
SELECT e.id AS id, c.vmware_vm_id AS vm_id, d.unit_number AS disk_unit_number, c.vm_name AS vm_name,
       e.export_name AS export_name, m.device_path AS device_path,
       CASE e.status WHEN 'stopped' THEN 'inactive' ELSE 'active' END AS status,
       e.job_id AS job_id, e.created_at AS created_at, e.updated_at AS updated_at
FROM nbd_exports e
JOIN vm_disks d ON d.id = e.vm_disk_id
JOIN vm_replication_contexts c ON c.context_id = d.vm_context_id
JOIN device_mappings m ON m.volume_uuid = e.device_mapping_uuid;

CREATE TABLE cbt_history (
    id                    INTEGER PRIMARY KEY AUTOINCREMENT,
    vm_context_id         TEXT    NOT NULL REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    job_id                TEXT    NOT NULL REFERENCES replication_jobs (id) ON DELETE CASCADE,
    disk_id               TEXT    NOT NULL,
    change_id             TEXT    NOT NULL,
    previous_change_id    TEXT,
    sync_type             TEXT    NOT NULL CHECK (sync_type IN ('initial', 'incremental')),
    blocks_changed        INTEGER NOT NULL DEFAULT 0 CHECK (blocks_changed >= 0),
    bytes_transferred     INTEGER NOT NULL DEFAULT 0 CHECK (bytes_transferred >= 0),
    sync_duration_seconds INTEGER,
    sync_success          INTEGER NOT NULL DEFAULT 0 CHECK (sync_success IN (0, 1)),
    created_at            INTEGER NOT NULL,
    UNIQUE (job_id, disk_id)
) STRICT;
CREATE INDEX ix_history_disk ON cbt_history (vm_context_id, disk_id, id);

-- The journal of finished extents: what it is about, and one row per run of finished bytes, none touching another.
CREATE TABLE disk_journals (
    vm_disk_id INTEGER NOT NULL PRIMARY KEY REFERENCES vm_disks (id) ON DELETE CASCADE,
    basis      TEXT    NOT NULL CHECK (json_valid(basis)),
    planned    TEXT    NOT NULL CHECK (json_valid(planned)),
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE disk_journal_extents (
    vm_disk_id   INTEGER NOT NULL REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE,
    start_offset INTEGER NOT NULL CHECK (start_offset >= 0),
    end_offset   INTEGER NOT NULL,
    PRIMARY KEY (vm_disk_id, start_offset),
    CHECK (end_offset > start_offset)
) STRICT, WITHOUT ROWID;

CREATE TABLE failover_jobs (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id             TEXT    NOT NULL UNIQUE,
    vm_context_id      TEXT    NOT NULL REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    vm_id              TEXT    NOT NULL,
    replication_job_id TEXT    REFERENCES replication_jobs (id) ON DELETE SET NULL,
    job_type           TEXT    NOT NULL CHECK (job_type IN ('live', 'test')),
    status             TEXT    NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'validating', 'snapshotting', 'creating_vm', 'switching_volume', 'powering_on', 'completed', 'reverting', 'reverted', 'failed', 'cleanup')),
    source_vm_name     TEXT    NOT NULL,
    source_vm_spec     TEXT    CHECK (source_vm_spec IS NULL OR json_valid(source_vm_spec)),
    destination_vm_id  TEXT,
    ossea_snapshot_id  TEXT,
    network_mappings   TEXT    CHECK (network_mappings IS NULL OR json_valid(network_mappings)),
    error_message      TEXT,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    started_at         INTEGER,
    completed_at       INTEGER
) STRICT;
CREATE INDEX ix_failovers_context ON failover_jobs (vm_context_id);
CREATE INDEX ix_failovers_job ON failover_jobs (replication_job_id);

CREATE TABLE network_mappings (
    id                       INTEGER PRIMARY KEY AUTOINCREMENT,
    vm_context_id            TEXT    NOT NULL REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    source_network_name      TEXT    NOT NULL,
    destination_network_id   TEXT    NOT NULL,
    destination_network_name TEXT    NOT NULL,
    is_test_network          INTEGER NOT NULL DEFAULT 0 CHECK (is_test_network IN (0, 1)),
    created_at               INTEGER NOT NULL,
    updated_at               INTEGER NOT NULL,
    UNIQUE (vm_context_id, source_network_name, is_test_network)
) STRICT;

CREATE TABLE job_steps (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id        TEXT    NOT NULL REFERENCES replication_jobs (id) ON DELETE CASCADE,
    name          TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    status        TEXT    NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'completed', 'failed', 'skipped')),
    error_message TEXT,
    metadata      TEXT    CHECK (metadata IS NULL OR json_valid(metadata)),
    started_at    INTEGER NOT NULL,
    completed_at  INTEGER,
    UNIQUE (job_id, seq)
) STRICT;

CREATE TABLE log_events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id  TEXT    REFERENCES replication_jobs (id) ON DELETE SET NULL,
    step_id INTEGER REFERENCES job_steps (id) ON DELETE SET NULL,
    level   TEXT    NOT NULL CHECK (level IN ('DEBUG', 'INFO', 'WARN', 'ERROR')),
    message TEXT    NOT NULL,
    attrs   TEXT    CHECK (attrs IS NULL OR json_valid(attrs)),
    ts      INTEGER NOT NULL
) STRICT;
CREATE INDEX ix_log_job ON log_events (job_id, id);
CREATE INDEX ix_log_step ON log_events (step_id);
