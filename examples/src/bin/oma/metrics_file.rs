//! Files of metrics, for a textfile collector.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oma_core::engine::CancellationToken;
use oma_core::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;

use crate::progress::Kept;
use oma_examples::failure::io_error;
use oma_examples::folder;

/// How metrics begin.
const MARK: &[u8; 11] = b"# HELP oma_";

/// So often the metrics of a run that goes on are written.
const EVERY: Duration = Duration::from_secs(2);

/// Writes how far a run is, again and again, until it is ended.
#[derive(Debug)]
pub(crate) struct Refreshing {
    end: CancellationToken,
    path: Arc<PathBuf>,
    run: Arc<Kept>,
    /// Answers what was there before.
    task: JoinHandle<String>,
}

impl Refreshing {
    /// Begins. What cannot be written now, the end of the run tells.
    pub(crate) fn start(path: PathBuf, run: Arc<Kept>) -> Self {
        let (end, path) = (CancellationToken::new(), Arc::new(path));
        let (ended, file, kept) = (end.clone(), Arc::clone(&path), Arc::clone(&run));
        let task = tokio::spawn(async move {
            let last = fs::read_to_string(&*file).unwrap_or_default();
            let mut ticks = tokio::time::interval(EVERY);
            while ended.run_until_cancelled(ticks.tick()).await.is_some() {
                let (file, text) = (Arc::clone(&file), kept.report().metrics(&last));
                let _ = tokio::task::spawn_blocking(move || write(&file, &text)).await;
            }
            last
        });
        Self { end, path, run, task }
    }

    /// Ends it: nothing is written afterwards. Of a run without a report, it says that nothing was committed.
    pub(crate) async fn end(self, has_report: bool) {
        self.end.cancel();
        let last = self.task.await.unwrap_or_default();
        if !has_report {
            // What cannot be written is as old as its file.
            let _ = write(&self.path, &self.run.report().failed_metrics(&last));
        }
    }
}

/// Replaces the file: a collector that reads meanwhile sees the old file or the new one.
pub(crate) fn write(path: &Path, metrics: &str) -> Result<()> {
    let failed = |error| io_error("write metrics to", path.display(), error);
    check_ours(path)?;
    let mut file = folder::draft(path).map_err(failed)?;
    file.as_file_mut().write_all(metrics.as_bytes()).map_err(failed)?;
    let readable = Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Before anything is done: metrics can be written there.
pub(crate) fn check(path: &Path) -> Result<()> {
    check_ours(path)?;
    folder::check_writable("write metrics to", path)
}

/// Only metrics of ours are replaced: a slip of the pen must not cost a disk or a device.
fn check_ours(path: &Path) -> Result<()> {
    let failed = |error| io_error("write metrics to", path.display(), error);
    let mut begin = [0; MARK.len()];
    let ours = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(about) if !about.is_file() => false,
        Ok(_) => {
            let mut file = File::open(path).map_err(failed)?;
            file.read_exact(&mut begin).is_ok() && begin == *MARK
        }
    };
    if ours {
        return Ok(());
    }
    Err(Error::new(ErrorKind::AlreadyExists, "write metrics to", path.display())
        .because("what is there is no file of metrics; name another one, or remove it"))
}
