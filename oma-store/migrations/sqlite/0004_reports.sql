-- Verification reports, stored with their jobs. See ../NOTES.md for the rules.

-- The last one of each job, as it was signed.
CREATE TABLE verification_reports (
    job_id     TEXT    NOT NULL PRIMARY KEY REFERENCES replication_jobs (id) ON DELETE CASCADE,
    report     TEXT    NOT NULL CHECK (json_valid(report)),
    created_at INTEGER NOT NULL
) STRICT;
