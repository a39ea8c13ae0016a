//! Programs that are run to their end.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::Result;

/// Longer than any run; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// What a program said, and how long it took.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) said: String,
    pub(crate) seconds: f64,
}

/// Whether a program is in `PATH`.
pub(crate) fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Runs a program; fails with what it said when it fails.
pub(crate) async fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<Ran> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).kill_on_drop(true).stdin(Stdio::null());
    let begun = Instant::now();
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .map_err(|_| format!("{program} {arguments:?} hangs"))??;
    let seconds = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {arguments:?} failed ({}): {}", output.status, said.trim()).into());
    }
    Ok(Ran { said: String::from_utf8_lossy(&output.stdout).into_owned(), seconds })
}
