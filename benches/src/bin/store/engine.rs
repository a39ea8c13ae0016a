//! The engines, and empty databases in them.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use oma_store::servers::{Database, Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};
use tempfile::TempDir;

use crate::Result;
use crate::bare::Bare;

/// More than any measurement has tasks: nobody waits for a connection.
const CONNECTIONS: u32 = 16;

/// A database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Sqlite,
    Mariadb,
    Postgres,
}

impl Engine {
    pub(crate) const ALL: [Self; 3] = [Self::Sqlite, Self::Mariadb, Self::Postgres];

    /// One of these values.
    pub(crate) fn pick<T>(self, sqlite: T, mariadb: T, postgres: T) -> T {
        match self {
            Self::Sqlite => sqlite,
            Self::Mariadb => mariadb,
            Self::Postgres => postgres,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pick("SQLite", "MariaDB", "PostgreSQL"))
    }
}

/// A folder for files of SQLite, or a private server. Its settings are the engine's own; what is committed is on the disk.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) engine: Engine,
    folder: TempDir,
    server: Option<Server>,
    made: AtomicU32,
}

impl Host {
    pub(crate) async fn start(engine: Engine, dir: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("oma-bench-").tempdir_in(dir)?;
        let options = ServerOptions { durable: true, base: Some(dir.to_owned()), ..ServerOptions::default() };
        let server = match engine {
            Engine::Sqlite => None,
            Engine::Mariadb => Some(Server::start(ServerEngine::MariaDb, options).await?),
            Engine::Postgres => Some(Server::start(ServerEngine::Postgres, options).await?),
        };
        Ok(Self { engine, folder, server, made: AtomicU32::new(0) })
    }

    /// Makes a database with the store's schema.
    pub(crate) async fn database(&self) -> Result<Base> {
        let (url, kept) = match &self.server {
            None => {
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                (format!("sqlite:{}/{number}.db", self.folder.path().display()), None)
            }
            Some(server) => {
                let database = server.create_database().await?;
                (database.url(), Some(database))
            }
        };
        let config = StoreConfig {
            url: url.clone(),
            connections: CONNECTIONS,
            busy_timeout: Duration::from_secs(60),
            ..StoreConfig::default()
        };
        let store = SqlStore::open(&config).await?;
        Ok(Base { engine: self.engine, store, url, _kept: kept })
    }

    /// What the engine says it is.
    pub(crate) async fn version(&self) -> Result<String> {
        let asked = self.engine.pick("SELECT sqlite_version()", "SELECT version()", "SHOW server_version");
        self.database().await?.bare().await?.text(asked).await
    }
}

/// A database, opened by the store.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) engine: Engine,
    pub(crate) store: SqlStore,
    pub(crate) url: String,
    _kept: Option<Database>,
}

impl Base {
    /// A connection beside the store.
    pub(crate) async fn bare(&self) -> Result<Bare> {
        Bare::connect(self.engine, &self.url).await
    }

    /// The room that it takes, in MiB.
    pub(crate) async fn size(&self) -> Result<i64> {
        let asked = self.engine.pick(
            "SELECT page_count * page_size / 1048576 FROM pragma_page_count, pragma_page_size",
            "SELECT CAST(SUM(data_length + index_length) / 1048576 AS SIGNED) FROM information_schema.tables \
             WHERE table_schema = DATABASE()",
            "SELECT pg_database_size(current_database()) / 1048576",
        );
        self.bare().await?.number(asked).await
    }

    /// Gives the connections back, and what can be given back of the room.
    pub(crate) async fn end(self) -> Result<()> {
        self.store.close().await;
        if self.engine == Engine::Sqlite {
            std::fs::remove_file(self.url.trim_start_matches("sqlite:"))?;
        }
        Ok(())
    }
}
