//! What the engines with a server have in common.

use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::{Connection as _, Pool};

use super::Mode;
use super::pools::{Connection, Driver, fault};
use crate::config::StoreConfig;
use crate::error::{Result, StoreError};

/// How long a connection that answered is taken to be there.
const FRESH: Duration = Duration::from_secs(1);

/// A pool as the store wants it; `session` is what each new connection is told first.
pub(super) async fn pool<D: Driver>(
    config: &StoreConfig,
    options: <Connection<D> as sqlx::Connection>::Options,
    place: &str,
) -> Result<Pool<D::Db>> {
    let pool = PoolOptions::<D::Db>::new()
        .max_connections(config.connections.max(1))
        .acquire_timeout(config.busy_timeout)
        // A server that was away is noticed before a transaction begins, not in its middle. The pool asks at each
        // release, so within so short a time it would be asked twice for one statement.
        .test_before_acquire(false)
        .before_acquire(|connection, pool| {
            Box::pin(async move {
                if pool.idle_for > FRESH {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    pool.connect_with(options).await.map_err(|error| fault::<D>(place, error))
}

/// A connection of its own: whatever it holds when it is dropped, goes with it.
pub(super) async fn detached<D: Driver>(pool: &Pool<D::Db>, place: &str) -> Result<Connection<D>> {
    let connection = pool.acquire().await.map_err(|error| fault::<D>(place, error))?;
    Ok(connection.detach())
}

pub(super) async fn closed<D: Driver>(connection: Connection<D>, place: &str) -> Result<()> {
    connection.close().await.map_err(|error| fault::<D>(place, error))
}

/// Who may write, and who only reads.
pub(super) fn writers<D: Driver>(pool: &Pool<D::Db>, mode: Mode) -> Option<Pool<D::Db>> {
    match mode {
        Mode::Write => Some(pool.clone()),
        Mode::Read => None,
    }
}

/// Whether what is said to a host stays on this machine.
pub(super) fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.starts_with('/')
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Refuses a database in which another program has its tables.
pub(super) fn owned(place: &str, tables: i64, ours: bool) -> Result<bool> {
    if tables > 0 && !ours {
        let detail = format!("{tables} tables of another program");
        return Err(StoreError::Foreign { place: place.to_owned(), detail });
    }
    Ok(ours)
}
