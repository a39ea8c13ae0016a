//! `oma audit`: the audit trail, read and verified.

use std::env;

use oma_api::{AuditRow, AuditVerification};
use oma_core::audit::{AuditFilter, AuditFrom, AuditHead, AuditRecord};
use oma_core::traits::AuditLog;
use oma_core::{AuditId, Error, ErrorKind, Result};
use oma_store::SqlStore;

use super::Context;
use crate::args::{AuditArgs, AuditCommand, ListTrailArgs};
use crate::table::{Align, Table};
use oma_examples::database::{Database, VARIABLE};
use oma_examples::failure::Failed;
use oma_examples::output;

pub(super) async fn run(context: &Context, args: &AuditArgs) -> Result<(), Failed> {
    let database = Database::choose(&context.data, args.database.as_deref(), env::var(VARIABLE))?;
    let store = SqlStore::open_read_only(&database.config).await?;
    let done = match &args.command {
        AuditCommand::Verify(args) => verify(context, &store, args.known.as_ref()).await,
        AuditCommand::List(args) => list(context, &store, args).await.map_err(Failed::from),
    };
    store.close().await;
    done
}

async fn verify(context: &Context, store: &SqlStore, known: Option<&AuditHead>) -> Result<(), Failed> {
    tell(&AuditVerification::from(&store.verify_audit(known).await?), context.json)
}

/// What reading the whole trail gave, wherever it was read.
pub(crate) fn tell(verified: &AuditVerification, json: bool) -> Result<(), Failed> {
    if json {
        output::json(verified)?;
    } else {
        output::line(format_args!("{} entries are as they were recorded", verified.entries))?;
        if let (Some(id), Some(hash)) = (verified.last_id, &verified.last_hash) {
            output::line(format_args!("last  {id}:{hash}"))?;
        }
    }
    match &verified.broken {
        None => Ok(()),
        Some(broken) => {
            let reason = format!("{broken}; docs/database.md says what that means, nothing was changed");
            Err(Failed::reported(Error::new(ErrorKind::Corrupt, "verify", "the audit trail").because(reason)))
        }
    }
}

async fn list(context: &Context, store: &SqlStore, args: &ListTrailArgs) -> Result<()> {
    let filter = args.actor.clone().map_or(AuditFilter::All, AuditFilter::Actor);
    let entries =
        store.audit_entries(&filter, AuditFrom::before(args.before.map(AuditId)), args.limit).await?;
    let row = |entry: &AuditRecord| (AuditRow::from(entry), entry.details.clone());
    print(entries.iter().map(row).collect(), context.json)
}

/// Prints entries with their details as text, wherever they are from.
pub(crate) fn print(entries: Vec<(AuditRow, Option<String>)>, json: bool) -> Result<()> {
    if json {
        return output::json(&entries.into_iter().map(|(row, _)| row).collect::<Vec<_>>());
    }
    let left = |name| (name, Align::Left);
    let columns = [
        ("id", Align::Right),
        left("when"),
        left("who"),
        left("what"),
        left("on"),
        left("from"),
        left("details"),
    ];
    let mut table = Table::new(&columns);
    for (row, details) in entries {
        let on = format!("{} {}", row.resource_type, row.resource_id);
        let (actor, address) = (row.actor.unwrap_or_default(), row.address.unwrap_or_default());
        let details = details.unwrap_or_default();
        table.row([row.id.to_string(), row.at, actor, row.action, on.trim().to_owned(), address, details]);
    }
    output::line(table)
}
