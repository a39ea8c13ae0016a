-- Journals that know the change id of what is finished, and when they were damaged. See ../NOTES.md for the rules.
-- MySQL takes definitions back only one by one, so this text may be run again from its beginning whatever was done of it.
SET foreign_key_checks = 0;

-- Those of before are given up: they cannot say what changed since, so what they were for is copied again.
DROP TABLE IF EXISTS disk_journal_extents;
DROP TABLE IF EXISTS disk_journals;

-- The journal of finished extents: what it is about, the extents that it began with (the first planned_parts parts are what is
-- planned, the others what was finished already), and one row per run of bytes finished since, none touching another.
CREATE TABLE IF NOT EXISTS disk_journals (
    vm_disk_id    BIGINT      NOT NULL,
    basis         LONGTEXT    NOT NULL CHECK (JSON_VALID(basis)),
    planned_parts BIGINT      NOT NULL CHECK (planned_parts >= 0),
    parts         BIGINT      NOT NULL CHECK (parts >= 0),
    checksum      VARCHAR(32) NOT NULL,
    created_at    DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    PRIMARY KEY (vm_disk_id),
    CONSTRAINT fk_journals_disk FOREIGN KEY (vm_disk_id) REFERENCES vm_disks (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS disk_journal_parts (
    vm_disk_id BIGINT     NOT NULL,
    part       BIGINT     NOT NULL CHECK (part >= 0),
    extents    MEDIUMTEXT NOT NULL,
    PRIMARY KEY (vm_disk_id, part),
    CONSTRAINT fk_parts_journal FOREIGN KEY (vm_disk_id) REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
CREATE TABLE IF NOT EXISTS disk_journal_extents (
    vm_disk_id   BIGINT      NOT NULL,
    start_offset BIGINT      NOT NULL CHECK (start_offset >= 0),
    end_offset   BIGINT      NOT NULL,
    checksum     VARCHAR(32) NOT NULL,
    PRIMARY KEY (vm_disk_id, start_offset),
    CONSTRAINT fk_extents_journal FOREIGN KEY (vm_disk_id) REFERENCES disk_journals (vm_disk_id) ON DELETE CASCADE,
    CHECK (end_offset > start_offset)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

SET foreign_key_checks = 1;
