-- Jobs that revert, and the size that each disk had at its last epoch. See ../NOTES.md for the rules.

ALTER TABLE replication_jobs ADD COLUMN kind TEXT COLLATE "C" NOT NULL DEFAULT 'replicate' CHECK (kind IN ('replicate', 'revert'));
ALTER TABLE vm_disks ADD COLUMN committed_bytes BIGINT CHECK (committed_bytes > 0);
