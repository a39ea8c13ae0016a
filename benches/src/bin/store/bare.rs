//! The drivers without the store.

use oma_core::Timestamp;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{
    AssertSqlSafe, Connection, Database, Encode, MySql, MySqlConnection, PgConnection, Postgres, Row, Sqlite,
    SqliteConnection, Type,
};
use time::OffsetDateTime;

use crate::Result;
use crate::engine::Engine;

/// A value to bind.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(i64),
    Text(String),
    Time(Timestamp),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

/// A statement as an engine wants it. It is never freed: drivers keep what they prepared by its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement(&'static str);

impl Statement {
    /// From a text with `?` for values, and none elsewhere.
    pub(crate) fn new(engine: Engine, text: &str) -> Self {
        let mut parts = text.split('?');
        let first = parts.next().unwrap_or_default().to_owned();
        let text = parts.enumerate().fold(first, |text, (at, part)| {
            let mark = engine.pick("?".to_owned(), "?".to_owned(), format!("${}", at + 1));
            text + &mark + part
        });
        Self(text.leak())
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Bare {
    Sqlite(SqliteConnection),
    MySql(MySqlConnection),
    Postgres(PgConnection),
}

/// The same on whichever connection it is.
macro_rules! on {
    ($bare:expr, $connection:ident => $body:expr) => {
        match $bare {
            Bare::Sqlite($connection) => $body,
            Bare::MySql($connection) => $body,
            Bare::Postgres($connection) => $body,
        }
    };
}

impl Bare {
    pub(crate) async fn connect(engine: Engine, url: &str) -> Result<Self> {
        Ok(match engine {
            Engine::Sqlite => {
                let options = SqliteConnectOptions::new()
                    .filename(url.trim_start_matches("sqlite:"))
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(std::time::Duration::from_secs(60));
                Self::Sqlite(SqliteConnection::connect_with(&options).await?)
            }
            Engine::Mariadb => {
                let mut connection = MySqlConnection::connect(url).await?;
                let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
                sqlx::raw_sql(isolation).execute(&mut connection).await?;
                Self::MySql(connection)
            }
            Engine::Postgres => Self::Postgres(PgConnection::connect(url).await?),
        })
    }

    /// Has statements without values run.
    pub(crate) async fn script(&mut self, text: &str) -> Result<()> {
        on!(self, connection => sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop))?;
        Ok(())
    }

    /// Begins a transaction that writes.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        let text = if matches!(self, Self::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.script(text).await
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        self.script("COMMIT").await
    }

    /// Runs a statement that is prepared once.
    pub(crate) async fn execute(&mut self, Statement(text): Statement, values: &[Value]) -> Result<()> {
        match self {
            Self::Sqlite(connection) => sqlite(text, values).execute(connection).await.map(drop),
            Self::MySql(connection) => server::<MySql>(text, values)?.execute(connection).await.map(drop),
            Self::Postgres(connection) => {
                server::<Postgres>(text, values)?.execute(connection).await.map(drop)
            }
        }?;
        Ok(())
    }

    /// Runs a statement that is prepared once, and fetches its rows; answers how many.
    pub(crate) async fn fetch(&mut self, Statement(text): Statement, values: &[Value]) -> Result<usize> {
        Ok(match self {
            Self::Sqlite(connection) => sqlite(text, values).fetch_all(connection).await?.len(),
            Self::MySql(connection) => server::<MySql>(text, values)?.fetch_all(connection).await?.len(),
            Self::Postgres(connection) => {
                server::<Postgres>(text, values)?.fetch_all(connection).await?.len()
            }
        })
    }

    /// The number that a query answers.
    pub(crate) async fn number(&mut self, text: &str) -> Result<i64> {
        Ok(on!(self, connection => sqlx::query(AssertSqlSafe(text)).fetch_one(connection).await?.try_get(0))?)
    }

    /// The text that a query answers.
    pub(crate) async fn text(&mut self, text: &str) -> Result<String> {
        Ok(on!(self, connection => sqlx::query(AssertSqlSafe(text)).fetch_one(connection).await?.try_get(0))?)
    }
}

fn sqlite<'q>(text: &'static str, values: &[Value]) -> Query<'q, Sqlite, <Sqlite as Database>::Arguments> {
    values.iter().fold(sqlx::query(text), |query, value| match value {
        Value::Int(number) => query.bind(*number),
        Value::Text(text) => query.bind(text.clone()),
        Value::Time(time) => query.bind(time.as_millis()),
    })
}

/// Servers have a type for times.
fn server<'q, D: Database>(text: &'static str, values: &[Value]) -> Result<Query<'q, D, D::Arguments>>
where
    i64: Encode<'q, D> + Type<D>,
    String: Encode<'q, D> + Type<D>,
    OffsetDateTime: Encode<'q, D> + Type<D>,
{
    values.iter().try_fold(sqlx::query(text), |query, value| {
        Ok(match value {
            Value::Int(number) => query.bind(*number),
            Value::Text(text) => query.bind(text.clone()),
            Value::Time(time) => {
                let nanos = i128::from(time.as_millis()) * 1_000_000;
                query.bind(OffsetDateTime::from_unix_timestamp_nanos(nanos)?)
            }
        })
    })
}
