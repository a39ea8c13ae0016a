-- Cleanups of jobs: what was planned, and what became of each step. See ../NOTES.md for the rules.

CREATE TABLE cleanups (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    job_id        TEXT    NOT NULL,
    vm_context_id TEXT    NOT NULL REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
    worker        TEXT    NOT NULL,
    plan          TEXT    NOT NULL CHECK (json_valid(plan)),
    status        TEXT    NOT NULL CHECK (status IN ('planned', 'executing', 'completed', 'refused')),
    leftovers     TEXT    CHECK (leftovers IS NULL OR json_valid(leftovers)),
    error_message TEXT,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    CHECK ((leftovers IS NOT NULL) = (status = 'completed'))
) STRICT;
CREATE INDEX ix_cleanups_job ON cleanups (job_id, seq);
CREATE INDEX ix_cleanups_status ON cleanups (status, seq);
CREATE INDEX ix_cleanups_context ON cleanups (vm_context_id);

CREATE TABLE cleanup_steps (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    cleanup_id    TEXT    NOT NULL REFERENCES cleanups (id) ON DELETE CASCADE,
    seq           INTEGER NOT NULL CHECK (seq >= 0),
    name          TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('pending', 'executing', 'done', 'failed', 'refused')),
    failures      INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    operation_id  TEXT,
    error_message TEXT,
    updated_at    INTEGER NOT NULL,
    UNIQUE (cleanup_id, seq)
) STRICT;
