//! `oma db`: a database as a whole.

mod file;

use std::env;
use std::path::Path;

use oma_api::{DatabaseRow, FindingRow, MoveReport};
use oma_core::traits::VolumeRegistry;
use oma_core::{Error, ErrorKind, Result};
use oma_store::{Contents, Finding, SqlStore};

use super::Context;
use crate::args::{DbArgs, DbCommand};
use crate::table::{Align, Table};
use oma_examples::database::{Database, VARIABLE};
use oma_examples::failure::Failed;
use oma_examples::output;

pub(super) async fn run(context: &Context, args: &DbArgs) -> Result<(), Failed> {
    let database = Database::choose(&context.data, args.database.as_deref(), env::var(VARIABLE))?;
    match &args.command {
        DbCommand::Status => Ok(status(context, &database).await?),
        DbCommand::Migrate => Ok(migrate(context, &database).await?),
        DbCommand::Check => check(context, &database).await,
        DbCommand::Export(args) => Ok(export(context, &database, &args.file).await?),
        DbCommand::Import(args) => Ok(import(context, &database, &args.file).await?),
    }
}

async fn row_of(database: &Database) -> Result<DatabaseRow> {
    let schema = SqlStore::schema(&database.config).await?;
    let instance = if schema.found == Some(schema.needed) {
        let store = SqlStore::open_read_only(&database.config).await?;
        let instance = store.instance().await;
        store.close().await;
        Some(instance?)
    } else {
        None
    };
    Ok(DatabaseRow { database: database.url(), schema: schema.found, needed: schema.needed, instance })
}

async fn status(context: &Context, database: &Database) -> Result<()> {
    show(context, &row_of(database).await?)
}

async fn migrate(context: &Context, database: &Database) -> Result<()> {
    let (store, lock) = database.open().await?;
    store.close().await;
    let row = row_of(database).await?;
    drop(lock);
    show(context, &row)
}

fn show(context: &Context, row: &DatabaseRow) -> Result<()> {
    if context.json {
        return output::json(row);
    }
    let schema = match row.schema {
        None => format!("none; `oma db migrate` makes version {}", row.needed),
        Some(version) if version < row.needed => {
            format!("version {version}; `oma db migrate` brings it to {}", row.needed)
        }
        Some(version) => format!("version {version}, as needed"),
    };
    output::line(format_args!("database    {}", row.database))?;
    output::line(format_args!("schema      {schema}"))?;
    row.instance.as_ref().map_or(Ok(()), |id| output::line(format_args!("deployment  {id}")))
}

async fn check(context: &Context, database: &Database) -> Result<(), Failed> {
    let store = SqlStore::open_read_only(&database.config).await?;
    let found = store.check().await;
    store.close().await;
    let rows: Vec<FindingRow> = found?.into_iter().map(row).collect();
    if context.json {
        output::json(&rows)?;
    } else if rows.is_empty() {
        output::line("no contradiction found")?;
    } else {
        output::line(table(&rows))?;
    }
    match rows.len() {
        0 => Ok(()),
        count => {
            let plural = if count == 1 { "contradiction" } else { "contradictions" };
            let reason =
                format!("{count} {plural} found; docs/database.md says what each means, nothing was changed");
            Err(Failed::reported(Error::new(ErrorKind::Corrupt, "check", database.url()).because(reason)))
        }
    }
}

fn row(finding: Finding) -> FindingRow {
    let Finding { rule, table, key, detail } = finding;
    FindingRow { rule: rule.to_owned(), table: table.to_owned(), key, detail }
}

fn table(rows: &[FindingRow]) -> Table {
    let left = |name| (name, Align::Left);
    let mut table = Table::new(&[left("rule"), left("table"), left("key"), left("what is wrong")]);
    for FindingRow { rule, table: name, key, detail } in rows {
        table.row([rule.clone(), name.clone(), key.clone(), detail.clone()]);
    }
    table
}

async fn export(context: &Context, database: &Database, path: &Path) -> Result<()> {
    let store = SqlStore::open_read_only(&database.config).await?;
    let written = file::write(&store, path).await;
    store.close().await;
    report(context, database, path, written?, file::is_stream(path))
}

async fn import(context: &Context, database: &Database, path: &Path) -> Result<()> {
    let mut file = file::open(path).await?;
    let (store, lock) = database.open().await?;
    let taken = store.import_database(&mut file).await;
    store.close().await;
    drop(lock);
    report(context, database, path, taken?, false)
}

/// Says what was moved, beside the stream that the rows went to.
fn report(context: &Context, database: &Database, path: &Path, moved: Contents, beside: bool) -> Result<()> {
    let total: u64 = moved.rows.values().sum();
    let rows = moved.rows.into_iter().map(|(table, count)| (table.to_owned(), count)).collect();
    let report = MoveReport {
        database: database.url(),
        file: path.display().to_string(),
        instance: moved.instance,
        rows,
        fingerprint: moved.fingerprint,
    };
    let text = if context.json {
        serde_json::to_string(&report)
            .map_err(|error| Error::new(ErrorKind::Internal, "write", "JSON").with_source(error))?
    } else {
        format!("{total} rows of deployment {}, fingerprint {}", report.instance, report.fingerprint)
    };
    if beside {
        output::note(text);
        return Ok(());
    }
    output::line(text)
}
