-- Journals that know the change id of what is finished, and when they were damaged. See ../NOTES.md for the rules.

-- Those of before are given up: they cannot say what changed since, so what they were for is copied again.
DROP TABLE disk_journal_extents;
DROP TABLE disk_journals;

-- The journal of finished extents: what it is about, the extents that it began with (the first planned_parts parts are what is
-- planned, the others what was finished already), and one row per run of bytes finished since, none touching another.
CREATE TABLE disk_journals (
    vm_disk_id    INTEGER NOT NULL PRIMARY KEY REFERENCES vm_disks (id) ON DELETE CASCADE,
    basis         TEXT    NOT NULL CHECK (json_valid(basis)),
    planned_parts INTEGER NOT NULL CHECK (planned_parts >= 0),
    parts         INTEGER NOT NULL CHECK (parts >= 0),
    checksum      TEXT    NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;
CREATE TABLE disk_journal_parts (
    vm_disk_id INTEGER NOT NULL REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE,
    part       INTEGER NOT NULL CHECK (part >= 0),
    extents    TEXT    NOT NULL,
    PRIMARY KEY (vm_disk_id, part)
) STRICT;
CREATE TABLE disk_journal_extents (
    vm_disk_id   INTEGER NOT NULL REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE,
    start_offset INTEGER NOT NULL CHECK (start_offset >= 0),
    end_offset   INTEGER NOT NULL,
    checksum     TEXT    NOT NULL,
    PRIMARY KEY (vm_disk_id, start_offset),
    CHECK (end_offset > start_offset)
) STRICT, WITHOUT ROWID;
