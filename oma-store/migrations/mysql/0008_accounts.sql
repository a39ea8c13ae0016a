-- Tokens and sessions of users, attempts to log in, and the chain of the audit trail. See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it.

-- token_hash is BLAKE3 of the secret, which nobody has but its owner.
CREATE TABLE IF NOT EXISTS access_tokens (
    id           VARCHAR(64)  NOT NULL,
    user_id      BIGINT       NOT NULL,
    kind         VARCHAR(32)  NOT NULL CHECK (kind IN ('api', 'session')),
    name         MEDIUMTEXT   NOT NULL,
    role         VARCHAR(32)  NOT NULL CHECK (role IN ('agent', 'viewer', 'operator', 'admin')),
    token_hash   VARCHAR(191) NOT NULL,
    ip_address   VARCHAR(45),
    created_at   DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    expires_at   DATETIME(3)  NOT NULL,
    last_used_at DATETIME(3),
    revoked_at   DATETIME(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_tokens_hash (token_hash),
    KEY ix_tokens_user (user_id, id),
    KEY ix_tokens_expires (expires_at),
    KEY ix_tokens_revoked (revoked_at),
    CONSTRAINT fk_tokens_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The jobs that a token sees whose bearer is an agent.
CREATE TABLE IF NOT EXISTS token_jobs (
    id       BIGINT       NOT NULL AUTO_INCREMENT,
    token_id VARCHAR(64)  NOT NULL,
    job_id   VARCHAR(191) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY ux_token_jobs (token_id, job_id),
    KEY ix_token_jobs_job (job_id),
    CONSTRAINT fk_token_jobs_token FOREIGN KEY (token_id) REFERENCES access_tokens (id) ON DELETE CASCADE,
    CONSTRAINT fk_token_jobs_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- subject is an account or an address. attempts are forgotten, and a lock ends, at until_at.
CREATE TABLE IF NOT EXISTS login_attempts (
    subject  VARCHAR(191) NOT NULL,
    attempts BIGINT       NOT NULL CHECK (attempts >= 0),
    until_at DATETIME(3)  NOT NULL,
    PRIMARY KEY (subject),
    KEY ix_attempts_until (until_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Where the audit trail ends, and up to where it was pruned: one row.
CREATE TABLE IF NOT EXISTS audit_chain (
    name           VARCHAR(32)  NOT NULL CHECK (name = 'head'),
    last_id        BIGINT       NOT NULL,
    last_hash      VARCHAR(191) NOT NULL,
    last_ts        DATETIME(3)  NOT NULL,
    pruned_through BIGINT       NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- actor is who it was when the account is gone. hash is over previous_hash and all of the row but user_id.
SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'audit_logs' AND column_name = 'hash');
SET @text = IF(@lacks, 'ALTER TABLE audit_logs ADD COLUMN actor VARCHAR(191), ADD COLUMN previous_hash VARCHAR(191),
    ADD COLUMN hash VARCHAR(191), ADD KEY ix_audit_actor (actor, id)', 'DO 0');
PREPARE step FROM @text;
EXECUTE step;
DEALLOCATE PREPARE step;

-- Rows are added, and removed once the trail says so. Nothing is changed but the account, when that is gone: a key that sets NULL
-- calls no trigger here.
DROP TRIGGER IF EXISTS audit_logs_update;
CREATE TRIGGER audit_logs_update BEFORE UPDATE ON audit_logs FOR EACH ROW
SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the audit trail is append only';
DROP TRIGGER IF EXISTS audit_logs_delete;
CREATE TRIGGER audit_logs_delete BEFORE DELETE ON audit_logs FOR EACH ROW
IF NOT EXISTS (SELECT 1 FROM audit_chain WHERE pruned_through >= OLD.id) THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the audit trail is append only'; END IF;
DROP TRIGGER IF EXISTS audit_chain_update;
CREATE TRIGGER audit_chain_update BEFORE UPDATE ON audit_chain FOR EACH ROW
IF NEW.last_id < OLD.last_id OR NEW.pruned_through < OLD.pruned_through OR NEW.pruned_through > NEW.last_id THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the audit trail does not go back'; END IF;
DROP TRIGGER IF EXISTS audit_chain_delete;
CREATE TRIGGER audit_chain_delete BEFORE DELETE ON audit_chain FOR EACH ROW
SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the audit trail does not go back';
