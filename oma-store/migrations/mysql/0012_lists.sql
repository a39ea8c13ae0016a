-- Indexes that lists with a filter are read by, in their order and a page at a time. See ../NOTES.md for the rules.
-- May be run again, as step 9 may: a table gets all of its new indexes by one statement.

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'replication_jobs' AND index_name = 'ix_jobs_status');
SET @text = IF(@lacks, 'ALTER TABLE replication_jobs
    ADD KEY ix_jobs_status (status, seq),
    ADD KEY ix_jobs_context_status (vm_context_id, status, seq)', 'DO 0');
PREPARE add_keys FROM @text;
EXECUTE add_keys;
DEALLOCATE PREPARE add_keys;

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'vm_replication_contexts' AND index_name = 'ix_contexts_place');
SET @text = IF(@lacks, 'ALTER TABLE vm_replication_contexts
    ADD KEY ix_contexts_place (vm_path, context_id)', 'DO 0');
PREPARE add_keys FROM @text;
EXECUTE add_keys;
DEALLOCATE PREPARE add_keys;

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'ossea_volumes' AND index_name = 'ix_volumes_status');
SET @text = IF(@lacks, 'ALTER TABLE ossea_volumes
    ADD KEY ix_volumes_status (status, volume_id),
    ADD KEY ix_volumes_context (vm_context_id, status, volume_id)', 'DO 0');
PREPARE add_keys FROM @text;
EXECUTE add_keys;
DEALLOCATE PREPARE add_keys;

-- Two go: the new ones begin with their columns.
SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'volume_operations' AND index_name = 'ix_operations_kind');
SET @text = IF(@lacks, 'ALTER TABLE volume_operations
    ADD KEY ix_operations_kind (type, status, created_at, id),
    ADD KEY ix_operations_context (vm_context_id, created_at, id),
    ADD KEY ix_operations_context_kind (vm_context_id, type, status, created_at, id),
    ADD KEY ix_operations_on (ossea_volume_id, created_at, id),
    ADD KEY ix_operations_on_kind (ossea_volume_id, type, status, created_at, id),
    ADD KEY ix_operations_by (made_volume_id, created_at, id),
    ADD KEY ix_operations_by_kind (made_volume_id, type, status, created_at, id),
    DROP KEY ix_operations_volume,
    DROP KEY ix_operations_made', 'DO 0');
PREPARE add_keys FROM @text;
EXECUTE add_keys;
DEALLOCATE PREPARE add_keys;

SET @lacks = (SELECT COUNT(*) = 0 FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'cleanups' AND index_name = 'ix_cleanups_job_status');
SET @text = IF(@lacks, 'ALTER TABLE cleanups
    ADD KEY ix_cleanups_job_status (job_id, status, seq)', 'DO 0');
PREPARE add_keys FROM @text;
EXECUTE add_keys;
DEALLOCATE PREPARE add_keys;
