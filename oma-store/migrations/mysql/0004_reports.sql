-- Verification reports, stored with their jobs. See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it.
SET foreign_key_checks = 0;

-- The last one of each job, as it was signed.
CREATE TABLE IF NOT EXISTS verification_reports (
    job_id     VARCHAR(191) NOT NULL,
    report     LONGTEXT     NOT NULL CHECK (JSON_VALID(report)),
    created_at DATETIME(3)  NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (job_id),
    CONSTRAINT fk_reports_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

SET foreign_key_checks = 1;
