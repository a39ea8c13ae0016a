//! `oma db`: a database as a whole.

mod file;

use std::env;
use std::path::Path;

use oma_api::{DatabaseRow, FindingRow, MoveReport};
use oma_core::traits::VolumeRegistry;
use oma_core::{Error, ErrorKind, Result};
use oma_store::{Contents, Finding, SqlStore, StoreConfig};

use super::Context;
use crate::args::{DbArgs, DbCommand};
use crate::data_dir::{DataDir, Lock};
use crate::failure::Failed;
use crate::output;
use crate::table::{Align, Table};

/// Where a URL may stand that holds a password.
const VARIABLE: &str = "OMA_DATABASE";

pub(super) async fn run(context: &Context, args: &DbArgs) -> Result<(), Failed> {
    let database = Database::choose(context, args.database.as_deref(), env::var(VARIABLE))?;
    match &args.command {
        DbCommand::Status => Ok(status(context, &database).await?),
        DbCommand::Migrate => Ok(migrate(context, &database).await?),
        DbCommand::Check => check(context, &database).await,
        DbCommand::Export(args) => Ok(export(context, &database, &args.file).await?),
        DbCommand::Import(args) => Ok(import(context, &database, &args.file).await?),
    }
}

/// The database that a command is about.
#[derive(Debug)]
struct Database {
    config: StoreConfig,
    /// The data directory that it lies in.
    data: Option<DataDir>,
}

impl Database {
    /// The argument, else the variable, else the data directory's.
    fn choose(
        context: &Context,
        argument: Option<&str>,
        variable: Result<String, env::VarError>,
    ) -> Result<Self> {
        let refused = |what: &'static str, why: &'static str| {
            Err(Error::new(ErrorKind::Invalid, "read", what).because(why))
        };
        let url = match (argument, variable) {
            (Some(url), _) if public(url) != url => {
                return refused(
                    "--database",
                    "it holds a password, which every user of this machine could see; name it in the environment: OMA_DATABASE",
                );
            }
            (Some(url), _) => url.to_owned(),
            (None, Ok(url)) if !url.is_empty() => url,
            (None, Err(env::VarError::NotUnicode(_))) => return refused(VARIABLE, "it is not valid UTF-8"),
            (None, _) => {
                let config = StoreConfig { url: context.data.database_url()?, ..StoreConfig::default() };
                return Ok(Self { config, data: Some(context.data.clone()) });
            }
        };
        Ok(Self { config: StoreConfig { url, ..StoreConfig::default() }, data: None })
    }

    fn url(&self) -> String {
        self.config.public_url()
    }

    /// Opens it for writing, alone in its data directory.
    async fn open(&self) -> Result<(SqlStore, Option<Lock>)> {
        let lock = self.data.as_ref().map(DataDir::lock).transpose()?;
        Ok((SqlStore::open(&self.config).await?, lock))
    }

    async fn row(&self) -> Result<DatabaseRow> {
        let schema = SqlStore::schema(&self.config).await?;
        let instance = if schema.found == Some(schema.needed) {
            let store = SqlStore::open_read_only(&self.config).await?;
            let instance = store.instance().await;
            store.close().await;
            Some(instance?)
        } else {
            None
        };
        Ok(DatabaseRow { database: self.url(), schema: schema.found, needed: schema.needed, instance })
    }
}

/// A URL as it may be shown.
fn public(url: &str) -> String {
    StoreConfig { url: url.to_owned(), ..StoreConfig::default() }.public_url()
}

async fn status(context: &Context, database: &Database) -> Result<()> {
    show(context, &database.row().await?)
}

async fn migrate(context: &Context, database: &Database) -> Result<()> {
    let (store, lock) = database.open().await?;
    store.close().await;
    let row = database.row().await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn context(folder: &Path) -> Context {
        Context { data: DataDir::new(folder).unwrap(), json: false }
    }

    #[test]
    fn l29_a_password_is_taken_from_the_environment_only_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let secret = "mysql://oma:hunter2@db/oma";
        for url in [secret, "postgres:///oma?password=hunter2", "mysql:oma:hunter2@db/oma", "hunter2"] {
            let error = Database::choose(&context, Some(url), Ok(String::new())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = format!("{} {error:?}", error.chain());
            assert!(text.contains("OMA_DATABASE") && !text.contains("hunter2"), "{text}");
        }
        let database = Database::choose(&context, None, Ok(secret.to_owned())).unwrap();
        assert_eq!((database.config.url.as_str(), database.url().as_str()), (secret, "mysql://oma@db/oma"));
        assert!(!format!("{database:?}").contains("hunter2"));
    }

    #[test]
    fn the_argument_comes_before_the_environment_and_that_before_the_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let url = |argument: Option<&str>, variable: Result<&str, env::VarError>| {
            Database::choose(&context, argument, variable.map(str::to_owned)).unwrap().url()
        };
        assert_eq!(url(Some("sqlite:a.db"), Ok("sqlite:b.db")), "sqlite:a.db");
        assert_eq!(url(None, Ok("sqlite:b.db")), "sqlite:b.db");
        for unset in [Ok(""), Err(env::VarError::NotPresent)] {
            assert_eq!(url(None, unset), format!("sqlite://{}/oma.db", folder.path().display()));
        }
    }
}
