-- Operations that an operator asks for: what exactly is wanted, and when a delete is due; volumes that ever held an epoch.
-- See ../NOTES.md for the rules.

ALTER TABLE ossea_volumes ADD COLUMN held_epoch INTEGER NOT NULL DEFAULT 0 CHECK (held_epoch IN (0, 1));
-- Of those of before it is not known.
UPDATE ossea_volumes SET held_epoch = 1 WHERE content <> 'blank';

-- unfinished is NULL once the operation has ended. due_at is when a pending one may be executed.
CREATE TABLE volume_operations_2 (
    id              TEXT    NOT NULL PRIMARY KEY,
    type            TEXT    NOT NULL
        CHECK (type IN ('create', 'attach', 'detach', 'delete', 'resize', 'snapshot', 'revert', 'delete_snapshot')),
    status          TEXT    NOT NULL CHECK (status IN ('pending', 'executing', 'completed', 'failed', 'cancelled')),
    vm_context_id   TEXT    NOT NULL,
    disk_id         TEXT    NOT NULL,
    job_id          TEXT    NOT NULL,
    ossea_volume_id INTEGER REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    made_volume_id  INTEGER REFERENCES ossea_volumes (id) ON DELETE RESTRICT,
    capacity_bytes  INTEGER CHECK (capacity_bytes >= 0),
    volume_name     TEXT,
    provisioning    TEXT    CHECK (provisioning IN ('thin', 'thick')),
    snapshot_id     TEXT,
    error           TEXT,
    due_at          INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    completed_at    INTEGER,
    unfinished      INTEGER GENERATED ALWAYS AS (CASE WHEN status IN ('pending', 'executing') THEN 1 END) VIRTUAL,
    FOREIGN KEY (vm_context_id, disk_id) REFERENCES vm_disks (vm_context_id, disk_id) ON DELETE CASCADE,
    CHECK ((completed_at IS NULL) = (status IN ('pending', 'executing')))
) STRICT;
INSERT INTO volume_operations_2 (id, type, status, vm_context_id, disk_id, job_id, ossea_volume_id, made_volume_id, capacity_bytes,
                                 error, created_at, updated_at, completed_at)
SELECT id, type, status, vm_context_id, disk_id, job_id, ossea_volume_id, made_volume_id, capacity_bytes, error, created_at,
       updated_at, completed_at FROM volume_operations;
DROP TABLE volume_operations;
ALTER TABLE volume_operations_2 RENAME TO volume_operations;
CREATE UNIQUE INDEX ux_operations_unfinished ON volume_operations (vm_context_id, disk_id, unfinished);
CREATE INDEX ix_operations_unfinished ON volume_operations (unfinished);
CREATE INDEX ix_operations_disk ON volume_operations (vm_context_id, disk_id);
CREATE INDEX ix_operations_created ON volume_operations (created_at, id);
CREATE INDEX ix_operations_volume ON volume_operations (ossea_volume_id);
CREATE INDEX ix_operations_made ON volume_operations (made_volume_id);
