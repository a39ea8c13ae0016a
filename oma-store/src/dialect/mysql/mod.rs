//! MariaDB and MySQL: InnoDB, READ COMMITTED.

mod connect;
mod fault;
mod value;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Executor, MySqlConnection};

use super::pools::{Driver, Outcome, rows};
use super::{Dialect, Fault};
use crate::db::{Row, Val};

/// Strict: what does not fit a column is refused, never cut.
macro_rules! strict {
    () => {
        "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')"
    };
}
macro_rules! isolation {
    () => {
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    };
}
const STRICT: &str = strict!();
const ISOLATION: &str = isolation!();
/// The same each time, on the connections of a pool that is somebody else's.
const BEGIN_ALONE: &str = concat!(strict!(), "; ", isolation!(), "; START TRANSACTION");

/// MariaDB or MySQL.
#[derive(Debug)]
pub(crate) struct MySql;

impl Driver for MySql {
    type Db = sqlx::MySql;
    const DIALECT: Dialect = Dialect::MySql;
    const BEGIN: &'static str = "START TRANSACTION";
    const SNAPSHOT: &'static str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
        START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

    fn query<'c>(
        on: &'c mut MySqlConnection,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<Vec<Row>>> {
        async move { rows(&on.fetch_all(value::bind(text, values)?).await?, value::read) }.boxed()
    }

    fn execute<'c>(
        on: &'c mut MySqlConnection,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<u64>> {
        async move { Ok(on.execute(value::bind(text, values)?).await?.rows_affected()) }.boxed()
    }

    fn integrity(_: &MySqlConnectOptions) -> BoxFuture<'_, Outcome<Vec<String>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn fault(refusal: &dyn DatabaseError) -> Fault {
        fault::of(refusal)
    }
}
