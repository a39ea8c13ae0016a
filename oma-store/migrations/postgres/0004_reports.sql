-- Verification reports, stored with their jobs. See ../NOTES.md for the rules.

-- The last one of each job, as it was signed.
CREATE TABLE verification_reports (
    job_id     TEXT COLLATE "C" NOT NULL,
    report     TEXT COLLATE "C" NOT NULL CHECK (report::json IS NOT NULL),
    created_at TIMESTAMPTZ(3)   NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (job_id),
    CONSTRAINT fk_reports_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE CASCADE
);
