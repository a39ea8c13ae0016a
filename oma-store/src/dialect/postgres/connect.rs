//! How a database on a server is found, named and migrated.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Error};

use super::Postgres;
use crate::config::StoreConfig;
use crate::db::{Sql, Val, sql, vals};
use crate::dialect::pools::{self, Driver, execute, query};
use crate::dialect::server::{self, Served};
use crate::error::{Result, StoreError};
use crate::migrate::{self, INSTANCE, State, Step};
use crate::months;
use crate::sql::meta;

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS oma_migrations (\
    version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)";

impl Served for Postgres {
    const STEPS: &'static [Step] = &[
        Step::new(1, "replication", include_str!("../../../migrations/postgres/0001_replication.sql")),
        Step::new(2, "automation", include_str!("../../../migrations/postgres/0002_automation.sql")),
        Step::new(3, "journal", include_str!("../../../migrations/postgres/0003_journal.sql")),
        Step::new(4, "reports", include_str!("../../../migrations/postgres/0004_reports.sql")),
        Step::new(5, "points", include_str!("../../../migrations/postgres/0005_points.sql")),
        Step::new(6, "reverts", include_str!("../../../migrations/postgres/0006_reverts.sql")),
        Step::new(7, "operations", include_str!("../../../migrations/postgres/0007_operations.sql")),
        Step::new(8, "accounts", include_str!("../../../migrations/postgres/0008_accounts.sql")),
        Step::new(9, "work", include_str!("../../../migrations/postgres/0009_work.sql")),
        Step::new(10, "workers", include_str!("../../../migrations/postgres/0010_workers.sql")),
        Step::new(11, "cleanups", include_str!("../../../migrations/postgres/0011_cleanups.sql")),
        Step::new(12, "lists", include_str!("../../../migrations/postgres/0012_lists.sql")),
    ];
    const TABLES: Sql = sql!(
        "SELECT COUNT(*) AS tables, COUNT(CASE WHEN table_name = 'oma_migrations' THEN 1 END) AS ours \
             FROM information_schema.tables WHERE table_schema = current_schema()"
    );
    const BEGIN_ALONE: &'static str = Postgres::BEGIN;

    fn session(_: Duration) -> Vec<(&'static str, Vec<Val>)> {
        // The options that it connects with say it all.
        Vec::new()
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
            .statement_cache_capacity(server::STATEMENTS)
            .disable_statement_logging())
    }

    fn place(options: &PgConnectOptions) -> String {
        let host =
            options.get_socket().map_or(options.get_host().to_owned(), |path| path.display().to_string());
        format!("{} at {host}", options.get_database().unwrap_or_default())
    }

    fn migrate<'c>(
        on: &'c mut PgConnection,
        place: &'c str,
        patience: Duration,
    ) -> BoxFuture<'c, Result<()>> {
        async move {
            migrate(on, place, patience).await?;
            add_months(on, place).await
        }
        .boxed()
    }
}

fn fault(place: &str, error: Error) -> StoreError {
    pools::fault::<Postgres>(place, error)
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
    let state = server::inspect::<Postgres>(&mut tx, place).await?;
    if state == State::Empty {
        sqlx::raw_sql(MIGRATIONS_TABLE).execute(&mut *tx).await.map_err(broken)?;
    }
    for step in migrate::missing(Postgres::STEPS, state) {
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
        let config = StoreConfig { url: url.to_owned(), ..StoreConfig::default() };
        Postgres::options(&config).unwrap().get_ssl_mode()
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
