-- Recovery points. See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it.
SET foreign_key_checks = 0;

-- Snapshots of all volumes of a VM at one epoch: which they are, each with all that it was made with.
CREATE TABLE IF NOT EXISTS recovery_points (
    id            VARCHAR(64)  NOT NULL,
    vm_context_id VARCHAR(64)  NOT NULL,
    job_id        VARCHAR(191) NOT NULL,
    epoch         BIGINT       NOT NULL CHECK (epoch >= 0),
    status        VARCHAR(32)  NOT NULL CHECK (status IN ('creating', 'taken', 'ready', 'deleting')),
    volumes       LONGTEXT     NOT NULL CHECK (JSON_VALID(volumes)),
    reason        MEDIUMTEXT,
    created_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    KEY ix_points_context (vm_context_id, epoch, id),
    KEY ix_points_job (job_id),
    CONSTRAINT fk_points_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE RESTRICT
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

SET foreign_key_checks = 1;
