-- Operations that an operator asks for: what exactly is wanted, and when a delete is due; volumes that ever held an epoch.
-- See ../NOTES.md for the rules.

ALTER TABLE ossea_volumes ADD COLUMN held_epoch BIGINT NOT NULL DEFAULT 0 CHECK (held_epoch IN (0, 1));
-- Of those of before it is not known.
UPDATE ossea_volumes SET held_epoch = 1 WHERE content <> 'blank';

-- unfinished is NULL once the operation has ended. due_at is when a pending one may be executed.
ALTER TABLE volume_operations DROP CONSTRAINT volume_operations_type_check;
ALTER TABLE volume_operations ADD CONSTRAINT volume_operations_type_check
    CHECK (type IN ('create', 'attach', 'detach', 'delete', 'resize', 'snapshot', 'revert', 'delete_snapshot'));
ALTER TABLE volume_operations ADD COLUMN volume_name TEXT COLLATE "C";
ALTER TABLE volume_operations ADD COLUMN provisioning TEXT COLLATE "C" CHECK (provisioning IN ('thin', 'thick'));
ALTER TABLE volume_operations ADD COLUMN snapshot_id TEXT COLLATE "C";
ALTER TABLE volume_operations ADD COLUMN due_at TIMESTAMPTZ(3);
ALTER TABLE volume_operations ADD COLUMN unfinished BIGINT
    GENERATED ALWAYS AS (CASE WHEN status IN ('pending', 'executing') THEN 1 END) STORED;
DROP INDEX ux_operations_unfinished;
CREATE UNIQUE INDEX ux_operations_unfinished ON volume_operations (vm_context_id, disk_id, unfinished);
CREATE INDEX ix_operations_unfinished ON volume_operations (unfinished);
CREATE INDEX ix_operations_created ON volume_operations (created_at, id);
