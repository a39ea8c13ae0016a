//! What the backend routes of a volume daemon and their clients say to each other: the calls of
//! [`VolumeBackend`](oma_core::traits::VolumeBackend), each with the tag that proves whose volume it is.
//!
//! ```text
//!  capabilities     GET  /backend/capabilities            attach     POST /backend/volumes/{id}/attach
//!  create           POST /backend/volumes                 detach     POST /backend/volumes/{id}/detach
//!  list             GET  /backend/volumes?instance=       resize     POST /backend/volumes/{id}/resize
//!  get              GET  /backend/volumes/{id}            delete     POST /backend/volumes/{id}/delete
//!  content_stamp    GET  /backend/volumes/{id}/stamp      revert     POST /backend/volumes/{id}/revert
//!  snapshots        GET  /backend/volumes/{id}/snapshots  open       POST /backend/volumes/{id}/open
//!  snapshot         POST /backend/snapshots               retag      PUT  /backend/volumes/{id}/tag
//!  delete_snapshot  POST /backend/snapshots/delete        open_snapshot  POST /backend/snapshots/open
//! ```
//!
//! What is open is a session: `POST /backend/sessions/{id}/renew` keeps it.
//!
//! Every answer bears the header [`PROTOCOL_HEADER`]. One without it was not given by these routes: a proxy, another server or another
//! version did, and nothing that it says is believed of any volume (L21).

mod convert;
mod line;

use oma_core::{
    ByteSize, ContextId, DiskKey, Generation, InstanceId, JobId, OperationId, SnapshotId, VolumeId,
};
use serde::{Deserialize, Serialize};

pub use line::{ListEnd, ListLine};

/// The header of every answer of the backend routes. Its value is [`PROTOCOL`].
pub const PROTOCOL_HEADER: &str = "oma-backend";

/// The header of every answer that says which daemon gave it: the id of its deployment. A client hears the same one all the time.
pub const DAEMON_HEADER: &str = "oma-backend-daemon";

/// The version of what is said here; another one is not understood.
pub const PROTOCOL: &str = "1";

/// A mark of ownership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendTag))]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The deployment.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub instance: InstanceId,
    /// The VM of the disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub context_id: ContextId,
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_key: DiskKey,
    /// The generation that the volume was opened for last.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub generation: Generation,
}

/// What a backend can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendCapabilities))]
pub struct Capabilities {
    /// A new volume reads as zero everywhere.
    pub zeroed_on_create: bool,
    /// Volumes can grow.
    pub resize: bool,
    /// It can tell whether somebody wrote to a volume.
    pub content_stamp: bool,
    /// What a snapshot costs.
    pub snapshots: SnapshotCost,
}

/// What a snapshot costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SnapshotCost {
    /// There are none.
    None,
    /// Time and space of a copy.
    ByCopy,
    /// Next to nothing.
    Instant,
}

/// When the space of a volume is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// As it is written.
    Thin,
    /// All at once.
    Thick,
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendCreate))]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The intent that it belongs to: the same again makes nothing new.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub operation_id: OperationId,
    /// Its mark of ownership.
    pub tag: Tag,
    /// A name for readers.
    pub name: String,
    /// Its size; the backend may round up.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
    /// When its space is allocated.
    pub provisioning: Allocation,
}

/// A volume as the backend describes it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct BackendVolume {
    /// Its id.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
    /// Its mark of ownership; `null` when it bears none of OMA's.
    pub tag: Option<Tag>,
    /// Its device or file on the daemon's machine, while attached.
    pub device_path: Option<String>,
}

/// The mark of ownership that must stand on a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendProof))]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The mark.
    pub tag: Tag,
}

/// A size for a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendResize))]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// The mark on the volume.
    pub tag: Tag,
    /// The size wanted.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
}

/// A volume to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendOpen))]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The mark on the volume.
    pub tag: Tag,
    /// What is to be done.
    pub access: OpenFor,
}

/// What an open volume is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OpenFor {
    /// Reads.
    Reading,
    /// Reads and writes.
    Writing,
}

/// A snapshot: what it is made with, and what names it ever after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendSnapshotSpec))]
#[serde(deny_unknown_fields)]
pub struct SnapshotMark {
    /// Its id, given by whoever has it made: the same again makes nothing new.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub snapshot_id: SnapshotId,
    /// The volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// The mark on the volume when it is made.
    pub tag: Tag,
    /// The job that it is made for.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
}

/// A snapshot as the backend describes it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct BackendSnapshot {
    /// What it was made with.
    pub mark: SnapshotMark,
    /// Its name.
    pub name: String,
    /// The size of the volume when it was made.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
}

/// A snapshot for a volume to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendRevert))]
#[serde(deny_unknown_fields)]
pub struct Revert {
    /// The mark on the volume now.
    pub tag: Tag,
    /// The snapshot.
    pub snapshot: SnapshotMark,
}

/// What the content of a volume looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendStamp))]
pub struct Stamp {
    /// Two equal ones: nobody wrote in between. `null` when the backend cannot tell.
    pub stamp: Option<String>,
}

/// The first line of the answer to an open. Lines without anything follow, one every few seconds, for as long as the volume is open:
/// it is closed when that answer ends, nobody reads it any more, or the session is not renewed in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = BackendSession))]
pub struct Session {
    /// Where the volume is read and written, for this session only.
    pub uri: String,
    /// What to renew.
    pub session_id: String,
    /// The session ends this long after it was opened or renewed last, milliseconds.
    pub lease_ms: u64,
}

#[cfg(test)]
mod tests;
