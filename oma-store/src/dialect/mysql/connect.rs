//! How a database on a server is found, named and migrated.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{ConnectOptions, Error};

use super::MySql;
use crate::config::StoreConfig;
use crate::db::{Sql, Val, sql, vals};
use crate::dialect::pools::{self, Driver, execute, query};
use crate::dialect::server::{self, Served};
use crate::error::{Result, StoreError};
use crate::migrate::{self, INSTANCE, State, Step};
use crate::sql::meta;

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS oma_migrations (\
    version BIGINT NOT NULL PRIMARY KEY, name VARCHAR(191) NOT NULL, checksum VARCHAR(191) NOT NULL, \
    applied_at BIGINT NOT NULL) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

impl Served for MySql {
    /// Each may be run again after a crash in its middle: definitions are not undone on this engine.
    const STEPS: &'static [Step] = &[
        Step::new(1, "replication", include_str!("../../../migrations/mysql/0001_replication.sql")),
        Step::new(2, "automation", include_str!("../../../migrations/mysql/0002_automation.sql")),
        Step::new(3, "journal", include_str!("../../../migrations/mysql/0003_journal.sql")),
        Step::new(4, "reports", include_str!("../../../migrations/mysql/0004_reports.sql")),
        Step::new(5, "points", include_str!("../../../migrations/mysql/0005_points.sql")),
        Step::new(6, "reverts", include_str!("../../../migrations/mysql/0006_reverts.sql")),
        Step::new(7, "operations", include_str!("../../../migrations/mysql/0007_operations.sql")),
        Step::new(8, "accounts", include_str!("../../../migrations/mysql/0008_accounts.sql")),
        Step::new(9, "work", include_str!("../../../migrations/mysql/0009_work.sql")),
        Step::new(10, "workers", include_str!("../../../migrations/mysql/0010_workers.sql")),
        Step::new(11, "cleanups", include_str!("../../../migrations/mysql/0011_cleanups.sql")),
        Step::new(12, "lists", include_str!("../../../migrations/mysql/0012_lists.sql")),
    ];
    const TABLES: Sql = sql!(
        "SELECT COUNT(*) AS tables, COUNT(CASE WHEN table_name = 'oma_migrations' THEN 1 END) AS ours \
             FROM information_schema.tables WHERE table_schema = DATABASE()"
    );
    const BEGIN_ALONE: &'static str = super::BEGIN_ALONE;

    fn session(patience: Duration) -> Vec<(&'static str, Vec<Val>)> {
        vec![
            (super::STRICT, Vec::new()),
            (super::ISOLATION, Vec::new()),
            (ROWS, vec![seconds(patience)]),
            (DEFINITIONS, vec![seconds(patience)]),
        ]
    }

    fn options(config: &StoreConfig) -> Result<MySqlConnectOptions> {
        const FORM: StoreError =
            StoreError::Url("its URL is not understood; write mysql://USER@HOST/DATABASE[?socket=PATH]");
        if !config.url.contains("://") {
            return Err(FORM);
        }
        let options: MySqlConnectOptions = config.url.parse().map_err(|_| FORM)?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(StoreError::Url("its URL names no database; write mysql://USER@HOST/DATABASE"));
        }
        let asked = config.url.contains("ssl-mode=") || config.url.contains("sslmode=");
        let local = options.get_socket().is_some() || server::is_local(options.get_host());
        let mode = if asked || local { options.get_ssl_mode() } else { MySqlSslMode::VerifyIdentity };
        Ok(options
            .ssl_mode(mode)
            .charset("utf8mb4")
            .statement_cache_capacity(server::STATEMENTS)
            .disable_statement_logging())
    }

    fn place(options: &MySqlConnectOptions) -> String {
        let host =
            options.get_socket().map_or(options.get_host().to_owned(), |path| path.display().to_string());
        format!("{} at {host}", options.get_database().unwrap_or_default())
    }

    fn migrate<'c>(
        on: &'c mut MySqlConnection,
        place: &'c str,
        patience: Duration,
    ) -> BoxFuture<'c, Result<()>> {
        migrate(on, place, patience).boxed()
    }
}

/// How long a row is waited for that another one changes.
const ROWS: &str = "SET SESSION innodb_lock_wait_timeout = ?";
/// How long a table is waited for that another one redefines, or that is to be redefined. The server would wait for a day or a
/// year, and whoever came later behind it.
const DEFINITIONS: &str = "SET SESSION lock_wait_timeout = ?";

/// A time to wait as the server takes it: whole seconds, from one to those of a year.
fn seconds(patience: Duration) -> Val {
    Val::Int(Some(i64::try_from(patience.as_secs()).unwrap_or(i64::MAX).clamp(1, 31_536_000)))
}

fn fault(place: &str, error: Error) -> StoreError {
    pools::fault::<MySql>(place, error)
}

/// Under a lock of the server's, for this database: any number of processes may start at once. The driver's migrator is
/// not used: MariaDB refuses the endless wait that it asks for, and it goes on without the lock.
async fn migrate(on: &mut MySqlConnection, place: &str, patience: Duration) -> Result<()> {
    const LOCK: Sql = sql!("SELECT GET_LOCK(CONCAT('oma_', MD5(DATABASE())), ?) AS locked");
    for text in [ROWS, DEFINITIONS] {
        MySql::execute(on, text, vec![seconds(patience)]).await.map_err(|error| fault(place, error))?;
    }
    let rows = query::<MySql>(on, place, LOCK, Ok(vec![seconds(patience)])).await?;
    let locked = rows.first().map_or(Ok(None), |row| row.fields("lock", "locked").opt_int("locked"))?;
    if locked != Some(1) {
        return Err(StoreError::Migrating);
    }
    let state = server::inspect::<MySql>(on, place).await?;
    if state == State::Empty {
        sqlx::raw_sql(MIGRATIONS_TABLE).execute(&mut *on).await.map_err(|error| fault(place, error))?;
    }
    for step in migrate::missing(MySql::STEPS, state) {
        sqlx::raw_sql(step.text).execute(&mut *on).await.map_err(|error| fault(place, error))?;
        execute::<MySql>(on, place, meta::MIGRATED, step.values()).await?;
        tracing::info!(place, version = step.version, "schema step applied");
    }
    if query::<MySql>(on, place, meta::GET, vals![INSTANCE]).await?.is_empty() {
        execute::<MySql>(on, place, meta::SET, migrate::instance()).await?;
    }
    execute::<MySql>(on, place, meta::TOUCH, vals![INSTANCE]).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> MySqlSslMode {
        let config = StoreConfig { url: url.to_owned(), ..StoreConfig::default() };
        MySql::options(&config).unwrap().get_ssl_mode()
    }

    #[test]
    fn l29_a_server_elsewhere_must_prove_who_it_is() {
        use MySqlSslMode::{Disabled, Preferred, VerifyIdentity};
        for (url, expected) in [
            ("mysql://oma@db.example/oma", VerifyIdentity),
            ("mysql://oma@10.0.0.7:4000/oma", VerifyIdentity),
            ("mysql://oma@db.example/oma?ssl-mode=DISABLED", Disabled),
            ("mysql://oma@127.0.0.1/oma", Preferred),
            ("mysql://oma@[::1]/oma", Preferred),
            ("mysql://oma@localhost/oma?socket=/run/db.sock", Preferred),
        ] {
            assert!(std::mem::discriminant(&mode(url)) == std::mem::discriminant(&expected), "{url}");
        }
    }
}
