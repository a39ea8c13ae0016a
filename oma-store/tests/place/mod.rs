//! Databases for tests: each engine that was built in, an empty or migrated database in it, and other programs in that.
#![allow(dead_code, reason = "no test program needs all of it")]

use std::fmt;
use std::path::{Path, PathBuf};

use oma_core::Result;
use oma_core::conformance::Requirement;
use oma_store::servers::{Database, Server, ServerEngine};
use oma_store::{SqlStore, StoreConfig};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// An engine of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Server(ServerEngine),
}

impl Kind {
    pub(crate) const ALL: &[Self] =
        &[Self::Sqlite, Self::Server(ServerEngine::MariaDb), Self::Server(ServerEngine::Postgres)];

    /// What a test needs that uses it.
    pub(crate) fn required(self) -> Requirement {
        match self {
            Self::Sqlite => Requirement::Feature("sqlite", true),
            Self::Server(engine) => engine.required(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => f.write_str("sqlite"),
            Self::Server(engine) => engine.fmt(f),
        }
    }
}

/// One database, for one test.
#[derive(Debug)]
pub(crate) enum Place {
    Sqlite(TempDir),
    Server(Database),
}

impl Place {
    /// Without a table.
    pub(crate) async fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => Self::Sqlite(tempfile::tempdir_in(folder()).unwrap()),
            Kind::Server(engine) => {
                Self::Server(Server::shared(engine).await.unwrap().create_database().await.unwrap())
            }
        }
    }

    /// With the schema of this program, without a row. A copy is made where that is faster.
    pub(crate) async fn migrated(kind: Kind) -> Self {
        static TEMPLATE: OnceCell<Place> = OnceCell::const_new();
        if kind != Kind::Server(ServerEngine::Postgres) {
            let place = Self::empty(kind).await;
            place.open().await.unwrap().close().await;
            return place;
        }
        let template = TEMPLATE.get_or_init(|| async {
            let place = Self::empty(kind).await;
            place.open().await.unwrap().close().await;
            place
        });
        let Self::Server(template) = template.await else { unreachable!("a database of a server") };
        Self::Server(template.copy().await.unwrap())
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(_) => Kind::Sqlite,
            Self::Server(database) => Kind::Server(database.server().engine()),
        }
    }

    pub(crate) fn config(&self) -> StoreConfig {
        let url = match self {
            Self::Sqlite(folder) => format!("sqlite://{}", folder.path().join("oma.db").display()),
            Self::Server(database) => database.url(),
        };
        StoreConfig { url, ..StoreConfig::default() }
    }

    pub(crate) async fn open(&self) -> Result<SqlStore> {
        SqlStore::open(&self.config()).await
    }

    /// Another program at the same database.
    pub(crate) async fn hand(&self) -> Hand {
        self.try_hand().await.unwrap()
    }

    pub(crate) async fn try_hand(&self) -> std::result::Result<Hand, sqlx::Error> {
        let url = self.config().url;
        Ok(match self.kind() {
            Kind::Sqlite => Hand::Sqlite(SqliteConnection::connect(&format!("{url}?mode=rwc")).await?),
            Kind::Server(ServerEngine::MariaDb) => Hand::MariaDb(MySqlConnection::connect(&url).await?),
            Kind::Server(ServerEngine::Postgres) => Hand::Postgres(PgConnection::connect(&url).await?),
        })
    }
}

/// In memory where the machine has such a folder.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// A connection of another program.
#[derive(Debug)]
pub(crate) enum Hand {
    Sqlite(SqliteConnection),
    MariaDb(MySqlConnection),
    Postgres(PgConnection),
}

impl Hand {
    /// Runs statements.
    pub(crate) async fn execute(&mut self, statements: &str) -> Result<(), sqlx::Error> {
        let text = sqlx::raw_sql(AssertSqlSafe(statements));
        match self {
            Self::Sqlite(on) => text.execute(on).await.map(|_| ()),
            Self::MariaDb(on) => text.execute(on).await.map(|_| ()),
            Self::Postgres(on) => text.execute(on).await.map(|_| ()),
        }
    }

    /// The number that a statement answers.
    pub(crate) async fn number(&mut self, statement: &str) -> i64 {
        let text = AssertSqlSafe(statement.to_owned());
        match self {
            Self::Sqlite(on) => sqlx::query_scalar(text).fetch_one(on).await.unwrap(),
            Self::MariaDb(on) => sqlx::query_scalar(text).fetch_one(on).await.unwrap(),
            Self::Postgres(on) => sqlx::query_scalar(text).fetch_one(on).await.unwrap(),
        }
    }

    /// Switches off what keeps rows whole, as far as this connection goes.
    pub(crate) async fn unprotect(&mut self) {
        let text = match self {
            Self::Sqlite(_) => "PRAGMA ignore_check_constraints = ON",
            Self::MariaDb(_) => "SET check_constraint_checks = 0",
            // A check cannot be switched off, but dropped.
            Self::Postgres(_) => {
                "DO $$ DECLARE one record; BEGIN \
                 FOR one IN SELECT conrelid::regclass AS held, conname FROM pg_constraint \
                 WHERE contype = 'c' AND coninhcount = 0 AND connamespace = current_schema()::regnamespace \
                 LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.held, one.conname); END LOOP; END $$"
            }
        };
        self.execute(text).await.unwrap();
    }
}
