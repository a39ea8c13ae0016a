//! The NBD server that the image is read from: not ours, so that only the copy is compared.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure;

/// A running qemu-nbd; it ends with this value.
#[derive(Debug)]
pub(crate) struct QemuNbd {
    pid: String,
    socket: PathBuf,
}

impl QemuNbd {
    /// Serves an image, for reading only.
    pub(crate) fn start(image: &Path, socket: &Path) -> io::Result<Self> {
        let pid_file = socket.with_extension("pid");
        let mut command = Command::new("qemu-nbd");
        // --fork: the command returns when clients can connect.
        command.args(["--fork", "--read-only", "--persistent", "--shared", "0", "--format", "raw"]);
        command.arg("--pid-file").arg(&pid_file).arg("--socket").arg(socket).arg(image);
        measure::run(&mut command)?;
        let pid = fs::read_to_string(pid_file)?.trim().to_owned();
        Ok(Self { pid, socket: socket.to_owned() })
    }

    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        // It may have ended by itself: then nothing is left to do.
        let _ = Command::new("kill").arg(&self.pid).status();
    }
}
