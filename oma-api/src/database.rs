use std::collections::BTreeMap;

use oma_core::InstanceId;
use serde::{Deserialize, Serialize};

/// A database and its schema (`oma db status`, `oma db migrate`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRow {
    /// Its URL, without a password.
    pub database: String,
    /// The version of its schema; `None` while it has no table.
    pub schema: Option<i64>,
    /// The version that the program needs.
    pub needed: i64,
    /// The deployment; `None` until the schema is the one that is needed.
    pub instance: Option<InstanceId>,
}

/// Something in a database that contradicts something else, or cannot be read (`oma db check`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRow {
    /// The rule that is broken.
    pub rule: String,
    /// The table.
    pub table: String,
    /// The key of the row.
    pub key: String,
    /// What is wrong with it.
    pub detail: String,
}

/// What was moved (`oma db export`, `oma db import`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    /// The URL of the database, without a password.
    pub database: String,
    /// The file; `-` for a standard stream.
    pub file: String,
    /// The deployment.
    pub instance: InstanceId,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// Tells two files of different contents apart.
    pub fingerprint: String,
}
