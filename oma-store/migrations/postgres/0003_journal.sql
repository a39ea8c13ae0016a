-- Journals that know the change id of what is finished, and when they were damaged. See ../NOTES.md for the rules.

-- Those of before are given up: they cannot say what changed since, so what they were for is copied again.
DROP TABLE disk_journal_extents;
DROP TABLE disk_journals;

-- The journal of finished extents: what it is about, the extents that it began with (the first planned_parts parts are what is
-- planned, the others what was finished already), and one row per run of bytes finished since, none touching another.
CREATE TABLE disk_journals (
    vm_disk_id    BIGINT           NOT NULL,
    basis         TEXT COLLATE "C" NOT NULL CHECK (basis::json IS NOT NULL),
    planned_parts BIGINT           NOT NULL CHECK (planned_parts >= 0),
    parts         BIGINT           NOT NULL CHECK (parts >= 0),
    checksum      TEXT COLLATE "C" NOT NULL,
    created_at    TIMESTAMPTZ(3)   NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (vm_disk_id),
    CONSTRAINT fk_journals_disk FOREIGN KEY (vm_disk_id) REFERENCES vm_disks (id) ON DELETE CASCADE
);
CREATE TABLE disk_journal_parts (
    vm_disk_id BIGINT           NOT NULL,
    part       BIGINT           NOT NULL CHECK (part >= 0),
    extents    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (vm_disk_id, part),
    CONSTRAINT fk_parts_journal FOREIGN KEY (vm_disk_id) REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE
);
CREATE TABLE disk_journal_extents (
    vm_disk_id   BIGINT           NOT NULL,
    start_offset BIGINT           NOT NULL CHECK (start_offset >= 0),
    end_offset   BIGINT           NOT NULL,
    checksum     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (vm_disk_id, start_offset),
    CONSTRAINT fk_extents_journal FOREIGN KEY (vm_disk_id) REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE,
    CHECK (end_offset > start_offset)
);
