//! Connections of one engine, and transactions on them: the same for every driver.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::{Column, Database, Error, Pool};

use super::{Dialect, Fault};
use crate::db::{Engine, Row, Sql, Transaction, Val};
use crate::error::{Result, StoreError};

/// What a driver answers.
pub(crate) type Outcome<T> = std::result::Result<T, Error>;

/// A connection of a driver.
pub(crate) type Connection<D> = <<D as Driver>::Db as Database>::Connection;

/// How a driver connects.
pub(crate) type Options<D> = <Connection<D> as sqlx::Connection>::Options;

/// What the store needs of a driver.
pub(crate) trait Driver: fmt::Debug + Send + Sync + 'static {
    /// The driver's own type of database.
    type Db: Database;
    /// Which statements it needs.
    const DIALECT: Dialect;
    /// Begins a transaction that writes.
    const BEGIN: &'static str;
    /// Begins a transaction that reads, all of it as of one moment.
    const SNAPSHOT: &'static str;

    /// Runs a statement and reads its rows.
    fn query<'c>(
        on: &'c mut Connection<Self>,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<Vec<Row>>>;

    /// Runs a statement; answers the number of rows found.
    fn execute<'c>(
        on: &'c mut Connection<Self>,
        text: &'static str,
        values: Vec<Val>,
    ) -> BoxFuture<'c, Outcome<u64>>;

    /// Has the engine look at every page and index of its file, over a connection made with these options; answers what it finds.
    /// A server has nothing like it that changes nothing and is cheap.
    fn integrity<'c>(options: &'c Options<Self>) -> BoxFuture<'c, Outcome<Vec<String>>>;

    /// What a refusal of the engine means.
    fn fault(refusal: &dyn DatabaseError) -> Fault;
}

/// Rows as the store reads them; the names of the columns are shared.
pub(crate) fn rows<R: sqlx::Row>(found: &[R], read: fn(&R, usize) -> Outcome<Val>) -> Outcome<Vec<Row>> {
    let Some(first) = found.first() else {
        return Ok(Vec::new());
    };
    let names: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let one = |row: &R| {
        let values: Outcome<_> = (0..names.len()).map(|at| read(row, at)).collect();
        Ok(Row::new(names.clone(), values?))
    };
    found.iter().map(one).collect()
}

/// The store's error for one of a driver's.
pub(crate) fn fault<D: Driver>(place: &str, error: Error) -> StoreError {
    let fault = match &error {
        Error::Database(refusal) => D::fault(refusal.as_ref()),
        Error::PoolTimedOut => Fault::Exhausted,
        Error::Decode(_) | Error::ColumnDecode { .. } => Fault::Damaged,
        Error::Encode(_) => Fault::Value,
        Error::Configuration(_) | Error::Tls(_) => Fault::CannotConnect,
        _ => Fault::Unreachable,
    };
    StoreError::Database { place: place.to_owned(), fault, source: error }
}

/// Runs a statement of the store on a connection.
pub(crate) async fn execute<D: Driver>(
    on: &mut Connection<D>,
    place: &str,
    sql: Sql,
    values: Result<Vec<Val>>,
) -> Result<u64> {
    D::execute(on, sql.text(D::DIALECT), values?).await.map_err(|error| fault::<D>(place, error))
}

/// Runs a statement of the store on a connection and reads its rows.
pub(crate) async fn query<D: Driver>(
    on: &mut Connection<D>,
    place: &str,
    sql: Sql,
    values: Result<Vec<Val>>,
) -> Result<Vec<Row>> {
    D::query(on, sql.text(D::DIALECT), values?).await.map_err(|error| fault::<D>(place, error))
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Pools<D: Driver> {
    place: String,
    /// None when it was opened for reading.
    writers: Option<Pool<D::Db>>,
    readers: Pool<D::Db>,
    /// How a transaction that writes is begun.
    begin: &'static str,
}

impl<D: Driver> Pools<D> {
    pub(crate) fn new(place: String, writers: Option<Pool<D::Db>>, readers: Pool<D::Db>) -> Self {
        Self { place, writers, readers, begin: D::BEGIN }
    }

    /// With another way to begin a transaction that writes.
    #[cfg_attr(
        not(any(feature = "mysql", feature = "postgres")),
        allow(dead_code, reason = "for servers; SQLite has one way")
    )]
    pub(crate) fn begun_with(self, begin: &'static str) -> Self {
        Self { begin, ..self }
    }

    async fn acquire(&self, pool: &Pool<D::Db>) -> Result<PoolConnection<D::Db>> {
        pool.acquire().await.map_err(|error| self.refused(pool, error))
    }

    async fn begun(&self, pool: &Pool<D::Db>, text: &'static str) -> Result<Box<dyn Transaction>> {
        let inner = pool.begin_with(text).await.map_err(|error| self.refused(pool, error))?;
        Ok(Box::new(Begun::<D> { place: self.place.clone(), inner }))
    }

    /// A pool tries to connect until its time is up: what it did not get, it could not make.
    fn refused(&self, pool: &Pool<D::Db>, error: Error) -> StoreError {
        let full = pool.size() >= pool.options().get_max_connections();
        match error {
            Error::PoolTimedOut if !full => StoreError::away(&self.place, error),
            error => fault::<D>(&self.place, error),
        }
    }
}

#[async_trait]
impl<D: Driver> Engine for Pools<D> {
    fn dialect(&self) -> Dialect {
        D::DIALECT
    }

    fn place(&self) -> &str {
        &self.place
    }

    async fn query(&self, text: &'static str, values: Vec<Val>) -> Result<Vec<Row>> {
        let mut connection = self.acquire(&self.readers).await?;
        D::query(&mut connection, text, values).await.map_err(|error| fault::<D>(&self.place, error))
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let writers = self.writers.as_ref().ok_or(StoreError::ReadOnly)?;
        self.begun(writers, self.begin).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Transaction>> {
        self.begun(&self.readers, D::SNAPSHOT).await
    }

    async fn integrity(&self) -> Result<Vec<String>> {
        let options = self.readers.connect_options();
        D::integrity(&options).await.map_err(|error| fault::<D>(&self.place, error))
    }

    async fn close(&self) {
        // Readers first: the last connection to an SQLite file, the writer, folds the log into the file.
        self.readers.close().await;
        if let Some(writers) = &self.writers {
            writers.close().await;
        }
    }
}

#[derive(Debug)]
struct Begun<D: Driver> {
    place: String,
    inner: sqlx::Transaction<'static, D::Db>,
}

#[async_trait]
impl<D: Driver> Transaction for Begun<D> {
    async fn query(&mut self, text: &'static str, values: Vec<Val>) -> Result<Vec<Row>> {
        D::query(&mut self.inner, text, values).await.map_err(|error| fault::<D>(&self.place, error))
    }

    async fn execute(&mut self, text: &'static str, values: Vec<Val>) -> Result<u64> {
        D::execute(&mut self.inner, text, values).await.map_err(|error| fault::<D>(&self.place, error))
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { place, inner } = *self;
        inner.commit().await.map_err(|error| fault::<D>(&place, error))
    }
}
