-- Jobs that revert or operate; the size that each disk had at its last epoch, and whether its source broke a promise of zeroes. See ../NOTES.md
-- for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it. It knows
-- no ADD COLUMN IF NOT EXISTS, as MariaDB does.

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'replication_jobs' AND column_name = 'kind');
SET @text = IF(@lacks, 'ALTER TABLE replication_jobs ADD COLUMN kind VARCHAR(32) NOT NULL DEFAULT ''replicate'' CHECK (kind IN (''replicate'', ''revert'', ''operate''))', 'DO 0');
PREPARE add_column FROM @text;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'vm_disks' AND column_name = 'committed_bytes');
SET @text = IF(@lacks, 'ALTER TABLE vm_disks ADD COLUMN committed_bytes BIGINT CHECK (committed_bytes > 0)', 'DO 0');
PREPARE add_column FROM @text;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'vm_disks' AND column_name = 'zeroes_broken');
SET @text = IF(@lacks, 'ALTER TABLE vm_disks ADD COLUMN zeroes_broken BIGINT NOT NULL DEFAULT 0 CHECK (zeroes_broken IN (0, 1))', 'DO 0');
PREPARE add_column FROM @text;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;
