use oma_core::{InstanceId, VolumeId};
use serde::{Deserialize, Serialize};

/// A volume that another deployment has open over the backend routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct SessionRow {
    /// Its id, by which it can be ended. Not the name of its export, which its client alone is told.
    pub session_id: String,
    /// The volume, or the one that its snapshot is of.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// Whose the volume is.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub deployment: InstanceId,
    /// Whose token opened it.
    pub principal: String,
    /// Since when it is open, RFC 3339 in UTC.
    pub opened_at: String,
    /// When its client was heard last, RFC 3339 in UTC: one that is not heard for its lease is ended.
    pub renewed_at: String,
    /// Whether it is open for reading only.
    pub read_only: bool,
    /// Connections that use it now; none for long: nobody reads or writes, but it is locked.
    pub connections: u64,
    /// Bytes that its client has read.
    pub bytes_read: u64,
    /// Bytes that its client has written.
    pub bytes_written: u64,
}
