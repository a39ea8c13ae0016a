-- Cleanups of jobs: what was planned, and what became of each step. See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it.
SET foreign_key_checks = 0;

CREATE TABLE IF NOT EXISTS cleanups (
    seq           BIGINT       NOT NULL AUTO_INCREMENT,
    id            VARCHAR(64)  NOT NULL,
    job_id        VARCHAR(191) NOT NULL,
    vm_context_id VARCHAR(64)  NOT NULL,
    worker        VARCHAR(191) NOT NULL,
    plan          LONGTEXT     NOT NULL CHECK (JSON_VALID(plan)),
    status        VARCHAR(32)  NOT NULL CHECK (status IN ('planned', 'executing', 'completed', 'refused')),
    leftovers     LONGTEXT     CHECK (leftovers IS NULL OR JSON_VALID(leftovers)),
    error_message MEDIUMTEXT,
    created_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (seq),
    UNIQUE KEY ux_cleanups_id (id),
    KEY ix_cleanups_job (job_id, seq),
    KEY ix_cleanups_status (status, seq),
    KEY ix_cleanups_context (vm_context_id),
    CHECK ((leftovers IS NOT NULL) = (status = 'completed')),
    CONSTRAINT fk_cleanups_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS cleanup_steps (
    id            BIGINT       NOT NULL AUTO_INCREMENT,
    cleanup_id    VARCHAR(64)  NOT NULL,
    seq           BIGINT       NOT NULL CHECK (seq >= 0),
    name          VARCHAR(64)  NOT NULL,
    status        VARCHAR(32)  NOT NULL CHECK (status IN ('pending', 'executing', 'done', 'failed', 'refused')),
    failures      BIGINT       NOT NULL DEFAULT 0 CHECK (failures >= 0),
    operation_id  VARCHAR(64),
    error_message MEDIUMTEXT,
    updated_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_cleanup_steps_seq (cleanup_id, seq),
    CONSTRAINT fk_cleanup_steps_cleanup FOREIGN KEY (cleanup_id) REFERENCES cleanups (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

SET foreign_key_checks = 1;
