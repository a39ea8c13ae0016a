-- Recovery points. See ../NOTES.md for the rules.

-- Snapshots of all volumes of a VM at one epoch: which they are, each with all that it was made with.
CREATE TABLE recovery_points (
    id            TEXT    NOT NULL PRIMARY KEY,
    vm_context_id TEXT    NOT NULL REFERENCES vm_replication_contexts (context_id) ON DELETE RESTRICT,
    job_id        TEXT    NOT NULL,
    epoch         INTEGER NOT NULL CHECK (epoch >= 0),
    status        TEXT    NOT NULL CHECK (status IN ('creating', 'taken', 'ready', 'deleting')),
    volumes       TEXT    NOT NULL CHECK (json_valid(volumes)),
    reason        TEXT,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX ix_points_context ON recovery_points (vm_context_id, epoch, id);
CREATE INDEX ix_points_job ON recovery_points (job_id);
