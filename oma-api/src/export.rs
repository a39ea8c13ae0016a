use oma_core::{ByteSize, ExportName, VolumeId};
use serde::{Deserialize, Serialize};

/// A volume to be served for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateExport {
    /// An attached volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// Whether clients may only read. Nothing else is possible: a volume is written under a job's lease only.
    #[serde(default = "only")]
    #[cfg_attr(feature = "server", schema(default = true))]
    pub read_only: bool,
}

const fn only() -> bool {
    true
}

/// A volume that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ExportRow {
    /// Its name.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub export_name: ExportName,
    /// Where clients find it.
    pub uri: String,
    /// The volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// Whether clients may only read.
    pub read_only: bool,
    /// Its size.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
    /// Connections that use it now.
    pub connections: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes that clients have read.
    pub bytes_read: u64,
}
