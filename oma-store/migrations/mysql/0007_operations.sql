-- Operations that an operator asks for: what exactly is wanted, and when a delete is due; volumes that ever held an epoch.
-- See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it. It knows
-- no ADD COLUMN IF NOT EXISTS, as MariaDB does, and a CHECK of a column is taken away by its name, which engines choose: so the
-- table is made anew.

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'ossea_volumes' AND column_name = 'held_epoch');
SET @text = IF(@lacks, 'ALTER TABLE ossea_volumes ADD COLUMN held_epoch BIGINT NOT NULL DEFAULT 0 CHECK (held_epoch IN (0, 1))', 'DO 0');
PREPARE step FROM @text;
EXECUTE step;
DEALLOCATE PREPARE step;
-- Of those of before it is not known.
UPDATE ossea_volumes SET held_epoch = 1 WHERE content <> 'blank';

-- unfinished is NULL once the operation has ended. due_at is when a pending one may be executed.
SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'volume_operations' AND column_name = 'due_at');
SET @text = IF(@lacks, 'DROP TABLE IF EXISTS volume_operations_2', 'DO 0');
PREPARE step FROM @text;
EXECUTE step;
DEALLOCATE PREPARE step;
SET @text = IF(@lacks, 'CREATE TABLE volume_operations_2 (
    id              VARCHAR(64)  NOT NULL,
    type            VARCHAR(32)  NOT NULL
        CHECK (type IN (''create'', ''attach'', ''detach'', ''delete'', ''resize'', ''snapshot'', ''revert'', ''delete_snapshot'')),
    status          VARCHAR(32)  NOT NULL
        CHECK (status IN (''pending'', ''executing'', ''completed'', ''failed'', ''cancelled'')),
    vm_context_id   VARCHAR(64)  NOT NULL,
    disk_id         VARCHAR(64)  NOT NULL,
    job_id          VARCHAR(191) NOT NULL,
    ossea_volume_id BIGINT,
    made_volume_id  BIGINT,
    capacity_bytes  BIGINT       CHECK (capacity_bytes >= 0),
    volume_name     MEDIUMTEXT,
    provisioning    VARCHAR(32)  CHECK (provisioning IN (''thin'', ''thick'')),
    snapshot_id     VARCHAR(191),
    error           MEDIUMTEXT,
    due_at          DATETIME(3),
    created_at      DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at      DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    completed_at    DATETIME(3),
    unfinished      BIGINT       GENERATED ALWAYS AS (CASE WHEN status IN (''pending'', ''executing'') THEN 1 END) STORED,
    PRIMARY KEY (id),
    UNIQUE KEY ux_operations_unfinished (vm_context_id, disk_id, unfinished),
    KEY ix_operations_unfinished (unfinished),
    KEY ix_operations_disk (vm_context_id, disk_id),
    KEY ix_operations_created (created_at, id),
    KEY ix_operations_volume (ossea_volume_id),
    KEY ix_operations_made (made_volume_id),
    CONSTRAINT fk_volume_operations_volume FOREIGN KEY (ossea_volume_id) REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    CONSTRAINT fk_volume_operations_made FOREIGN KEY (made_volume_id) REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    CONSTRAINT fk_volume_operations_disk FOREIGN KEY (vm_context_id, disk_id) REFERENCES vm_disks (vm_context_id, disk_id) ON DELETE CASCADE,
    CHECK ((completed_at IS NULL) = (status IN (''pending'', ''executing'')))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin', 'DO 0');
PREPARE step FROM @text;
EXECUTE step;
DEALLOCATE PREPARE step;
SET @text = IF(@lacks, 'INSERT INTO volume_operations_2 (id, type, status, vm_context_id, disk_id, job_id, ossea_volume_id, made_volume_id,
    capacity_bytes, error, created_at, updated_at, completed_at)
SELECT id, type, status, vm_context_id, disk_id, job_id, ossea_volume_id, made_volume_id, capacity_bytes, error, created_at,
    updated_at, completed_at FROM volume_operations', 'DO 0');
PREPARE step FROM @text;
EXECUTE step;
DEALLOCATE PREPARE step;
SET @text = IF(@lacks, 'RENAME TABLE volume_operations TO volume_operations_1, volume_operations_2 TO volume_operations', 'DO 0');
PREPARE step FROM @text;
EXECUTE step;
DEALLOCATE PREPARE step;
DROP TABLE IF EXISTS volume_operations_1;
