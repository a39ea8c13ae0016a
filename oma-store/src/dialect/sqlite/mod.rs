//! SQLite: one file, one writer, several readers (write-ahead log).

mod connect;
mod fault;
mod value;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, Row as _, SqliteConnection};

pub(crate) use connect::{given, open, schema};

use super::pools::{Driver, Outcome, rows};
use super::{Dialect, Fault};
use crate::db::{Row, Val};

/// SQLite, bundled.
#[derive(Debug)]
pub(crate) struct Sqlite;

impl Driver for Sqlite {
    type Db = sqlx::Sqlite;
    const DIALECT: Dialect = Dialect::Sqlite;
    // Not deferred: such a transaction could not get the write lock later, however long it waits.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const SNAPSHOT: &'static str = "BEGIN";

    fn query<'c>(
        on: &'c mut SqliteConnection,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<Vec<Row>>> {
        async move { rows(&on.fetch_all(value::bind(text, values)).await?, value::read) }.boxed()
    }

    fn execute<'c>(
        on: &'c mut SqliteConnection,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<u64>> {
        async move { Ok(on.execute(value::bind(text, values)).await?.rows_affected()) }.boxed()
    }

    fn integrity(options: &SqliteConnectOptions) -> BoxFuture<'_, Outcome<Vec<String>>> {
        // A connection that can only read takes no notice of a schema's checks.
        let options = options.clone().read_only(false).pragma("query_only", "ON");
        async move {
            let mut connection = options.connect().await?;
            // `MOST_FAULTS` of them.
            let found = connection.fetch_all("PRAGMA integrity_check(1000)").await?;
            let found: Outcome<Vec<String>> = found.iter().map(|row| row.try_get(0)).collect();
            connection.close().await?;
            found.map(|found| found.into_iter().filter(|line| line != "ok").collect())
        }
        .boxed()
    }

    fn fault(refusal: &dyn DatabaseError) -> Fault {
        fault::of(refusal)
    }
}

#[cfg(test)]
mod tests;
