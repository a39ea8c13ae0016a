//! PostgreSQL: READ COMMITTED.

mod connect;
mod fault;
mod value;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor, PgConnection};

use super::pools::{Driver, Outcome, rows};
use super::{Dialect, Fault};
use crate::db::{Row, Val};

/// PostgreSQL.
#[derive(Debug)]
pub(crate) struct Postgres;

impl Driver for Postgres {
    type Db = sqlx::Postgres;
    const DIALECT: Dialect = Dialect::Postgres;
    // Not READ WRITE: whoever made the database or the server one that only reads is to be obeyed.
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const SNAPSHOT: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

    fn query<'c>(
        on: &'c mut PgConnection,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<Vec<Row>>> {
        async move { rows(&on.fetch_all(value::bind(text, values)?).await?, value::read) }.boxed()
    }

    fn execute<'c>(
        on: &'c mut PgConnection,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<u64>> {
        async move { Ok(on.execute(value::bind(text, values)?).await?.rows_affected()) }.boxed()
    }

    fn integrity(_: &PgConnectOptions) -> BoxFuture<'_, Outcome<Vec<String>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn fault(refusal: &dyn DatabaseError) -> Fault {
        fault::of(refusal)
    }
}
