-- Indexes that lists with a filter are read by, in their order and a page at a time. See ../NOTES.md for the rules.

CREATE INDEX ix_jobs_status ON replication_jobs (status, seq);
CREATE INDEX ix_jobs_context_status ON replication_jobs (vm_context_id, status, seq);

CREATE INDEX ix_contexts_place ON vm_replication_contexts (vm_path, context_id);

CREATE INDEX ix_volumes_status ON ossea_volumes (status, volume_id);
CREATE INDEX ix_volumes_context ON ossea_volumes (vm_context_id, status, volume_id);

CREATE INDEX ix_operations_kind ON volume_operations (type, status, created_at, id);
CREATE INDEX ix_operations_context ON volume_operations (vm_context_id, created_at, id);
CREATE INDEX ix_operations_context_kind ON volume_operations (vm_context_id, type, status, created_at, id);
CREATE INDEX ix_operations_on ON volume_operations (ossea_volume_id, created_at, id);
CREATE INDEX ix_operations_on_kind ON volume_operations (ossea_volume_id, type, status, created_at, id);
CREATE INDEX ix_operations_by ON volume_operations (made_volume_id, created_at, id);
CREATE INDEX ix_operations_by_kind ON volume_operations (made_volume_id, type, status, created_at, id);
-- The new ones begin with their columns.
DROP INDEX ix_operations_volume;
DROP INDEX ix_operations_made;

CREATE INDEX ix_cleanups_job_status ON cleanups (job_id, status, seq);
