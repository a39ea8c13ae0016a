-- The replication tables. See ../NOTES.md for the rules. Times are UTC with milliseconds, sizes are bytes.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it.
SET foreign_key_checks = 0;

CREATE TABLE IF NOT EXISTS oma_meta (
    name  VARCHAR(191) NOT NULL,
    value MEDIUMTEXT   NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- A cloud that volumes live in. Its keys are not stored here: credential_ref says where they are.
CREATE TABLE IF NOT EXISTS ossea_configs (
    id                  BIGINT       NOT NULL AUTO_INCREMENT,
    name                VARCHAR(191) NOT NULL,
    api_url             MEDIUMTEXT   NOT NULL,
    credential_ref      MEDIUMTEXT,
    domain              MEDIUMTEXT,
    zone                VARCHAR(191) NOT NULL,
    template_id         VARCHAR(191),
    network_id          VARCHAR(191),
    service_offering_id VARCHAR(191),
    disk_offering_id    VARCHAR(191),
    oma_vm_id           VARCHAR(191),
    is_active           BIGINT       NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_at          DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at          DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_configs_name (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS schedules (
    id                  VARCHAR(191) NOT NULL,
    name                VARCHAR(191) NOT NULL,
    description         MEDIUMTEXT,
    cron_expression     VARCHAR(191) NOT NULL,
    timezone            VARCHAR(191) NOT NULL DEFAULT 'UTC',
    replication_type    VARCHAR(32)  NOT NULL DEFAULT 'incremental'
        CHECK (replication_type IN ('initial', 'incremental')),
    max_concurrent_jobs BIGINT       NOT NULL DEFAULT 1 CHECK (max_concurrent_jobs BETWEEN 1 AND 100),
    retry_attempts      BIGINT       NOT NULL DEFAULT 3 CHECK (retry_attempts >= 0),
    retry_delay_minutes BIGINT       NOT NULL DEFAULT 30 CHECK (retry_delay_minutes >= 0),
    skip_if_running     BIGINT       NOT NULL DEFAULT 1 CHECK (skip_if_running IN (0, 1)),
    enabled             BIGINT       NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    created_by          VARCHAR(191) NOT NULL DEFAULT 'system',
    created_at          DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at          DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_schedules_name (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- A VM, from its discovery on. Its identity is (vmware_vm_id, vcenter_host): instance UUID and source endpoint.
CREATE TABLE IF NOT EXISTS vm_replication_contexts (
    context_id             VARCHAR(64)  NOT NULL,
    vmware_vm_id           VARCHAR(64)  NOT NULL,
    vcenter_host           VARCHAR(191) NOT NULL,
    vm_name                MEDIUMTEXT   NOT NULL,
    vm_path                VARCHAR(500) NOT NULL,
    datacenter             MEDIUMTEXT,
    current_status         VARCHAR(32)  NOT NULL DEFAULT 'discovered'
        CHECK (current_status IN ('discovered', 'replicating', 'ready_for_failover', 'failed_over_test', 'failed_over_live', 'completed', 'failed', 'cleanup_required')),
    epoch                  BIGINT       NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    current_job_id         VARCHAR(191),
    last_successful_job_id VARCHAR(191),
    total_jobs_run         BIGINT       NOT NULL DEFAULT 0,
    successful_jobs        BIGINT       NOT NULL DEFAULT 0,
    failed_jobs            BIGINT       NOT NULL DEFAULT 0,
    ossea_config_id        BIGINT,
    created_at             DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at             DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    last_status_change     DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (context_id),
    UNIQUE KEY ux_contexts_identity (vmware_vm_id, vcenter_host),
    KEY ix_contexts_status (current_status),
    KEY ix_contexts_path (vm_path, created_at, context_id),
    KEY ix_contexts_current_job (current_job_id),
    KEY ix_contexts_last_job (last_successful_job_id),
    KEY ix_contexts_config (ossea_config_id),
    CONSTRAINT fk_contexts_current_job FOREIGN KEY (current_job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL,
    CONSTRAINT fk_contexts_last_job FOREIGN KEY (last_successful_job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL,
    CONSTRAINT fk_contexts_config FOREIGN KEY (ossea_config_id) REFERENCES ossea_configs (id) ON DELETE RESTRICT
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- seq is the order of insertion. owner, fence and due_at are the lease: due_at is when anybody may take the job up.
CREATE TABLE IF NOT EXISTS replication_jobs (
    seq               BIGINT       NOT NULL AUTO_INCREMENT,
    id                VARCHAR(191) NOT NULL,
    vm_context_id     VARCHAR(64)  NOT NULL,
    source_vm_id      VARCHAR(64)  NOT NULL,
    source_vm_name    MEDIUMTEXT   NOT NULL,
    source_vm_path    VARCHAR(500) NOT NULL,
    vcenter_host      VARCHAR(191) NOT NULL,
    datacenter        MEDIUMTEXT,
    replication_type  VARCHAR(32)  NOT NULL CHECK (replication_type IN ('initial', 'incremental')),
    priority          BIGINT       NOT NULL DEFAULT 0,
    target            VARCHAR(191),
    target_network    MEDIUMTEXT,
    status            VARCHAR(32)  NOT NULL DEFAULT 'initializing'
        CHECK (status IN ('initializing', 'provisioning', 'ready', 'replicating', 'finalizing', 'completed', 'failed', 'cancelled')),
    live              BIGINT
        GENERATED ALWAYS AS (CASE WHEN status NOT IN ('completed', 'failed', 'cancelled') THEN 1 END) STORED,
    epoch             BIGINT       NOT NULL CHECK (epoch > 0),
    disk_ids          LONGTEXT     NOT NULL CHECK (JSON_VALID(disk_ids)),
    bytes_transferred BIGINT       NOT NULL DEFAULT 0 CHECK (bytes_transferred >= 0),
    total_bytes       BIGINT       NOT NULL DEFAULT 0 CHECK (total_bytes >= 0),
    progress_percent  DOUBLE       GENERATED ALWAYS AS (CASE
        WHEN status = 'completed' THEN 100e0
        WHEN total_bytes = 0 THEN 0e0
        WHEN bytes_transferred >= total_bytes THEN 100e0
        ELSE 100e0 * bytes_transferred / total_bytes END) VIRTUAL,
    error_message     MEDIUMTEXT,
    commit_digest     VARCHAR(191),
    ossea_config_id   BIGINT,
    schedule_id       VARCHAR(191),
    owner             VARCHAR(191),
    fence             BIGINT       NOT NULL DEFAULT 0 CHECK (fence >= 0),
    attempts          BIGINT       NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at            DATETIME(3),
    created_at        DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at        DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    started_at        DATETIME(3),
    completed_at      DATETIME(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_jobs_seq (seq),
    UNIQUE KEY ux_jobs_live (vm_context_id, live),
    KEY ix_jobs_context (vm_context_id, seq),
    KEY ix_jobs_due (due_at, seq),
    KEY ix_jobs_path (source_vm_path),
    KEY ix_jobs_config (ossea_config_id),
    KEY ix_jobs_schedule (schedule_id),
    KEY ix_jobs_queue (live, priority DESC, seq, status),
    KEY ix_jobs_owner (owner, due_at),
    KEY ix_jobs_ended (completed_at, status, bytes_transferred),
    CONSTRAINT fk_jobs_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    CONSTRAINT fk_jobs_config FOREIGN KEY (ossea_config_id) REFERENCES ossea_configs (id) ON DELETE RESTRICT,
    CONSTRAINT fk_jobs_schedule FOREIGN KEY (schedule_id) REFERENCES schedules (id) ON DELETE SET NULL,
    CHECK ((due_at IS NULL) = (status IN ('completed', 'failed', 'cancelled'))),
    CHECK ((completed_at IS NULL) = (due_at IS NOT NULL)),
    CHECK (owner IS NULL OR due_at IS NOT NULL)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- A volume in the cloud or on this machine. A deleted one stays as a row of status 'deleted', which nothing answers for.
CREATE TABLE IF NOT EXISTS ossea_volumes (
    id              BIGINT       NOT NULL AUTO_INCREMENT,
    volume_id       VARCHAR(64)  NOT NULL,
    volume_name     MEDIUMTEXT   NOT NULL,
    vm_context_id   VARCHAR(64)  NOT NULL,
    disk_id         VARCHAR(64)  NOT NULL,
    capacity_bytes  BIGINT       NOT NULL CHECK (capacity_bytes >= 0),
    size_gb         BIGINT       GENERATED ALWAYS AS ((capacity_bytes + 1073741823) DIV 1073741824) VIRTUAL,
    generation      BIGINT       NOT NULL CHECK (generation > 0),
    content         VARCHAR(32)  NOT NULL CHECK (content IN ('blank', 'inconsistent', 'epoch')),
    content_epoch   BIGINT       CHECK (content_epoch >= 0),
    content_stamp   MEDIUMTEXT,
    status          VARCHAR(32)  NOT NULL
        CHECK (status IN ('creating', 'created', 'attached', 'detached', 'condemned', 'deleting', 'deleted')),
    device_path     VARCHAR(500),
    mount_point     MEDIUMTEXT,
    volume_type     VARCHAR(191) NOT NULL DEFAULT 'DATADISK',
    ossea_config_id BIGINT,
    created_at      DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at      DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_volumes_volume (volume_id),
    KEY ix_volumes_disk (vm_context_id, disk_id),
    KEY ix_volumes_config (ossea_config_id),
    CONSTRAINT fk_volumes_config FOREIGN KEY (ossea_config_id) REFERENCES ossea_configs (id) ON DELETE RESTRICT,
    CONSTRAINT fk_volumes_disk FOREIGN KEY (vm_context_id, disk_id) REFERENCES vm_disks (vm_context_id, disk_id) ON DELETE RESTRICT,
    CHECK ((content = 'epoch') = (content_epoch IS NOT NULL))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- A disk of a VM, whichever job has it now. generation is the last one given to any volume of it.
CREATE TABLE IF NOT EXISTS vm_disks (
    id                    BIGINT       NOT NULL AUTO_INCREMENT,
    vm_context_id         VARCHAR(64)  NOT NULL,
    job_id                VARCHAR(191),
    disk_id               VARCHAR(64)  NOT NULL,
    vm_dk_path            MEDIUMTEXT   NOT NULL,
    datastore             MEDIUMTEXT,
    unit_number           BIGINT       CHECK (unit_number BETWEEN 0 AND 4294967295),
    label                 MEDIUMTEXT   NOT NULL DEFAULT (''),
    capacity_bytes        BIGINT       NOT NULL CHECK (capacity_bytes > 0),
    size_gb               BIGINT       GENERATED ALWAYS AS ((capacity_bytes + 1073741823) DIV 1073741824) VIRTUAL,
    provisioning_type     VARCHAR(191),
    ossea_volume_id       BIGINT,
    generation            BIGINT       NOT NULL DEFAULT 0 CHECK (generation >= 0),
    disk_change_id        VARCHAR(255),
    change_generation     BIGINT,
    change_endpoint       VARCHAR(191),
    epoch                 BIGINT       NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    sync_status           VARCHAR(32)  NOT NULL DEFAULT 'pending'
        CHECK (sync_status IN ('pending', 'syncing', 'completed', 'failed')),
    planned_bytes         BIGINT       NOT NULL DEFAULT 0 CHECK (planned_bytes >= 0),
    bytes_synced          BIGINT       NOT NULL DEFAULT 0 CHECK (bytes_synced >= 0),
    sync_progress_percent DOUBLE       GENERATED ALWAYS AS (CASE
        WHEN sync_status = 'completed' THEN 100e0
        WHEN planned_bytes = 0 THEN 0e0
        WHEN bytes_synced >= planned_bytes THEN 100e0
        ELSE 100e0 * bytes_synced / planned_bytes END) VIRTUAL,
    created_at            DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at            DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_disks_volume (ossea_volume_id),
    UNIQUE KEY ux_disks_key (vm_context_id, disk_id),
    UNIQUE KEY ux_disks_job (job_id, disk_id),
    CONSTRAINT fk_disks_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    CONSTRAINT fk_disks_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL,
    CONSTRAINT fk_disks_volume FOREIGN KEY (ossea_volume_id) REFERENCES ossea_volumes (id) ON DELETE SET NULL,
    CHECK ((disk_change_id IS NULL) = (change_generation IS NULL)),
    CHECK ((disk_change_id IS NULL) = (change_endpoint IS NULL)),
    CHECK ((disk_change_id IS NULL) = (epoch = 0))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Which local device is which volume. The RESTRICT keeps a volume's record while a device shows it.
CREATE TABLE IF NOT EXISTS device_mappings (
    id                BIGINT       NOT NULL AUTO_INCREMENT,
    volume_uuid       VARCHAR(64)  NOT NULL,
    volume_id_numeric BIGINT,
    vm_id             VARCHAR(191) NOT NULL DEFAULT '',
    device_path       VARCHAR(500) NOT NULL,
    size              BIGINT       NOT NULL CHECK (size >= 0),
    created_at        DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at        DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_mappings_volume (volume_uuid),
    UNIQUE KEY ux_mappings_device (vm_id, device_path),
    CONSTRAINT fk_mappings_volume FOREIGN KEY (volume_uuid) REFERENCES ossea_volumes (volume_id) ON DELETE RESTRICT
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What was asked of the backend, of which volume, and which volume that made. job_id stays when the job is deleted.
CREATE TABLE IF NOT EXISTS volume_operations (
    id              VARCHAR(64)  NOT NULL,
    type            VARCHAR(32)  NOT NULL
        CHECK (type IN ('create', 'attach', 'detach', 'delete', 'resize', 'snapshot', 'revert')),
    status          VARCHAR(32)  NOT NULL
        CHECK (status IN ('pending', 'executing', 'completed', 'failed', 'cancelled')),
    vm_context_id   VARCHAR(64)  NOT NULL,
    disk_id         VARCHAR(64)  NOT NULL,
    job_id          VARCHAR(191) NOT NULL,
    ossea_volume_id BIGINT,
    made_volume_id  BIGINT,
    capacity_bytes  BIGINT       CHECK (capacity_bytes >= 0),
    error           MEDIUMTEXT,
    created_at      DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at      DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    completed_at    DATETIME(3),
    unfinished      BIGINT       GENERATED ALWAYS AS (CASE WHEN status IN ('pending', 'executing') THEN 1 END) STORED,
    PRIMARY KEY (id),
    UNIQUE KEY ux_operations_unfinished (vm_context_id, disk_id, unfinished),
    KEY ix_operations_disk (vm_context_id, disk_id),
    KEY ix_operations_volume (ossea_volume_id),
    KEY ix_operations_made (made_volume_id),
    CONSTRAINT fk_operations_volume FOREIGN KEY (ossea_volume_id) REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    CONSTRAINT fk_operations_made FOREIGN KEY (made_volume_id) REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    CONSTRAINT fk_operations_disk FOREIGN KEY (vm_context_id, disk_id) REFERENCES vm_disks (vm_context_id, disk_id) ON DELETE CASCADE,
    CHECK ((completed_at IS NULL) = (status IN ('pending', 'executing')))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS nbd_exports (
    id                  BIGINT       NOT NULL AUTO_INCREMENT,
    job_id              VARCHAR(191) NOT NULL,
    vm_disk_id          BIGINT       NOT NULL,
    device_mapping_uuid VARCHAR(64)  NOT NULL,
    export_name         VARCHAR(191) NOT NULL,
    port                BIGINT,
    device_path         VARCHAR(500),
    config_path         MEDIUMTEXT,
    status              VARCHAR(32)  NOT NULL DEFAULT 'starting'
        CHECK (status IN ('starting', 'running', 'draining', 'stopped')),
    created_at          DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at          DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_exports_name (export_name),
    KEY ix_exports_job (job_id),
    KEY ix_exports_disk (vm_disk_id),
    KEY ix_exports_mapping (device_mapping_uuid),
    CONSTRAINT fk_exports_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE CASCADE,
    CONSTRAINT fk_exports_disk FOREIGN KEY (vm_disk_id) REFERENCES vm_disks (id) ON DELETE CASCADE,
    CONSTRAINT fk_exports_mapping FOREIGN KEY (device_mapping_uuid) REFERENCES device_mappings (volume_uuid) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Which unit of which VM is exported under which name: always what nbd_exports says.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW vm_export_mappings AS
SELECT e.id AS id, c.vmware_vm_id AS vm_id, d.unit_number AS disk_unit_number, c.vm_name AS vm_name,
       e.export_name AS export_name, m.device_path AS device_path,
       CASE e.status WHEN 'stopped' THEN 'inactive' ELSE 'active' END AS status,
       e.job_id AS job_id, e.created_at AS created_at, e.updated_at AS updated_at
FROM nbd_exports e
JOIN vm_disks d ON d.id = e.vm_disk_id
JOIN vm_replication_contexts c ON c.context_id = d.vm_context_id
JOIN device_mappings m ON m.volume_uuid = e.device_mapping_uuid;

CREATE TABLE IF NOT EXISTS cbt_history (
    id                    BIGINT       NOT NULL AUTO_INCREMENT,
    vm_context_id         VARCHAR(64)  NOT NULL,
    job_id                VARCHAR(191) NOT NULL,
    disk_id               VARCHAR(64)  NOT NULL,
    change_id             VARCHAR(255) NOT NULL,
    previous_change_id    VARCHAR(255),
    sync_type             VARCHAR(32)  NOT NULL CHECK (sync_type IN ('initial', 'incremental')),
    blocks_changed        BIGINT       NOT NULL DEFAULT 0 CHECK (blocks_changed >= 0),
    bytes_transferred     BIGINT       NOT NULL DEFAULT 0 CHECK (bytes_transferred >= 0),
    sync_duration_seconds BIGINT,
    sync_success          BIGINT       NOT NULL DEFAULT 0 CHECK (sync_success IN (0, 1)),
    created_at            DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_history_job (job_id, disk_id),
    KEY ix_history_disk (vm_context_id, disk_id, id),
    CONSTRAINT fk_history_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    CONSTRAINT fk_history_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The journal of finished extents: what it is about, and one row per run of finished bytes, none touching another.
CREATE TABLE IF NOT EXISTS disk_journals (
    vm_disk_id BIGINT      NOT NULL,
    basis      LONGTEXT    NOT NULL CHECK (JSON_VALID(basis)),
    planned    LONGTEXT    NOT NULL CHECK (JSON_VALID(planned)),
    created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (vm_disk_id),
    CONSTRAINT fk_journals_disk FOREIGN KEY (vm_disk_id) REFERENCES vm_disks (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS disk_journal_extents (
    vm_disk_id   BIGINT NOT NULL,
    start_offset BIGINT NOT NULL CHECK (start_offset >= 0),
    end_offset   BIGINT NOT NULL,
    PRIMARY KEY (vm_disk_id, start_offset),
    CONSTRAINT fk_extents_journal FOREIGN KEY (vm_disk_id) REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE,
    CHECK (end_offset > start_offset)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS failover_jobs (
    id                 BIGINT       NOT NULL AUTO_INCREMENT,
    job_id             VARCHAR(191) NOT NULL,
    vm_context_id      VARCHAR(64)  NOT NULL,
    vm_id              VARCHAR(191) NOT NULL,
    replication_job_id VARCHAR(191),
    job_type           VARCHAR(32)  NOT NULL CHECK (job_type IN ('live', 'test')),
    status             VARCHAR(32)  NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'validating', 'snapshotting', 'creating_vm', 'switching_volume', 'powering_on', 'completed', 'reverting', 'reverted', 'failed', 'cleanup')),
    source_vm_name     MEDIUMTEXT   NOT NULL,
    source_vm_spec     LONGTEXT     CHECK (source_vm_spec IS NULL OR JSON_VALID(source_vm_spec)),
    destination_vm_id  VARCHAR(191),
    ossea_snapshot_id  VARCHAR(191),
    network_mappings   LONGTEXT     CHECK (network_mappings IS NULL OR JSON_VALID(network_mappings)),
    error_message      MEDIUMTEXT,
    created_at         DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at         DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    started_at         DATETIME(3),
    completed_at       DATETIME(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_failovers_job (job_id),
    KEY ix_failovers_context (vm_context_id),
    KEY ix_failovers_job (replication_job_id),
    CONSTRAINT fk_failovers_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    CONSTRAINT fk_failovers_job FOREIGN KEY (replication_job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS network_mappings (
    id                       BIGINT       NOT NULL AUTO_INCREMENT,
    vm_context_id            VARCHAR(64)  NOT NULL,
    source_network_name      VARCHAR(255) NOT NULL,
    destination_network_id   VARCHAR(191) NOT NULL,
    destination_network_name MEDIUMTEXT   NOT NULL,
    is_test_network          BIGINT       NOT NULL DEFAULT 0 CHECK (is_test_network IN (0, 1)),
    created_at               DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at               DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_networks_source (vm_context_id, source_network_name, is_test_network),
    CONSTRAINT fk_networks_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS job_steps (
    id            BIGINT       NOT NULL AUTO_INCREMENT,
    job_id        VARCHAR(191) NOT NULL,
    name          MEDIUMTEXT   NOT NULL,
    seq           BIGINT       NOT NULL,
    status        VARCHAR(32)  NOT NULL DEFAULT 'running'
        CHECK (status IN ('running', 'completed', 'failed', 'skipped')),
    error_message MEDIUMTEXT,
    metadata      LONGTEXT     CHECK (metadata IS NULL OR JSON_VALID(metadata)),
    started_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    completed_at  DATETIME(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_steps_job (job_id, seq),
    CONSTRAINT fk_steps_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS log_events (
    id      BIGINT       NOT NULL AUTO_INCREMENT,
    job_id  VARCHAR(191),
    step_id BIGINT,
    level   VARCHAR(32)  NOT NULL CHECK (level IN ('DEBUG', 'INFO', 'WARN', 'ERROR')),
    message MEDIUMTEXT   NOT NULL,
    attrs   LONGTEXT     CHECK (attrs IS NULL OR JSON_VALID(attrs)),
    ts      DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    KEY ix_log_job (job_id, id),
    KEY ix_log_step (step_id),
    KEY ix_log_ts (ts, id),
    KEY ix_log_level (level, id),
    CONSTRAINT fk_log_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL,
    CONSTRAINT fk_log_step FOREIGN KEY (step_id) REFERENCES job_steps (id) ON DELETE SET NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

SET foreign_key_checks = 1;
