//! What differs between engines: one folder for each, and nothing of them outside.

mod fault;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

pub(crate) use fault::Fault;

use crate::config::StoreConfig;
use crate::db::{Db, Placeholder};
use crate::error::{Result, StoreError};

/// An engine's way of speaking SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "no engine was built in"))]
    Sqlite,
}

impl Dialect {
    pub(crate) const fn placeholder(self) -> Placeholder {
        match self {
            Self::Sqlite => Placeholder::Question,
        }
    }
}

/// What the store may do with its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Make it if it is not there, migrate it, read and write.
    Write,
    /// Read one that is there and is of this schema.
    Read,
}

/// Opens the database that a URL names.
pub(crate) async fn open(config: &StoreConfig, mode: Mode) -> Result<Db> {
    match config.url.split_once(':') {
        Some(("sqlite", path)) => open_sqlite(config, path, mode).await,
        Some(("mysql" | "mariadb", _)) => Err(StoreError::NotBuilt("mysql")),
        Some(("postgres" | "postgresql", _)) => Err(StoreError::NotBuilt("postgres")),
        _ => Err(StoreError::Url("its URL names no known engine; write sqlite:PATH")),
    }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(config: &StoreConfig, path: &str, mode: Mode) -> Result<Db> {
    sqlite::open(config, path, mode).await
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite(_: &StoreConfig, _: &str, _: Mode) -> Result<Db> {
    Err(StoreError::NotBuilt("sqlite"))
}
