-- Who recorded an operation: of an attach it is not to be seen on another machine. See ../NOTES.md for the rules.
-- May be run again, as step 9 may.

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'volume_operations' AND column_name = 'worker');
SET @text = IF(@lacks, 'ALTER TABLE volume_operations ADD COLUMN worker VARCHAR(191)', 'DO 0');
PREPARE add_column FROM @text;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;
