use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oma_core::traits::{BlockDevice, DeviceIdentity};
use oma_core::{Error, ErrorKind, Result};

/// Tells where a device lies, for a server that opens it by itself.
pub trait Locate: fmt::Debug + Send + Sync + 'static {
    /// The absolute path of what the device reads and writes.
    ///
    /// # Errors
    /// `Unsupported` when it is nowhere in the file system.
    fn locate(&self, device: &dyn BlockDevice) -> Result<PathBuf>;
}

/// Paths that were told.
#[derive(Debug, Default)]
pub struct KnownPaths(Mutex<HashMap<DeviceIdentity, PathBuf>>);

impl KnownPaths {
    /// Tells where a device lies; the last word counts.
    pub fn tell(&self, device: DeviceIdentity, path: impl AsRef<Path>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(device, path.as_ref().to_owned());
    }
}

impl Locate for KnownPaths {
    fn locate(&self, device: &dyn BlockDevice) -> Result<PathBuf> {
        let identity = &device.info().identity;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(identity).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "find device", identity).because(
                "nobody told where it lies; only files and block devices can be served by another program",
            )
        })
    }
}
