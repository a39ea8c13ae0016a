//! Opening a database on a server: find out whose it is, migrate it, then connect.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgSslMode};
use sqlx::{ConnectOptions, Connection, Error};

use super::Postgres;
use crate::config::StoreConfig;
use crate::db::{Db, Row, Sql, sql, vals};
use crate::dialect::pools::{self, Pools, execute, query};
use crate::dialect::{Mode, server};
use crate::error::{Result, StoreError};
use crate::migrate::{self, INSTANCE, Schema, State, Step};
use crate::months;
use crate::sql::meta;

const STEPS: &[Step] = &[
    Step::new(1, "replication", include_str!("../../../migrations/postgres/0001_replication.sql")),
    Step::new(2, "automation", include_str!("../../../migrations/postgres/0002_automation.sql")),
];

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS oma_migrations (\
    version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)";

/// How many statements a connection keeps prepared: all of the store's.
const STATEMENTS: usize = 512;

pub(crate) async fn open(config: &StoreConfig, mode: Mode) -> Result<Db> {
    let options = options(config)?;
    let place = place(&options);
    let pool = server::pool::<Postgres>(config, options, &place).await?;
    prepare(&pool, &place, mode, config.busy_timeout).await?;
    Ok(Db::new(Pools::<Postgres>::new(place, server::writers::<Postgres>(&pool, mode), pool)))
}

/// The database of a pool that somebody else made.
pub(crate) async fn given(pool: PgPool) -> Result<Db> {
    let place = place(&pool.connect_options());
    prepare(&pool, &place, Mode::Write, StoreConfig::default().busy_timeout).await?;
    Ok(Db::new(Pools::<Postgres>::new(place, Some(pool.clone()), pool)))
}

/// Which schema a database has.
pub(crate) async fn schema(config: &StoreConfig) -> Result<Schema> {
    let options = options(config)?;
    let place = place(&options);
    let mut connection = options.connect().await.map_err(|error| fault(&place, error))?;
    let state = inspect(&mut connection, &place).await?;
    server::closed::<Postgres>(connection, &place).await?;
    Ok(Schema::new(STEPS, state))
}

fn options(config: &StoreConfig) -> Result<PgConnectOptions> {
    const FORM: StoreError = StoreError::Url(
        "its URL is not understood; write postgres://USER@HOST/DATABASE[?host=SOCKET_FOLDER]",
    );
    if !config.url.contains("://") {
        return Err(FORM);
    }
    let options: PgConnectOptions = config.url.parse().map_err(|_| FORM)?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(StoreError::Url("its URL names no database; write postgres://USER@HOST/DATABASE"));
    }
    let asked = config.url.contains("ssl-mode=") || config.url.contains("sslmode=");
    let local = options.get_socket().is_some() || server::is_local(options.get_host());
    let mode = if asked || local { options.get_ssl_mode() } else { PgSslMode::VerifyFull };
    let patience = config.busy_timeout.as_millis().to_string();
    Ok(options
        .ssl_mode(mode)
        .application_name("oma")
        .options([("lock_timeout", patience.as_str())])
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging())
}

fn place(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or(options.get_host().to_owned(), |path| path.display().to_string());
    format!("{} at {host}", options.get_database().unwrap_or_default())
}

fn fault(place: &str, error: Error) -> StoreError {
    pools::fault::<Postgres>(place, error)
}

async fn prepare(pool: &PgPool, place: &str, mode: Mode, patience: Duration) -> Result<()> {
    let mut connection = server::detached::<Postgres>(pool, place).await?;
    let state = inspect(&mut connection, place).await?;
    match mode {
        Mode::Read => migrate::complete(STEPS, state)?,
        Mode::Write => {
            migrate(&mut connection, place, patience).await?;
            add_months(&mut connection, place).await?;
        }
    }
    server::closed::<Postgres>(connection, place).await
}

/// Whose the database (its first schema in the search path) is and which steps it has.
async fn inspect(on: &mut PgConnection, place: &str) -> Result<State> {
    const TABLES: Sql = sql!(
        "SELECT COUNT(*) AS tables, COUNT(CASE WHEN table_name = 'oma_migrations' THEN 1 END) AS ours \
         FROM information_schema.tables WHERE table_schema = current_schema()"
    );
    let rows = query::<Postgres>(on, place, TABLES, vals![]).await?;
    let counted = |name| rows.first().map_or(Ok(0), |row: &Row| row.fields("tables", name).int(name));
    if !server::owned(place, counted("tables")?, counted("ours")? > 0)? {
        return Ok(State::Empty);
    }
    migrate::state(STEPS, &query::<Postgres>(on, place, meta::MIGRATIONS, vals![]).await?)
}

/// Partitions for the coming months. Who is in the way of that is not waited for: the rest takes rows as well.
async fn add_months(on: &mut PgConnection, place: &str) -> Result<()> {
    const ADD: Sql = sql!("SELECT oma_add_months(?, clock_timestamp()) AS number");
    for table in months::TABLES {
        match query::<Postgres>(on, place, ADD, vals![table]).await {
            Err(error) if error.is_busy() => {
                tracing::warn!(place, table, error = %error, "no new partitions");
            }
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}

/// All steps in one transaction, which holds a lock of this database's: any number of processes may start at once. The
/// driver's migrator is not used: after a failed step it leaves its lock in the pool, and the next run waits for ever.
async fn migrate(on: &mut PgConnection, place: &str, patience: Duration) -> Result<()> {
    // `OMA1`, as in the header of the SQLite files.
    const LOCK: Sql = sql!("SELECT 1 AS locked FROM pg_advisory_xact_lock(1330463025)");
    const PATIENCE: Sql = sql!("SELECT set_config('lock_timeout', ?, true) AS patience");
    let broken = |error| fault(place, error);
    let mut tx = on.begin().await.map_err(broken)?;
    query::<Postgres>(&mut tx, place, PATIENCE, vals![patience.as_millis().to_string()]).await?;
    query::<Postgres>(&mut tx, place, LOCK, vals![]).await?;
    let state = inspect(&mut tx, place).await?;
    sqlx::raw_sql(MIGRATIONS_TABLE).execute(&mut *tx).await.map_err(broken)?;
    for step in migrate::missing(STEPS, state) {
        sqlx::raw_sql(step.text).execute(&mut *tx).await.map_err(broken)?;
        execute::<Postgres>(&mut tx, place, meta::MIGRATED, step.values()).await?;
        tracing::info!(place, version = step.version, "schema step applied");
    }
    if query::<Postgres>(&mut tx, place, meta::GET, vals![INSTANCE]).await?.is_empty() {
        execute::<Postgres>(&mut tx, place, meta::SET, migrate::instance()).await?;
    }
    execute::<Postgres>(&mut tx, place, meta::TOUCH, vals![INSTANCE]).await?;
    tx.commit().await.map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> PgSslMode {
        options(&StoreConfig { url: url.to_owned(), ..StoreConfig::default() }).unwrap().get_ssl_mode()
    }

    #[test]
    fn l29_a_server_elsewhere_must_prove_who_it_is() {
        use PgSslMode::{Disable, Prefer, VerifyFull};
        for (url, expected) in [
            ("postgres://oma@db.example/oma", VerifyFull),
            ("postgres://oma@10.0.0.7:4000/oma", VerifyFull),
            ("postgres://oma@db.example/oma?sslmode=disable", Disable),
            ("postgres://oma@127.0.0.1/oma", Prefer),
            ("postgres://oma@[::1]/oma", Prefer),
            ("postgres://oma@localhost/oma?host=/run/postgresql", Prefer),
        ] {
            assert!(std::mem::discriminant(&mode(url)) == std::mem::discriminant(&expected), "{url}");
        }
    }
}
