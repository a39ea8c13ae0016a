use std::collections::BTreeMap;

use oma_core::{ByteSize, DiskKey, VmPath};
use serde::{Deserialize, Serialize};

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningReport {
    /// The VM.
    pub vm_path: VmPath,
    /// How long it has run.
    pub seconds: f64,
    /// Its disks, as far as something is known of them.
    pub disks: BTreeMap<DiskKey, RunningDisk>,
}

/// How far a run is with one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningDisk {
    /// Bytes that the epoch has to cover; zero until that is known.
    pub bytes_total: ByteSize,
    /// Bytes covered, by this run or before it.
    pub bytes_done: ByteSize,
    /// Bytes of these that are durable and in the journal.
    pub bytes_durable: ByteSize,
    /// Bytes read from the source.
    pub bytes_read: ByteSize,
    /// Bytes of data written to the volume.
    pub bytes_written: ByteSize,
    /// Bytes that the newest comparison is about, before the copy or after it.
    pub bytes_to_compare: ByteSize,
    /// Bytes of these that are compared.
    pub bytes_compared: ByteSize,
}
