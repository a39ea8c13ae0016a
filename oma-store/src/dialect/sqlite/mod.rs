//! SQLite: one file, one writer, several readers (write-ahead log).

mod connect;
mod fault;
mod value;

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::{Executor, Sqlite, SqlitePool};

pub(crate) use connect::open;

use self::fault::fault;
use crate::db::{Engine, Row, Transaction, Val};
use crate::dialect::Dialect;
use crate::error::{Result, StoreError};

/// An open database file.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// One connection, so writers of this process queue here and only those of others meet at the file's lock.
    writer: Option<SqlitePool>,
    readers: SqlitePool,
}

#[async_trait]
impl Engine for File {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    async fn query(&self, text: &'static str, values: Vec<Val>) -> Result<Vec<Row>> {
        query(&self.readers, text, values).await.map_err(|error| fault(&self.path, error))
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let writer = self.writer.as_ref().ok_or(StoreError::ReadOnly)?;
        // Not deferred: such a transaction could not get the write lock later, however long it waits.
        self.begun(writer.begin_with("BEGIN IMMEDIATE").await)
    }

    async fn snapshot(&self) -> Result<Box<dyn Transaction>> {
        self.begun(self.readers.begin().await)
    }

    async fn close(&self) {
        // Readers first: the last connection to go, the writer, folds the log into the file.
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }
}

impl File {
    fn begun(&self, begun: Outcome<sqlx::Transaction<'static, Sqlite>>) -> Result<Box<dyn Transaction>> {
        let inner = begun.map_err(|error| fault(&self.path, error))?;
        Ok(Box::new(Begun { path: self.path.clone(), inner }))
    }
}

#[derive(Debug)]
struct Begun {
    path: PathBuf,
    inner: sqlx::Transaction<'static, Sqlite>,
}

#[async_trait]
impl Transaction for Begun {
    async fn query(&mut self, text: &'static str, values: Vec<Val>) -> Result<Vec<Row>> {
        query(&mut *self.inner, text, values).await.map_err(|error| fault(&self.path, error))
    }

    async fn execute(&mut self, text: &'static str, values: Vec<Val>) -> Result<u64> {
        let query = value::bind(text, values);
        match query.execute(&mut *self.inner).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(fault(&self.path, error)),
        }
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { path, inner } = *self;
        inner.commit().await.map_err(|error| fault(&path, error))
    }
}

type Outcome<T> = std::result::Result<T, sqlx::Error>;

async fn query<'e>(
    on: impl Executor<'e, Database = Sqlite>,
    text: &'static str,
    values: Vec<Val>,
) -> Outcome<Vec<Row>> {
    let found = value::bind(text, values).fetch_all(on).await?;
    value::rows(&found)
}

#[cfg(test)]
mod tests;
