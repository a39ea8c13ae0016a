use std::path::PathBuf;

use clap::{Args, Subcommand};

const DB_HELP: &str = "\
A database is named by a URL:
    sqlite:///var/lib/oma/oma.db
    mysql://oma@db.example/oma          MariaDB or MySQL
    postgres://oma@db.example/oma

Arguments are seen by every user of a machine: a URL with a password is taken from the
environment only.
    OMA_DATABASE='mysql://oma:PASSWORD@db.example/oma' oma db status

Moving an appliance from its data directory to a server:
    oma db export appliance.jsonl
    OMA_DATABASE='postgres://oma:PASSWORD@db.example/oma' oma db import appliance.jsonl";

#[derive(Debug, Args)]
#[command(after_help = DB_HELP)]
pub(crate) struct DbArgs {
    /// The database, in place of OMA_DATABASE and of the one in the data directory
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    #[command(subcommand)]
    pub(crate) command: DbCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Tell which schema the database has and which this program needs
    Status,
    /// Make the database if it has no table, and bring it to this program's schema
    Migrate,
    /// Look for records that contradict each other; exit code 8 if there are any
    Check,
    /// Write all records to a file, from which any engine takes them
    Export(ExportArgs),
    /// Take all records of a file into a database that has none yet, and compare them with the file
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A file that is not there yet; `-` for standard output, with the report on standard error
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A file that `oma db export` wrote; `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
