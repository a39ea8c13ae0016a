//! The façade over the drivers: statements in, rows out.
//!
//! ```text
//! job_store.rs … export_registry.rs     what the traits promise, in terms of Tx and Row
//!        │ Sql + Val                ▲ Row
//!        ▼                          │
//!        Db ── Tx                   │   this module: no driver type passes it
//!        │                          │
//! dialect/sqlite ────────────────── ┘   Engine and Transaction, one folder per engine
//! ```

mod row;
mod sql;
mod value;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub(crate) use row::{Fields, Row};
pub(crate) use sql::{Placeholder, Sql, dollar, dollar_len, sql};
pub(crate) use value::{ToVal, Val, collect, vals};

use crate::dialect::Dialect;
use crate::error::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// What a database engine does for the store.
#[async_trait]
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    /// Which statements it needs.
    fn dialect(&self) -> Dialect;

    /// Reads, outside of a transaction, what was committed before.
    async fn query(&self, text: &'static str, values: Vec<Val>) -> Result<Vec<Row>>;

    /// Begins a transaction that only reads, all of it as of one moment.
    async fn snapshot(&self) -> Result<Box<dyn Transaction>>;

    /// Begins a transaction that may write; it waits for other writers up to the configured time.
    async fn begin(&self) -> Result<Box<dyn Transaction>>;

    /// Waits for what is under way and closes all connections.
    async fn close(&self);
}

/// A transaction. Dropped without a commit, it leaves no trace.
#[async_trait]
pub(crate) trait Transaction: fmt::Debug + Send {
    /// Reads, with what this transaction wrote.
    async fn query(&mut self, text: &'static str, values: Vec<Val>) -> Result<Vec<Row>>;

    /// Writes; answers the number of rows found.
    async fn execute(&mut self, text: &'static str, values: Vec<Val>) -> Result<u64>;

    /// Makes it durable.
    async fn commit(self: Box<Self>) -> Result<()>;
}

/// A database.
#[derive(Clone, Debug)]
pub(crate) struct Db(Arc<dyn Engine>);

impl Db {
    pub(crate) fn new(engine: impl Engine + 'static) -> Self {
        Self(Arc::new(engine))
    }

    /// All records found, each read by `record`.
    pub(crate) async fn all<T>(
        &self,
        sql: Sql,
        values: Result<Vec<Val>>,
        record: fn(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.0.query(sql.text(self.0.dialect()), values?).await?.iter().map(record).collect()
    }

    /// The first record found.
    pub(crate) async fn find<T>(
        &self,
        sql: Sql,
        values: Result<Vec<Val>>,
        record: fn(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.all(sql, values, record).await?.into_iter().next())
    }

    pub(crate) async fn snapshot(&self) -> Result<Tx> {
        Ok(Tx { dialect: self.0.dialect(), inner: self.0.snapshot().await? })
    }

    pub(crate) async fn begin(&self) -> Result<Tx> {
        Ok(Tx { dialect: self.0.dialect(), inner: self.0.begin().await? })
    }

    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

/// A transaction of a [`Db`].
#[derive(Debug)]
pub(crate) struct Tx {
    dialect: Dialect,
    inner: Box<dyn Transaction>,
}

impl Tx {
    /// All records found, each read by `record`.
    pub(crate) async fn all<T>(
        &mut self,
        sql: Sql,
        values: Result<Vec<Val>>,
        record: fn(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.inner.query(sql.text(self.dialect), values?).await?.iter().map(record).collect()
    }

    /// The first record found.
    pub(crate) async fn find<T>(
        &mut self,
        sql: Sql,
        values: Result<Vec<Val>>,
        record: fn(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.all(sql, values, record).await?.into_iter().next())
    }

    /// Writes; answers the number of rows found.
    pub(crate) async fn execute(&mut self, sql: Sql, values: Result<Vec<Val>>) -> Result<u64> {
        self.inner.execute(sql.text(self.dialect), values?).await
    }

    pub(crate) async fn commit(self) -> Result<()> {
        self.inner.commit().await
    }
}
