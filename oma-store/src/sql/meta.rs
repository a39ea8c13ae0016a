//! `oma_meta` and `oma_migrations`.

use super::statements;

statements! {
    GET = "SELECT name, value FROM oma_meta WHERE name = ?";
    /// Keeps others from a row for the rest of the transaction.
    LOCK = "SELECT name FROM oma_meta WHERE name = ?",
        mysql: "SELECT name FROM oma_meta WHERE name = ? FOR UPDATE",
        postgres: "SELECT name FROM oma_meta WHERE name = ? FOR NO KEY UPDATE";
    /// Changes nothing, and fails where nothing can be changed.
    TOUCH = "UPDATE oma_meta SET value = value WHERE name = ?";
    SET = "INSERT INTO oma_meta (name, value) VALUES (?, ?)";
    MIGRATIONS = "SELECT version, name, checksum FROM oma_migrations ORDER BY version";
    MIGRATED = "INSERT INTO oma_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)";
}
