use oma_core::state::ExportStatus;
use oma_core::{ByteSize, ExportName, JobId, VolumeId};
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

/// A volume that is served, because an operator wants it or for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ExportRow {
    /// Its name.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub export_name: ExportName,
    /// Where clients find it; `null` where none is let in, as where the appliance itself writes.
    pub uri: Option<String>,
    /// The volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// The job that it is served for; `null` for one of an operator.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub job_id: Option<JobId>,
    /// How it stands: `starting`, `running`, `draining` or `stopped`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: ExportStatus,
    /// Whether clients may only read. This, and all that follows, is `null` where this process does not serve it.
    pub read_only: Option<bool>,
    /// Its size.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub capacity_bytes: Option<ByteSize>,
    /// Connections that use it now.
    pub connections: Option<u64>,
    /// Requests answered.
    pub requests: Option<u64>,
    /// Requests answered with an error.
    pub errors: Option<u64>,
    /// Bytes that clients have read.
    pub bytes_read: Option<u64>,
    /// Bytes that clients have written.
    pub bytes_written: Option<u64>,
}
