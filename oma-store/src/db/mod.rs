//! The façade over the drivers: statements in, rows out.
//!
//! ```text
//! job_store.rs … export_registry.rs     what the traits promise, in terms of Tx and Row
//!        │ Sql + Val                ▲ Row
//!        ▼                          │
//!        Db ── Tx                   │   this module: no driver type passes it
//!        │                          │
//! dialect/pools.rs ──────────────── ┘   Engine and Transaction, over one Driver per engine
//! ```

mod row;
mod sql;
mod value;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oma_core::{Clock, Timestamp};

pub(crate) use row::{Fields, Row};
pub(crate) use sql::{Sql, dollar, dollar_len, dollars, sql};
pub(crate) use value::{ToVal, Val, collect, vals};

use crate::dialect::Dialect;
use crate::error::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// Faults of its file after which an engine looks for no more.
pub(crate) const MOST_FAULTS: usize = 1000;

/// What a database engine does for the store.
#[async_trait]
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    /// Which statements it needs.
    fn dialect(&self) -> Dialect;

    /// Where it is, for readers; without credentials.
    fn place(&self) -> &str;

    /// Reads, outside of a transaction, what was committed before.
    async fn query(&self, text: &'static str, values: Vec<Val>) -> Result<Vec<Row>>;

    /// Begins a transaction that only reads, all of it as of one moment.
    async fn snapshot(&self) -> Result<Box<dyn Transaction>>;

    /// What it finds wrong with its own file, in its words, one in each row; no more than [`MOST_FAULTS`]. Empty where it has no such
    /// check that changes nothing and is cheap.
    async fn integrity(&self) -> Result<Vec<String>>;

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
pub(crate) struct Db {
    engine: Arc<dyn Engine>,
    /// In place of the database's own clock.
    clock: Option<Arc<dyn Clock>>,
}

impl Db {
    pub(crate) fn new(engine: impl Engine + 'static) -> Self {
        Self { engine: Arc::new(engine), clock: None }
    }

    pub(crate) fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.engine.dialect()
    }

    pub(crate) fn place(&self) -> &str {
        self.engine.place()
    }

    /// All records found, each read by `record`.
    pub(crate) async fn all<T>(
        &self,
        sql: Sql,
        values: Result<Vec<Val>>,
        record: fn(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.engine.query(sql.text(self.dialect()), values?).await?.iter().map(record).collect()
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

    pub(crate) async fn integrity(&self) -> Result<Vec<String>> {
        self.engine.integrity().await
    }

    pub(crate) async fn snapshot(&self) -> Result<Tx> {
        Ok(self.tx(self.engine.snapshot().await?))
    }

    pub(crate) async fn begin(&self) -> Result<Tx> {
        Ok(self.tx(self.engine.begin().await?))
    }

    fn tx(&self, inner: Box<dyn Transaction>) -> Tx {
        Tx { dialect: self.dialect(), now: self.clock.as_ref().map(|clock| clock.now()), inner }
    }

    pub(crate) async fn close(&self) {
        self.engine.close().await;
    }
}

/// A transaction of a [`Db`].
#[derive(Debug)]
pub(crate) struct Tx {
    dialect: Dialect,
    /// Asked once: what a transaction writes, it writes at one time.
    now: Option<Timestamp>,
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

    /// The time by the database's clock, which all machines that share it have in common; the same for the whole
    /// transaction.
    pub(crate) async fn now(&mut self) -> Result<Timestamp> {
        if let Some(now) = self.now {
            return Ok(now);
        }
        let read = |row: &Row| row.fields("clock", "at_time").time("at_time");
        let now = match self.dialect.clock() {
            None => oma_core::SystemClock.now(),
            Some(sql) => {
                let answer = self.find(sql, vals![], read).await?;
                answer.ok_or_else(|| StoreError::Invalid("the database does not tell the time".to_owned()))?
            }
        };
        self.now = Some(now);
        Ok(now)
    }

    pub(crate) async fn commit(self) -> Result<()> {
        self.inner.commit().await
    }
}
