-- Jobs that revert or operate; the size that each disk had at its last epoch, and whether its source broke a promise of zeroes. See ../NOTES.md
-- for the rules.

ALTER TABLE replication_jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'replicate' CHECK (kind IN ('replicate', 'revert', 'operate'));
ALTER TABLE vm_disks ADD COLUMN committed_bytes INTEGER CHECK (committed_bytes > 0);
ALTER TABLE vm_disks ADD COLUMN zeroes_broken INTEGER NOT NULL DEFAULT 0 CHECK (zeroes_broken IN (0, 1));
