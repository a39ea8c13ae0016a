use oma_core::{ByteSize, VmPath};
use serde::{Deserialize, Serialize};

/// What the next epoch of a VM will cost, told from those before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ForecastReport {
    /// The VM.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub vm_path: VmPath,
    /// Incremental epochs that it is told from.
    pub epochs: u64,
    /// Bytes that change in a second.
    pub change_bytes_per_second: Spread<f64>,
    /// Bytes of an incremental epoch that begins now.
    #[cfg_attr(feature = "server", schema(value_type = Spread<u64>))]
    pub next_bytes: Spread<ByteSize>,
    /// How long that will take.
    pub next_seconds: Spread<f64>,
    /// How long the disks must stand still at a cutover, without the boot of the VM in its new place.
    pub cutover_seconds: Spread<f64>,
}

/// What a tenth, half and nine tenths of the past stayed below.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Spread<T> {
    /// A tenth.
    pub p10: T,
    /// Half.
    pub p50: T,
    /// Nine tenths.
    pub p90: T,
}

impl ForecastReport {
    /// Why there is none yet.
    pub const TOO_EARLY: &str = "it has less than two incremental epochs that took one run each; replicate it twice more, some time apart";

    /// What was forecast for a VM.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn new(vm: &VmPath, forecast: &oma_core::engine::Forecast) -> Self {
        Self {
            vm_path: vm.clone(),
            epochs: u64::try_from(forecast.epochs).unwrap_or(u64::MAX),
            change_bytes_per_second: spread(forecast.change_rate, |rate| rate),
            next_bytes: spread(forecast.next_bytes, |bytes| bytes),
            next_seconds: spread(forecast.next_duration, |time| time.as_secs_f64()),
            cutover_seconds: spread(forecast.cutover, |time| time.as_secs_f64()),
        }
    }
}

#[cfg(feature = "server")]
fn spread<T: Copy, U>(of: oma_core::engine::Spread<T>, change: impl Fn(T) -> U) -> Spread<U> {
    Spread { p10: change(of.low), p50: change(of.middle), p90: change(of.high) }
}
