//! Opening a file: find out whose it is and whether it is whole, migrate it, then connect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Error, Row, SqlitePool};

use super::Sqlite;
use crate::check::BROKEN_CHECK;
use crate::config::{Durability, StoreConfig};
use crate::db::{Db, Sql, sql, vals};
use crate::dialect::pools::{self, Pools, execute, query};
use crate::dialect::{Dialect, Fault, Mode};
use crate::error::{Result, StoreError};
use crate::migrate::{self, INSTANCE, Schema, State, Step};
use crate::sql::meta;

/// `OMA1`, in the header of every database of ours; the same number as in [`migrate`].
const APPLICATION_ID: i64 = 0x4f4d_4131;

const STEPS: &[Step] = &[
    Step::new(1, "replication", include_str!("../../../migrations/sqlite/0001_replication.sql")),
    Step::new(2, "automation", include_str!("../../../migrations/sqlite/0002_automation.sql")),
    Step::new(3, "journal", include_str!("../../../migrations/sqlite/0003_journal.sql")),
    Step::new(4, "reports", include_str!("../../../migrations/sqlite/0004_reports.sql")),
    Step::new(5, "points", include_str!("../../../migrations/sqlite/0005_points.sql")),
    Step::new(6, "reverts", include_str!("../../../migrations/sqlite/0006_reverts.sql")),
    Step::new(7, "operations", include_str!("../../../migrations/sqlite/0007_operations.sql")),
    Step::new(8, "accounts", include_str!("../../../migrations/sqlite/0008_accounts.sql")),
    Step::new(9, "work", include_str!("../../../migrations/sqlite/0009_work.sql")),
    Step::new(10, "workers", include_str!("../../../migrations/sqlite/0010_workers.sql")),
    Step::new(11, "cleanups", include_str!("../../../migrations/sqlite/0011_cleanups.sql")),
    Step::new(12, "lists", include_str!("../../../migrations/sqlite/0012_lists.sql")),
];

/// The wait between two attempts to switch a file to the write-ahead log, which ignores the busy timeout.
const PAUSE: Duration = Duration::from_millis(20);

/// Opens a file, and in [`Mode::Write`] makes and migrates it first.
pub(crate) async fn open(config: &StoreConfig, mode: Mode) -> Result<Db> {
    let path = path(config)?;
    let options = options(config, &path);
    let writer = match mode {
        Mode::Read => {
            migrate::complete(STEPS, inspect_for_reading(&options, &path).await?)?;
            None
        }
        Mode::Write => {
            prepare(&options, &path, config.busy_timeout).await?;
            let options = options.clone().journal_mode(SqliteJournalMode::Wal);
            Some(pool(1, config.busy_timeout, options, &path).await?)
        }
    };
    let readers =
        pool(config.connections.max(1), config.busy_timeout, options.read_only(true), &path).await?;
    Ok(Db::new(Pools::<Sqlite>::new(place(&path), writer, readers)))
}

/// Which schema a file has.
pub(crate) async fn schema(config: &StoreConfig) -> Result<Schema> {
    let path = path(config)?;
    let state = inspect_for_reading(&options(config, &path), &path).await?;
    Ok(Schema::new(STEPS, state))
}

/// The database of a pool that somebody else made.
pub(crate) async fn given(pool: SqlitePool) -> Result<Db> {
    let path = pool.connect_options().get_filename().to_owned();
    let mut connection = pool.acquire().await.map_err(|error| fault(&path, error))?;
    inspect(&mut connection, &path).await?;
    migrate(&mut connection, &path).await?;
    drop(connection);
    Ok(Db::new(Pools::<Sqlite>::new(place(&path), Some(pool.clone()), pool)))
}

fn path(config: &StoreConfig) -> Result<PathBuf> {
    let path = config.url.split_once(':').map_or("", |(_, path)| path);
    let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
    if path.file_name().is_none() || path.as_os_str() == ":memory:" {
        return Err(StoreError::Url("its URL names no file; write sqlite:PATH"));
    }
    Ok(path)
}

fn options(config: &StoreConfig, path: &Path) -> SqliteConnectOptions {
    let synchronous = match config.durability {
        Durability::PowerLoss => SqliteSynchronous::Full,
        Durability::Crash => SqliteSynchronous::Normal,
    };
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(config.busy_timeout)
        .synchronous(synchronous)
}

fn place(path: &Path) -> String {
    path.display().to_string()
}

fn fault(path: &Path, error: Error) -> StoreError {
    pools::fault::<Sqlite>(&place(path), error)
}

async fn pool(
    size: u32,
    patience: Duration,
    options: SqliteConnectOptions,
    path: &Path,
) -> Result<SqlitePool> {
    SqlitePoolOptions::new()
        .max_connections(size)
        // A writer waits for the others of this process here, then for other processes at the file's lock.
        .acquire_timeout(patience.saturating_mul(2).max(Duration::from_secs(1)))
        .idle_timeout(None)
        .max_lifetime(None)
        // After a full disk or a failed read SQLite has rolled back by itself. The driver does not notice, its own
        // rollback fails, and it takes the connection for one in a transaction ever after: such a one is replaced.
        // The ping makes sure that the rollback of a dropped transaction was tried before it is looked at.
        .test_before_acquire(true)
        .before_acquire(|connection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        })
        .connect_with(options.disable_statement_logging())
        .await
        .map_err(|error| fault(path, error))
}

async fn inspect_for_reading(options: &SqliteConnectOptions, path: &Path) -> Result<State> {
    // Not to be told apart from "it may not be looked at" by `exists`.
    if matches!(path.try_exists(), Ok(false)) {
        return Ok(State::Empty);
    }
    match inspect_at(&options.clone().read_only(true), path).await {
        Err(error) if is_half_made(&error) => Ok(State::Empty),
        state => state,
    }
}

async fn inspect_at(options: &SqliteConnectOptions, path: &Path) -> Result<State> {
    let mut connection = connect(options, path).await?;
    let state = inspect(&mut connection, path).await?;
    connection.close().await.map_err(|error| fault(path, error))?;
    Ok(state)
}

/// Whether a process died while it made the file: only before it has its write-ahead log, a file has a journal that waits to be
/// rolled back (`SQLITE_READONLY_ROLLBACK`). Whoever opens it for writing next does that.
fn is_half_made(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { source: Error::Database(refusal), .. }
        if refusal.code().as_deref() == Some("776"))
}

/// Makes and migrates a file on a connection of its own, under SQLite's own write lock: any number of processes may
/// start at once. The driver's migrator is not used: it takes no lock on SQLite.
async fn prepare(options: &SqliteConnectOptions, path: &Path, patience: Duration) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| matches!(folder.try_exists(), Ok(false))) {
        return Err(StoreError::NoFolder { path: path.to_owned() });
    }
    let mut connection = connect(&options.clone().create_if_missing(true), path).await?;
    // Before anything is written: a foreign file is left as it is.
    inspect(&mut connection, path).await?;
    check(&mut connection, path).await?;
    migrate(&mut connection, path).await?;
    use_write_ahead_log(&mut connection, path, patience).await?;
    connection.close().await.map_err(|error| fault(path, error))
}

async fn connect(options: &SqliteConnectOptions, path: &Path) -> Result<SqliteConnection> {
    options.clone().disable_statement_logging().connect().await.map_err(|error| fault(path, error))
}

/// Whose the file is and which steps it has, as of one moment: another process may be making it.
async fn inspect(connection: &mut SqliteConnection, path: &Path) -> Result<State> {
    const TABLES: Sql = sql!("SELECT COUNT(*) AS tables FROM sqlite_schema");
    let mut connection = connection.begin().await.map_err(|error| fault(path, error))?;
    // SQLite itself takes a cut first page for a new file, and reads a cut last page as if zeroes followed. While the
    // write-ahead log has content, the page may be whole there.
    let page = number(&mut connection, sql!("PRAGMA page_size"), path).await?.unsigned_abs();
    let bytes = size(path);
    if !bytes.is_multiple_of(page) && size(&beside(path, "-wal")) == 0 {
        let detail = format!("its {bytes} bytes are not whole pages of {page}");
        return Err(StoreError::Damaged { path: path.to_owned(), detail });
    }
    let id = number(&mut connection, sql!("PRAGMA application_id"), path).await?;
    let tables = number(&mut connection, TABLES, path).await?;
    match (id, tables) {
        (0, 0) => Ok(State::Empty),
        (APPLICATION_ID, _) => {
            let rows = query::<Sqlite>(&mut connection, &place(path), meta::MIGRATIONS, vals![]).await?;
            migrate::state(STEPS, &rows)
        }
        (id, tables) => {
            let detail = format!("{tables} tables of another program, application id {id}");
            Err(StoreError::Foreign { place: place(path), detail })
        }
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads every page: damage is told before it is made worse.
async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let rows = sqlx::query("PRAGMA quick_check(100)").fetch_all(connection).await;
    let texts = rows.and_then(|rows| rows.iter().map(|row| row.try_get::<String, _>(0)).collect());
    let found: Vec<String> = texts.map_err(|error| fault(path, error))?;
    let path = path.to_owned();
    // A row that may not be mended by hand while a page is broken.
    match found.iter().find(|line| !line.starts_with(BROKEN_CHECK)).or(found.first()).cloned() {
        Some(line) if line == "ok" => Ok(()),
        Some(detail) if detail.starts_with(BROKEN_CHECK) => Err(StoreError::Forbidden { path, detail }),
        damage => Err(StoreError::Damaged { path, detail: damage.unwrap_or_default() }),
    }
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let broken = |error| fault(path, error);
    let place = place(path);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(broken)?;
    // Again, now that nobody else can write: another process may have been first.
    let state = inspect(&mut transaction, path).await?;
    let missing = migrate::missing(STEPS, state);
    if state == State::Empty {
        const TABLE: &str = "PRAGMA application_id = 1330463025; CREATE TABLE oma_migrations (\
            version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL\
            ) STRICT";
        sqlx::raw_sql(TABLE).execute(&mut *transaction).await.map_err(broken)?;
    }
    for step in missing {
        sqlx::raw_sql(step.text).execute(&mut *transaction).await.map_err(broken)?;
        execute::<Sqlite>(&mut transaction, &place, meta::MIGRATED, step.values()).await?;
        tracing::info!(path = %path.display(), version = step.version, "schema step applied");
    }
    if state == State::Empty {
        execute::<Sqlite>(&mut transaction, &place, meta::SET, migrate::instance()).await?;
    }
    // SQLite opens a file that may not be written for reading, without a word, and begins "immediate" transactions on it.
    execute::<Sqlite>(&mut transaction, &place, meta::TOUCH, vals![INSTANCE]).await?;
    transaction.commit().await.map_err(broken)
}

async fn use_write_ahead_log(
    connection: &mut SqliteConnection,
    path: &Path,
    patience: Duration,
) -> Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await {
            Ok(_) => return Ok(()),
            Err(error) => match fault(path, error) {
                StoreError::Database { fault: Fault::Busy, .. } if waited < patience => {
                    waited += PAUSE;
                    tokio::time::sleep(PAUSE).await;
                }
                refused => return Err(refused),
            },
        }
    }
}

async fn number(connection: &mut SqliteConnection, sql: Sql, path: &Path) -> Result<i64> {
    let row = sqlx::query(sql.text(Dialect::Sqlite)).fetch_one(connection).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| fault(path, error))
}
