//! An empty database of each engine, and the way into it that a person with a client has.

use std::fmt;

use oma_core::conformance::Requirement;
use oma_store::servers::{Database, Server, ServerEngine};
use oma_store::{SqlStore, StoreConfig};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, Row, SqliteConnection};
use tempfile::TempDir;

/// Where a database may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Server(ServerEngine),
}

pub(crate) const ENGINES: [Engine; 3] =
    [Engine::Sqlite, Engine::Server(ServerEngine::MariaDb), Engine::Server(ServerEngine::Postgres)];

impl Engine {
    /// What a test on it needs.
    pub(crate) fn needs(self) -> Vec<Requirement> {
        match self {
            Self::Sqlite => Vec::new(),
            Self::Server(engine) => vec![engine.required()],
        }
    }

    /// A moment, as a literal.
    pub(crate) fn moment(self) -> &'static str {
        match self {
            Self::Sqlite => "1755770000000",
            Self::Server(_) => "'2025-08-21 09:53:20.000'",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => f.write_str("sqlite"),
            Self::Server(engine) => engine.fmt(f),
        }
    }
}

/// A database of one test. It goes with the value.
#[derive(Debug)]
pub(crate) enum Place {
    File(TempDir),
    Database(Database),
}

impl Place {
    pub(crate) async fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self::File(tempfile::tempdir().unwrap()),
            Engine::Server(engine) => {
                Self::Database(Server::shared(engine).await.unwrap().create_database().await.unwrap())
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("sqlite://{}", folder.path().join("oma.db").display()),
            Self::Database(database) => database.url(),
        }
    }

    pub(crate) async fn open(&self) -> SqlStore {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> oma_core::Result<SqlStore> {
        let config = StoreConfig { url: self.url(), ..StoreConfig::default() };
        SqlStore::open(&config).await
    }

    /// Runs statements as a person would who switched off what keeps the records whole.
    pub(crate) async fn force(&self, statements: &str) {
        let done = match self {
            Self::File(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
                let off = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;";
                let text = format!("{off} {statements}");
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.map(drop)
            }
            Self::Database(database) => {
                let off = match database.server().engine() {
                    ServerEngine::MariaDb => "SET foreign_key_checks = 0, check_constraint_checks = 0;",
                    ServerEngine::Postgres => "SET session_replication_role = replica;",
                };
                let done = database.execute(&format!("{off} {statements}")).await;
                done.map_err(|error| sqlx::Error::Protocol(error.to_string()))
            }
        };
        assert!(done.is_ok(), "{}: {statements}", done.unwrap_err());
    }

    /// The columns of all tables that somebody can write, each behind its table.
    pub(crate) async fn columns(&self) -> Vec<String> {
        let url = self.url();
        match url.split_once(':').unwrap().0 {
            "sqlite" => {
                let text = "SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_xinfo(m.name) c \
                            WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND c.hidden = 0";
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::query_scalar(text).fetch_all(&mut connection).await.unwrap()
            }
            "mysql" => {
                let text = "SELECT CONCAT(c.table_name, '.', c.column_name) FROM information_schema.columns c \
                            JOIN information_schema.tables t USING (table_schema, table_name) \
                            WHERE table_schema = DATABASE() AND t.table_type = 'BASE TABLE' AND c.extra NOT LIKE '%GENERATED%'";
                let mut connection = MySqlConnection::connect(&url).await.unwrap();
                sqlx::query_scalar(text).fetch_all(&mut connection).await.unwrap()
            }
            _ => {
                let text = "SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
                            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') \
                            AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''";
                let mut connection = PgConnection::connect(&url).await.unwrap();
                sqlx::query_scalar(text).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    /// The number that a statement answers.
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        let text = AssertSqlSafe(statement.to_owned());
        let url = self.url();
        match url.split_once(':').unwrap().0 {
            "sqlite" => {
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::query(text).fetch_one(&mut connection).await.unwrap().get(0)
            }
            "mysql" => {
                let mut connection = MySqlConnection::connect(&url).await.unwrap();
                sqlx::query(text).fetch_one(&mut connection).await.unwrap().get(0)
            }
            _ => {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                sqlx::query(text).fetch_one(&mut connection).await.unwrap().get(0)
            }
        }
    }
}
