use std::sync::Arc;
use std::time::Duration;

use oma_core::Clock;

use crate::config::StoreConfig;
use crate::db::{Db, Tx};
use crate::dialect::{self, Mode};
use crate::error::Result;
use crate::migrate::Schema;

/// How often a transaction is begun that the engine undid for another one, before the caller is told to come back.
const ATTEMPTS: u32 = 8;
/// The longest wait before the first repetition; it doubles.
const PAUSE: Duration = Duration::from_millis(5);

/// All stores of OMA in one SQL database.
///
/// Cheap to clone: clones share the connections. Any number of processes, on SQLite of this machine, on a server of all,
/// may have one database open at a time: leases and records go by the database's clock, not by theirs.
#[derive(Clone, Debug)]
pub struct SqlStore {
    pub(crate) db: Db,
}

impl SqlStore {
    /// Opens a database and brings it to this program's schema. An SQLite file is made if it is not there (its folder
    /// must exist) and every page of it is checked first; on a server the database must exist and be empty or OMA's.
    ///
    /// # Errors
    /// `Corrupt` for a damaged file, or one with a row that its schema forbids; `Unsupported` for one of a newer program
    /// or an engine that was not built in; `Invalid` for one that is not OMA's or a URL that names no database; `NotFound`
    /// without the folder or the server's database; `PermissionDenied` for one that may not be written, or a user who is
    /// refused; `Busy` when another process keeps it locked; `Unavailable` when the server does not answer.
    pub async fn open(config: &StoreConfig) -> oma_core::Result<Self> {
        Self::open_as(config, Mode::Write).await
    }

    /// Opens a database for reading, also while another process writes to it. It is neither made nor migrated, and every
    /// write is `PermissionDenied`.
    ///
    /// # Errors
    /// As [`SqlStore::open`]; `NotFound` when it is not there; `Conflict` when its schema is older than this program's.
    pub async fn open_read_only(config: &StoreConfig) -> oma_core::Result<Self> {
        Self::open_as(config, Mode::Read).await
    }

    /// Which schema a database has; changes nothing.
    ///
    /// # Errors
    /// As [`SqlStore::open`], but an absent SQLite file or an empty database is an answer.
    pub async fn schema(config: &StoreConfig) -> oma_core::Result<Schema> {
        let found = dialect::schema(config).await;
        found.map_err(|error| error.at("look at store", config.public_url()))
    }

    async fn open_as(config: &StoreConfig, mode: Mode) -> oma_core::Result<Self> {
        let db = dialect::open(config, mode).await;
        db.map(|db| Self { db }).map_err(|error| error.at("open store", config.public_url()))
    }

    /// Opens the SQLite file of a pool that you made. Its connections must keep foreign keys, as the driver's do unless
    /// told otherwise. Closing the store closes the pool.
    ///
    /// # Errors
    /// As [`SqlStore::open`].
    #[cfg(feature = "sqlite")]
    pub async fn with_sqlite_pool(pool: sqlx::SqlitePool) -> oma_core::Result<Self> {
        let db = dialect::sqlite::given(pool).await;
        db.map(|db| Self { db }).map_err(|error| error.at("open store", "the pool's SQLite file"))
    }

    /// Opens the MariaDB or MySQL database of a pool that you made. Closing the store closes the pool.
    ///
    /// # Errors
    /// As [`SqlStore::open`].
    #[cfg(feature = "mysql")]
    pub async fn with_mysql_pool(pool: sqlx::MySqlPool) -> oma_core::Result<Self> {
        let db = dialect::server::given::<dialect::mysql::MySql>(pool).await;
        db.map(|db| Self { db }).map_err(|error| error.at("open store", "the pool's MySQL database"))
    }

    /// Opens the PostgreSQL database of a pool that you made; the first schema of its search path holds the tables.
    /// Closing the store closes the pool.
    ///
    /// # Errors
    /// As [`SqlStore::open`].
    #[cfg(feature = "postgres")]
    pub async fn with_postgres_pool(pool: sqlx::PgPool) -> oma_core::Result<Self> {
        let db = dialect::server::given::<dialect::postgres::Postgres>(pool).await;
        db.map(|db| Self { db }).map_err(|error| error.at("open store", "the pool's PostgreSQL database"))
    }

    /// The same store with times from `clock` instead of the database: for tests. Every process that drives jobs must
    /// go by one clock.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { db: self.db.with_clock(clock) }
    }

    /// Waits for what is under way and closes all connections, also those of clones. Later calls are `Unavailable`.
    pub async fn close(&self) {
        self.db.close().await;
    }

    pub(crate) async fn begin(&self) -> Result<Tx> {
        self.db.begin().await
    }

    /// Calls an operation that is one transaction of its own, and again while the engine undoes it for another one's
    /// sake. Nothing was written then, so a repetition sees the other one's work and decides anew.
    pub(crate) async fn settled<T, Fut>(&self, attempt: impl Fn() -> Fut + Send) -> Result<T>
    where
        Fut: Future<Output = Result<T>> + Send,
    {
        let mut longest = PAUSE;
        for _ in 1..ATTEMPTS {
            match attempt().await {
                Err(error) if error.is_undone() => {
                    tracing::debug!(place = self.db.place(), error = %error, "again");
                    tokio::time::sleep(longest.mul_f64(jitter())).await;
                    longest *= 2;
                }
                settled => return settled,
            }
        }
        attempt().await
    }
}

/// A number from 0 to 1, another one each time.
fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    f64::from(nanos.subsec_nanos() % 1000) / 1000.0
}
