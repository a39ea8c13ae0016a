//! Opening a database on a server: find out whose it is, migrate it, then connect.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::pool::PoolOptions;
use sqlx::{ConnectOptions, Connection as _, Error, Pool};

use super::Mode;
use super::pools::{Connection, Driver, Options, Pools, fault, query};
use crate::config::StoreConfig;
use crate::db::{Db, Row, Sql, Val, vals};
use crate::error::{Result, StoreError};
use crate::migrate::{self, Schema, State, Step};
use crate::sql::meta;

/// How long a connection that answered is taken to be there.
const FRESH: Duration = Duration::from_secs(1);

/// How many statements a connection keeps prepared: all of the store's.
pub(super) const STATEMENTS: usize = 512;

/// A driver of an engine that has servers.
pub(crate) trait Served: Driver {
    /// The schema.
    const STEPS: &'static [Step];
    /// Counts the tables of the database, and those that only OMA has.
    const TABLES: Sql;
    /// Begins a transaction that writes on a connection that was told nothing.
    const BEGIN_ALONE: &'static str;

    /// What each connection of ours is told first: statements with their values. A lock is waited for no longer than
    /// `patience`.
    fn session(patience: Duration) -> Vec<(&'static str, Vec<Val>)>;

    /// The options of a URL that names a database; a server elsewhere must prove who it is.
    fn options(config: &StoreConfig) -> Result<Options<Self>>;

    /// Where it is, for readers; without credentials.
    fn place(options: &Options<Self>) -> String;

    /// Brings the database to the newest step; any number of processes may do so at once.
    fn migrate<'c>(
        on: &'c mut Connection<Self>,
        place: &'c str,
        patience: Duration,
    ) -> BoxFuture<'c, Result<()>>;
}

/// Opens a database, and in [`Mode::Write`] migrates it first.
pub(super) async fn open<D: Served>(config: &StoreConfig, mode: Mode) -> Result<Db> {
    let options = D::options(config)?;
    let place = D::place(&options);
    let connection = connect::<D>(&options, config.busy_timeout, &place).await?;
    prepare::<D>(connection, &place, mode, config.busy_timeout).await?;
    let pool = pool::<D>(config, options);
    let writers = match mode {
        Mode::Write => Some(pool.clone()),
        Mode::Read => None,
    };
    Ok(Db::new(Pools::<D>::new(place, writers, pool)))
}

/// The database of a pool that somebody else made.
pub(crate) async fn given<D: Served>(pool: Pool<D::Db>) -> Result<Db> {
    let place = D::place(&pool.connect_options());
    // As the pool makes them, but out of it: whatever it holds when it is dropped, goes with it.
    let connection = pool.acquire().await.map_err(|error| fault::<D>(&place, error))?.detach();
    prepare::<D>(connection, &place, Mode::Write, StoreConfig::default().busy_timeout).await?;
    Ok(Db::new(Pools::<D>::new(place, Some(pool.clone()), pool).begun_with(D::BEGIN_ALONE)))
}

/// Which schema a database has.
pub(super) async fn schema<D: Served>(config: &StoreConfig) -> Result<Schema> {
    let options = D::options(config)?;
    let place = D::place(&options);
    let mut connection = connect::<D>(&options, config.busy_timeout, &place).await?;
    let state = inspect::<D>(&mut connection, &place).await?;
    connection.close().await.map_err(|error| fault::<D>(&place, error))?;
    Ok(Schema::new(D::STEPS, state))
}

/// Whose the database is and which steps it has.
pub(super) async fn inspect<D: Served>(on: &mut Connection<D>, place: &str) -> Result<State> {
    let rows = query::<D>(on, place, D::TABLES, vals![]).await?;
    let counted = |name| rows.first().map_or(Ok(0), |row: &Row| row.fields("tables", name).int(name));
    match (counted("tables")?, counted("ours")?) {
        (0, _) => Ok(State::Empty),
        (tables, 0) => {
            let detail = format!("{tables} tables of another program");
            Err(StoreError::Foreign { place: place.to_owned(), detail })
        }
        _ => migrate::state(D::STEPS, &query::<D>(on, place, meta::MIGRATIONS, vals![]).await?),
    }
}

/// A connection of its own: a server that is away is told at once, and what for.
async fn connect<D: Served>(options: &Options<D>, patience: Duration, place: &str) -> Result<Connection<D>> {
    let away = |_| StoreError::away(place, Error::PoolTimedOut);
    let connected = tokio::time::timeout(patience, options.connect()).await.map_err(away)?;
    connected.map_err(|error| fault::<D>(place, error))
}

async fn prepare<D: Served>(
    mut connection: Connection<D>,
    place: &str,
    mode: Mode,
    patience: Duration,
) -> Result<()> {
    let state = inspect::<D>(&mut connection, place).await?;
    match mode {
        Mode::Read => migrate::complete(D::STEPS, state)?,
        Mode::Write => D::migrate(&mut connection, place, patience).await?,
    }
    connection.close().await.map_err(|error| fault::<D>(place, error))
}

fn pool<D: Served>(config: &StoreConfig, options: Options<D>) -> Pool<D::Db> {
    let patience = config.busy_timeout;
    PoolOptions::<D::Db>::new()
        .max_connections(config.connections.max(1))
        .acquire_timeout(config.busy_timeout)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for (text, values) in D::session(patience) {
                    D::execute(connection, text, values).await?;
                }
                Ok(())
            })
        })
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
        })
        .connect_lazy_with(options)
}

/// Whether what is said to a host stays on this machine.
pub(super) fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.starts_with('/')
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
