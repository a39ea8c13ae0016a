//! What differs between engines: one folder for each, and nothing of them outside.

mod fault;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod moment;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(any(feature = "sqlite", feature = "mysql", feature = "postgres"))]
pub(crate) mod pools;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) mod server;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

pub(crate) use fault::Fault;

use crate::config::StoreConfig;
use crate::db::{Db, Sql, sql};
use crate::error::{Result, StoreError};
use crate::migrate::Schema;

/// An engine's way of speaking SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each is made by the feature of its name")]
pub(crate) enum Dialect {
    Sqlite,
    MySql,
    Postgres,
}

impl Dialect {
    /// Asks for the time by the database's clock; SQLite has none but this machine's.
    pub(crate) const fn clock(self) -> Option<Sql> {
        match self {
            Self::Sqlite => None,
            Self::MySql | Self::Postgres => Some(sql!(
                sqlite: "",
                mysql: "SELECT UTC_TIMESTAMP(3) AS at_time",
                postgres: "SELECT clock_timestamp() AS at_time",
            )),
        }
    }
}

/// Statements about the partitions of a table, one a month.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Months {
    /// Makes those of the month of a moment and of the coming ones; answers how many it made.
    pub(crate) add: Sql,
    /// Drops those that ended before a moment; answers how many rows they had.
    pub(crate) drop: Sql,
}

impl Dialect {
    /// Whether numbers that it gives out go on by themselves behind those that were written.
    pub(crate) const fn counts_on(self) -> bool {
        match self {
            Self::Sqlite | Self::MySql => true,
            Self::Postgres => false,
        }
    }

    /// How it is told about partitions; the functions are part of the schema.
    pub(crate) const fn months(self) -> Option<Months> {
        match self {
            // InnoDB has no foreign keys on tables with partitions.
            Self::Sqlite | Self::MySql => None,
            Self::Postgres => Some(Months {
                add: sql!(sqlite: "", mysql: "", postgres: "SELECT oma_add_months(?, ?) AS number"),
                drop: sql!(sqlite: "", mysql: "", postgres: "SELECT oma_drop_months(?, ?) AS number"),
            }),
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
#[cfg_attr(
    not(any(feature = "sqlite", feature = "mysql", feature = "postgres")),
    allow(unused_variables, reason = "without an engine nothing can be opened")
)]
pub(crate) async fn open(config: &StoreConfig, mode: Mode) -> Result<Db> {
    match scheme(config) {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::open(config, mode).await,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => server::open::<mysql::MySql>(config, mode).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => server::open::<postgres::Postgres>(config, mode).await,
        other => Err(unknown(other)),
    }
}

/// Which schema the database has that a URL names; changes nothing.
pub(crate) async fn schema(config: &StoreConfig) -> Result<Schema> {
    match scheme(config) {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::schema(config).await,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => server::schema::<mysql::MySql>(config).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => server::schema::<postgres::Postgres>(config).await,
        other => Err(unknown(other)),
    }
}

fn scheme(config: &StoreConfig) -> &str {
    config.url.split_once(':').map_or("", |(scheme, _)| scheme)
}

fn unknown(scheme: &str) -> StoreError {
    match scheme {
        "sqlite" => StoreError::NotBuilt("sqlite"),
        "mysql" | "mariadb" => StoreError::NotBuilt("mysql"),
        "postgres" | "postgresql" => StoreError::NotBuilt("postgres"),
        _ => StoreError::Url(
            "its URL names no known engine; write sqlite:PATH, mysql://USER@HOST/DATABASE or postgres://USER@HOST/DATABASE",
        ),
    }
}
