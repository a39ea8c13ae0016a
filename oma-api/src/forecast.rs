use oma_core::{ByteSize, VmPath};
use serde::{Deserialize, Serialize};

/// What the next epoch of a VM will cost, told from those before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForecastReport {
    /// The VM.
    pub vm_path: VmPath,
    /// Incremental epochs that it is told from.
    pub epochs: u64,
    /// Bytes that change in a second.
    pub change_bytes_per_second: Spread<f64>,
    /// Bytes of an incremental epoch that begins now.
    pub next_bytes: Spread<ByteSize>,
    /// How long that will take.
    pub next_seconds: Spread<f64>,
    /// How long the disks must stand still at a cutover, without the boot of the VM in its new place.
    pub cutover_seconds: Spread<f64>,
}

/// What a tenth, half and nine tenths of the past stayed below.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread<T> {
    /// A tenth.
    pub p10: T,
    /// Half.
    pub p50: T,
    /// Nine tenths.
    pub p90: T,
}
