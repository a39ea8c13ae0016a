-- The tables of automation and governance. See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it.
SET foreign_key_checks = 0;

-- An email is stored in lower case. password_hash is a hash in its own notation ('$2b$12$...'), never a password.
CREATE TABLE IF NOT EXISTS users (
    id            BIGINT       NOT NULL AUTO_INCREMENT,
    email         VARCHAR(255) NOT NULL CHECK (email = LOWER(email)),
    password_hash VARCHAR(255) NOT NULL CHECK (password_hash LIKE '$%'),
    full_name     MEDIUMTEXT   NOT NULL DEFAULT (''),
    role          VARCHAR(32)  NOT NULL DEFAULT 'viewer' CHECK (role IN ('viewer', 'operator', 'admin', 'agent')),
    is_active     BIGINT       NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    last_login_at DATETIME(3),
    created_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at    DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_users_email (email)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS servers (
    id          BIGINT       NOT NULL AUTO_INCREMENT,
    hostname    VARCHAR(255) NOT NULL,
    ip_address  VARCHAR(45)  NOT NULL,
    os_type     VARCHAR(191),
    environment VARCHAR(191),
    status      VARCHAR(32)  NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'maintenance', 'inactive')),
    description MEDIUMTEXT,
    tags        LONGTEXT     CHECK (tags IS NULL OR JSON_VALID(tags)),
    created_at  DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at  DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_servers_hostname (hostname),
    UNIQUE KEY ux_servers_ip (ip_address),
    KEY ix_servers_status (status, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS playbooks (
    id          BIGINT       NOT NULL AUTO_INCREMENT,
    name        VARCHAR(191) NOT NULL,
    file_path   MEDIUMTEXT   NOT NULL,
    description MEDIUMTEXT,
    variables   LONGTEXT     CHECK (variables IS NULL OR JSON_VALID(variables)),
    is_active   BIGINT       NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_at  DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at  DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_playbooks_name (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One run of a playbook on a server. job_id is the UUID that others know it by.
CREATE TABLE IF NOT EXISTS jobs (
    id            BIGINT      NOT NULL AUTO_INCREMENT,
    job_id        VARCHAR(36) NOT NULL,
    user_id       BIGINT      NOT NULL,
    server_id     BIGINT      NOT NULL,
    playbook_id   BIGINT      NOT NULL,
    status        VARCHAR(32) NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    extra_vars    LONGTEXT    CHECK (extra_vars IS NULL OR JSON_VALID(extra_vars)),
    exit_code     BIGINT,
    error_message MEDIUMTEXT,
    created_at    DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at    DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    started_at    DATETIME(3),
    completed_at  DATETIME(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_runs_job (job_id),
    KEY ix_runs_status (status, created_at, id),
    KEY ix_runs_created (created_at, id),
    KEY ix_runs_user (user_id, status, created_at, id),
    KEY ix_runs_server (server_id, created_at, id),
    KEY ix_runs_playbook (playbook_id, created_at, id),
    CONSTRAINT fk_runs_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE RESTRICT,
    CONSTRAINT fk_runs_server FOREIGN KEY (server_id) REFERENCES servers (id) ON DELETE RESTRICT,
    CONSTRAINT fk_runs_playbook FOREIGN KEY (playbook_id) REFERENCES playbooks (id) ON DELETE RESTRICT
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What a run wrote. Lines are numbered from 1 on.
CREATE TABLE IF NOT EXISTS job_logs (
    id          BIGINT      NOT NULL AUTO_INCREMENT,
    job_id      BIGINT      NOT NULL,
    line_number BIGINT      NOT NULL CHECK (line_number > 0),
    stream      VARCHAR(32) NOT NULL DEFAULT 'stdout' CHECK (stream IN ('stdout', 'stderr')),
    content     MEDIUMTEXT  NOT NULL,
    ts          DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_job_logs_line (job_id, line_number),
    KEY ix_job_logs_ts (ts, id),
    CONSTRAINT fk_job_logs_job FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS tickets (
    id          BIGINT      NOT NULL AUTO_INCREMENT,
    ticket_id   VARCHAR(36) NOT NULL,
    job_id      BIGINT,
    user_id     BIGINT      NOT NULL,
    assigned_to BIGINT,
    title       MEDIUMTEXT  NOT NULL,
    description MEDIUMTEXT,
    status      VARCHAR(32) NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'in_progress', 'resolved', 'closed')),
    priority    VARCHAR(32) NOT NULL DEFAULT 'medium' CHECK (priority IN ('low', 'medium', 'high', 'critical')),
    resolution  MEDIUMTEXT,
    created_at  DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at  DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    resolved_at DATETIME(3),
    closed_at   DATETIME(3),
    PRIMARY KEY (id),
    UNIQUE KEY ux_tickets_ticket (ticket_id),
    KEY ix_tickets_status (status, created_at, id),
    KEY ix_tickets_job (job_id),
    KEY ix_tickets_user (user_id, created_at, id),
    KEY ix_tickets_assigned (assigned_to, status, id),
    CONSTRAINT fk_tickets_job FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE RESTRICT,
    CONSTRAINT fk_tickets_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE RESTRICT,
    CONSTRAINT fk_tickets_assigned FOREIGN KEY (assigned_to) REFERENCES users (id) ON DELETE SET NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Who changed what. Rows are added and, once they are old enough, removed. Nothing changes one.
CREATE TABLE IF NOT EXISTS audit_logs (
    id            BIGINT       NOT NULL AUTO_INCREMENT,
    user_id       BIGINT,
    action        VARCHAR(191) NOT NULL,
    resource_type VARCHAR(191) NOT NULL,
    resource_id   VARCHAR(191) NOT NULL DEFAULT '',
    details       LONGTEXT     CHECK (details IS NULL OR JSON_VALID(details)),
    ip_address    VARCHAR(45),
    ts            DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    KEY ix_audit_resource (resource_type, resource_id, id),
    KEY ix_audit_user (user_id, id),
    KEY ix_audit_ts (ts, id),
    CONSTRAINT fk_audit_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

SET foreign_key_checks = 1;
