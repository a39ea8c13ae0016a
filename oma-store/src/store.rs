use std::sync::Arc;

use oma_core::{Clock, Timestamp};

use crate::config::StoreConfig;
use crate::db::{Db, Tx};
use crate::dialect::{self, Mode};
use crate::error::Result;

/// All stores of OMA in one SQL database.
///
/// Cheap to clone: clones share the connections. Several processes may have one database open at a time.
#[derive(Clone, Debug)]
pub struct SqlStore {
    pub(crate) db: Db,
    clock: Arc<dyn Clock>,
}

impl SqlStore {
    /// Opens a database, makes it if it is not there, and brings it to this program's schema. The folder must exist.
    ///
    /// Every page of an SQLite file is checked first. Leases end by `clock`.
    ///
    /// # Errors
    /// `Corrupt` for a damaged file; `Unsupported` for one of a newer program or an engine that was not built in;
    /// `Invalid` for one that is not OMA's or a URL that names no database; `NotFound` without the folder;
    /// `PermissionDenied` for one that may not be written; `Busy` when another process keeps it locked.
    pub async fn open(config: &StoreConfig, clock: Arc<dyn Clock>) -> oma_core::Result<Self> {
        Self::open_as(config, clock, Mode::Write).await
    }

    /// Opens a database for reading, also while another process writes to it. It is neither made nor migrated, and every
    /// write is `PermissionDenied`.
    ///
    /// # Errors
    /// As [`SqlStore::open`]; `NotFound` when it is not there; `Conflict` when its schema is older than this program's.
    pub async fn open_read_only(config: &StoreConfig, clock: Arc<dyn Clock>) -> oma_core::Result<Self> {
        Self::open_as(config, clock, Mode::Read).await
    }

    async fn open_as(config: &StoreConfig, clock: Arc<dyn Clock>, mode: Mode) -> oma_core::Result<Self> {
        // A URL may carry a password: the error names the kind of database only.
        let kind = config.url.split_once(':').map_or("database", |(scheme, _)| scheme);
        let db = dialect::open(config, mode).await.map_err(|error| error.at("open store", kind))?;
        Ok(Self { db, clock })
    }

    /// Waits for what is under way and closes all connections, also those of clones. Later calls are `Unavailable`.
    pub async fn close(&self) {
        self.db.close().await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn begin(&self) -> Result<Tx> {
        self.db.begin().await
    }
}
