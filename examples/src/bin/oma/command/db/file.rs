//! The file of an export, or a standard stream in its place.

use std::io;
use std::path::Path;

use oma_core::Result;
use oma_store::{Contents, SqlStore};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncBufRead, BufReader, BufWriter};

use oma_examples::failure::{io_error, read_error};

/// Rows are read and written in pieces of this size.
const BUFFER: usize = 1 << 20;

/// Whether a path stands for a standard stream.
pub(super) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes an export to a new file, readable by its owner only. A file that was not finished is removed.
pub(super) async fn write(store: &SqlStore, path: &Path) -> Result<Contents> {
    if is_stream(path) {
        return store.export_database(&mut BufWriter::with_capacity(BUFFER, tokio::io::stdout())).await;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path).await;
    let file = file.map_err(|error| io_error("create", path.display(), error))?;
    let written = fill(store, path, file).await;
    if written.is_err() {
        // The failure that is told is the first one.
        let _ = tokio::fs::remove_file(path).await;
    }
    written
}

async fn fill(store: &SqlStore, path: &Path, file: File) -> Result<Contents> {
    let mut file = BufWriter::with_capacity(BUFFER, file);
    let contents = store.export_database(&mut file).await?;
    let synced = file.into_inner().sync_all().await;
    synced.map(|()| contents).map_err(|error| io_error("write", path.display(), error))
}

/// The lines of an export.
pub(super) async fn open(path: &Path) -> Result<Box<dyn AsyncBufRead + Unpin + Send>> {
    if is_stream(path) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, tokio::io::stdin())));
    }
    let failed = |error| read_error("read", path.display(), error);
    let file = File::open(path).await.map_err(failed)?;
    if file.metadata().await.map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
}
