-- Recovery points. See ../NOTES.md for the rules.

-- Snapshots of all volumes of a VM at one epoch: which they are, each with all that it was made with.
CREATE TABLE recovery_points (
    id            TEXT COLLATE "C" NOT NULL,
    vm_context_id TEXT COLLATE "C" NOT NULL,
    job_id        TEXT COLLATE "C" NOT NULL,
    epoch         BIGINT           NOT NULL CHECK (epoch >= 0),
    status        TEXT COLLATE "C" NOT NULL CHECK (status IN ('creating', 'taken', 'ready', 'deleting')),
    volumes       TEXT COLLATE "C" NOT NULL CHECK (volumes::json IS NOT NULL),
    reason        TEXT COLLATE "C",
    created_at    TIMESTAMPTZ(3)   NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at    TIMESTAMPTZ(3)   NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    CONSTRAINT fk_points_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE RESTRICT
);
CREATE INDEX ix_points_context ON recovery_points (vm_context_id, epoch, id);
CREATE INDEX ix_points_job ON recovery_points (job_id);
