-- What whoever drives a job has to know, what is wanted of it, and how far it last said to be. See ../NOTES.md for the rules.

ALTER TABLE replication_jobs ADD COLUMN request TEXT;
ALTER TABLE replication_jobs ADD COLUMN wanted TEXT COLLATE "C" NOT NULL DEFAULT 'run' CHECK (wanted IN ('run', 'pause', 'cancel'));
ALTER TABLE replication_jobs ADD COLUMN progress TEXT;
