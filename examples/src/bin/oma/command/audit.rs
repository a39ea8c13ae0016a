//! `oma audit`: the audit trail, read and verified.

use std::env;

use oma_api::{AuditRow, AuditVerification};
use oma_core::audit::{AuditFilter, AuditHead};
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
    let verified = store.verify_audit(known).await?;
    if context.json {
        output::json(&AuditVerification::from(&verified))?;
    } else {
        output::line(format_args!("{} entries are as they were recorded", verified.entries))?;
        if let Some(AuditHead { id, hash }) = verified.head {
            output::line(format_args!("last  {id}:{hash}"))?;
        }
    }
    match verified.broken {
        None => Ok(()),
        Some(broken) => {
            let reason = format!("{broken}; docs/database.md says what that means, nothing was changed");
            Err(Failed::reported(Error::new(ErrorKind::Corrupt, "verify", "the audit trail").because(reason)))
        }
    }
}

async fn list(context: &Context, store: &SqlStore, args: &ListTrailArgs) -> Result<()> {
    let filter = args.actor.clone().map_or(AuditFilter::All, AuditFilter::Actor);
    let entries = store.audit_entries(&filter, args.before.map(AuditId), args.limit).await?;
    let rows: Vec<AuditRow> = entries.iter().map(AuditRow::from).collect();
    if context.json {
        return output::json(&rows);
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
    for (row, entry) in rows.into_iter().zip(&entries) {
        let on = format!("{} {}", row.resource_type, row.resource_id);
        let details = entry.details.clone().unwrap_or_default();
        let (actor, address) = (row.actor.unwrap_or_default(), row.address.unwrap_or_default());
        table.row([row.id.to_string(), row.at, actor, row.action, on.trim().to_owned(), address, details]);
    }
    output::line(table)
}
