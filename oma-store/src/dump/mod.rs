//! A whole database as a file of lines, and back, on whatever engine.
//!
//! ```text
//! {"oma":"database","format":1,"schema":6,"instance":"…"}
//! {"table":"ossea_configs","row":{"id":1,"name":"cloud-1",…}}      tables in the order of `sql::tables`,
//! {"table":"vm_disks","row":{"id":1,"vm_context_id":"ctx-…",…}}    rows by their keys, columns as in the schema
//! {"end":{"rows":{"ossea_configs":1,…},"fingerprint":"…"}}         of all bytes before this line
//! ```
//!
//! Times are milliseconds since 1970, UTC. Two databases with the same records give the same bytes, whatever their engines.

mod line;
mod read;
mod write;

use std::collections::BTreeMap;

use oma_core::InstanceId;
use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::error::StoreError;
use crate::store::SqlStore;

/// What a moved database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The deployment, whose mark the volumes bear.
    pub instance: InstanceId,
    /// Rows of each table.
    pub rows: BTreeMap<&'static str, u64>,
    /// Tells two files of different contents apart: a fingerprint of all bytes before the last line.
    pub fingerprint: String,
}

impl SqlStore {
    /// Writes the whole database, as of one moment, as lines of JSON that [`SqlStore::import_database`] takes on any engine. Others
    /// can go on writing, but what they write is not in it: stop them first to move an appliance.
    ///
    /// # Errors
    /// `Busy`, naming job and owner, while a lease has not ended; `Corrupt`, naming the row, when one cannot be read;
    /// what the writer answers.
    pub async fn export_database<W>(&self, writer: &mut W) -> oma_core::Result<Contents>
    where
        W: AsyncWrite + Unpin + Send,
    {
        self.write_all(writer).await.map_err(|error| self.refused(error, "export"))
    }

    /// Takes in what [`SqlStore::export_database`] wrote, with the id of its deployment, and reads back every row to compare it with
    /// the file. This database must hold no record yet. It is one transaction: when it fails, nothing was imported.
    ///
    /// From then on the database that was exported must not be used any more: both are the same deployment now.
    ///
    /// # Errors
    /// `Conflict` when the database holds records; `Invalid` for a file of something else; `Unsupported` for one of another
    /// format or schema; `Corrupt`, naming the line, for one that was cut, damaged or edited; what the reader answers.
    pub async fn import_database<R>(&self, reader: &mut R) -> oma_core::Result<Contents>
    where
        R: AsyncBufRead + Unpin + Send,
    {
        self.read_all(reader).await.map_err(|error| self.refused(error, "import into"))
    }

    fn refused(&self, error: StoreError, operation: &'static str) -> oma_core::Error {
        error.at(operation, self.db.place())
    }
}
