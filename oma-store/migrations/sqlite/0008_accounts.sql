-- Tokens and sessions of users, attempts to log in, and the chain of the audit trail. See ../NOTES.md for the rules.

-- token_hash is BLAKE3 of the secret, which nobody has but its owner.
CREATE TABLE access_tokens (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind         TEXT    NOT NULL CHECK (kind IN ('api', 'session')),
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL CHECK (role IN ('agent', 'viewer', 'operator', 'admin')),
    token_hash   TEXT    NOT NULL UNIQUE,
    ip_address   TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE INDEX ix_tokens_user ON access_tokens (user_id, id);
CREATE INDEX ix_tokens_expires ON access_tokens (expires_at);
CREATE INDEX ix_tokens_revoked ON access_tokens (revoked_at);

-- The jobs that a token sees whose bearer is an agent.
CREATE TABLE token_jobs (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    token_id TEXT    NOT NULL REFERENCES access_tokens (id) ON DELETE CASCADE,
    job_id   TEXT    NOT NULL REFERENCES replication_jobs (id) ON DELETE CASCADE,
    UNIQUE (token_id, job_id)
) STRICT;
CREATE INDEX ix_token_jobs_job ON token_jobs (job_id);

-- subject is an account or an address. attempts are forgotten, and a lock ends, at until_at.
CREATE TABLE login_attempts (
    subject  TEXT    NOT NULL PRIMARY KEY,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    until_at INTEGER NOT NULL
) STRICT;
CREATE INDEX ix_attempts_until ON login_attempts (until_at);

-- Where the audit trail ends, and up to where it was pruned: one row.
CREATE TABLE audit_chain (
    name           TEXT    NOT NULL PRIMARY KEY CHECK (name = 'head'),
    last_id        INTEGER NOT NULL,
    last_hash      TEXT    NOT NULL,
    last_ts        INTEGER NOT NULL,
    pruned_through INTEGER NOT NULL
) STRICT;

-- actor is who it was when the account is gone. hash is over previous_hash and all of the row but user_id.
ALTER TABLE audit_logs ADD COLUMN actor TEXT;
ALTER TABLE audit_logs ADD COLUMN previous_hash TEXT;
ALTER TABLE audit_logs ADD COLUMN hash TEXT;
CREATE INDEX ix_audit_actor ON audit_logs (actor, id);

-- Rows are added, and removed once the trail says so. Nothing is changed but the account, when that is gone.
CREATE TRIGGER audit_logs_update BEFORE UPDATE ON audit_logs
WHEN NEW.user_id IS NOT NULL OR NEW.id IS NOT OLD.id OR NEW.actor IS NOT OLD.actor OR NEW.action IS NOT OLD.action
    OR NEW.resource_type IS NOT OLD.resource_type OR NEW.resource_id IS NOT OLD.resource_id OR NEW.details IS NOT OLD.details
    OR NEW.ip_address IS NOT OLD.ip_address OR NEW.ts IS NOT OLD.ts OR NEW.previous_hash IS NOT OLD.previous_hash
    OR NEW.hash IS NOT OLD.hash
BEGIN SELECT RAISE(ABORT, 'the audit trail is append only'); END;
CREATE TRIGGER audit_logs_delete BEFORE DELETE ON audit_logs
WHEN NOT EXISTS (SELECT 1 FROM audit_chain WHERE pruned_through >= OLD.id)
BEGIN SELECT RAISE(ABORT, 'the audit trail is append only'); END;
-- INSERT OR REPLACE deletes without that trigger.
CREATE TRIGGER audit_logs_insert BEFORE INSERT ON audit_logs
WHEN EXISTS (SELECT 1 FROM audit_logs WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit trail is append only'); END;
CREATE TRIGGER audit_chain_update BEFORE UPDATE ON audit_chain
WHEN NEW.last_id < OLD.last_id OR NEW.pruned_through < OLD.pruned_through OR NEW.pruned_through > NEW.last_id
BEGIN SELECT RAISE(ABORT, 'the audit trail does not go back'); END;
CREATE TRIGGER audit_chain_delete BEFORE DELETE ON audit_chain
BEGIN SELECT RAISE(ABORT, 'the audit trail does not go back'); END;
