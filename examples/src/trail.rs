//! The audit trail, of what is done in a data directory or a database without a daemon.

use std::fmt::Display;

use oma_core::audit::AuditEntry;
use oma_core::traits::AuditLog;
use oma_core::{Error, ErrorKind, Result};
use oma_store::{Schema, SqlStore};
use serde_json::{Value, json};

use crate::database::Database;

/// Who does it: whoever may write there.
const OWNER: &str = "owner of the database";

/// The database with the trail, which a daemon may be serving; none where no daemon began to use one yet.
///
/// # Errors
/// `Conflict` for one of another version; what the database answers.
pub async fn open(database: &Database) -> Result<Option<SqlStore>> {
    let Schema { found, needed } = SqlStore::schema(&database.config).await?;
    match found {
        Some(found) if found == needed => SqlStore::open(&database.config).await.map(Some),
        None => Ok(None),
        // A daemon of another version may be serving it.
        Some(_) => Err(refused(
            database,
            "it is of another version of OMA; have this program and the daemon of the same one, and start that",
        )),
    }
}

/// There is no trail to write in.
#[must_use]
pub fn refused(database: &Database, reason: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, "write the audit trail in", database.url()).because(reason)
}

/// What is about to be done, to what.
pub fn entry(action: &str, kind: &str, id: &impl Display, new: Value) -> AuditEntry {
    AuditEntry {
        actor: OWNER.to_owned(),
        action: action.to_owned(),
        resource_type: kind.to_owned(),
        resource_id: id.to_string(),
        new: Some(new),
        ..AuditEntry::default()
    }
}

/// Makes a change behind its entry. One that is refused leaves a second entry.
///
/// # Errors
/// What the change answers; what the database answers, and nothing is changed then.
pub async fn recorded<T>(
    trail: &dyn AuditLog,
    entry: AuditEntry,
    change: impl Future<Output = Result<T>>,
) -> Result<T> {
    trail.audit(&entry).await?;
    let changed = change.await;
    if let Err(error) = &changed {
        let new = Some(json!({ "error": error.kind().as_str() }));
        let failed = AuditEntry { action: format!("{} failed", entry.action), new, ..entry };
        // The first entry is there, so nothing was done unseen; why it failed is what has to be told.
        if let Err(error) = trail.audit(&failed).await {
            tracing::warn!(error = error.chain(), "the audit trail does not say that it failed");
        }
    }
    changed
}
