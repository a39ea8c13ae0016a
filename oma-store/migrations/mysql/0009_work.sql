-- What whoever drives a job has to know, what is wanted of it, and how far it last said to be. See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it. It knows
-- no ADD COLUMN IF NOT EXISTS, as MariaDB does.

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'replication_jobs' AND column_name = 'request');
SET @text = IF(@lacks, 'ALTER TABLE replication_jobs ADD COLUMN request MEDIUMTEXT', 'DO 0');
PREPARE add_column FROM @text;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'replication_jobs' AND column_name = 'wanted');
SET @text = IF(@lacks, 'ALTER TABLE replication_jobs ADD COLUMN wanted VARCHAR(32) NOT NULL DEFAULT ''run'' CHECK (wanted IN (''run'', ''pause'', ''cancel''))', 'DO 0');
PREPARE add_column FROM @text;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'replication_jobs' AND column_name = 'progress');
SET @text = IF(@lacks, 'ALTER TABLE replication_jobs ADD COLUMN progress MEDIUMTEXT', 'DO 0');
PREPARE add_column FROM @text;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;
