//! The rows: what exists in the cloud. A removed row stays, because ids are looked up among removed rows too.

use time::OffsetDateTime;
use uuid::Uuid;

/// Rights of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    RootAdmin,
    User,
}

#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) id: Uuid,
    pub(crate) user: Uuid,
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) keys: Keys,
    pub(crate) enabled: bool,
}

/// A project has an account of its own, to which its things belong.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) id: Uuid,
    pub(crate) account: Uuid,
    pub(crate) name: &'static str,
    pub(crate) state: ProjectState,
    pub(crate) members: Vec<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProjectState {
    Active,
    Suspended,
}

/// An API key and its secret.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) key: String,
    pub(crate) secret: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) id: Uuid,
    pub(crate) name: &'static str,
    pub(crate) enabled: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Offering {
    pub(crate) id: Uuid,
    pub(crate) name: &'static str,
    /// Absent: the caller says the size.
    pub(crate) gib: Option<u64>,
    pub(crate) active: bool,
    /// `disksizestrictness`: volumes of it are never resized.
    pub(crate) strict: bool,
    pub(crate) encrypted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MachineState {
    Running,
    Stopped,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) id: Uuid,
    pub(crate) account: Uuid,
    pub(crate) zone: Uuid,
    pub(crate) name: String,
    pub(crate) state: MachineState,
    pub(crate) created: OffsetDateTime,
}

/// States of a volume that this fake knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumeState {
    Allocated,
    Creating,
    Ready,
    Attaching,
    Resizing,
    Snapshotting,
    Destroy,
    Expunged,
}

#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) id: Uuid,
    pub(crate) account: Uuid,
    pub(crate) zone: Uuid,
    pub(crate) name: String,
    pub(crate) root: bool,
    pub(crate) bytes: u64,
    pub(crate) offering: Uuid,
    pub(crate) state: VolumeState,
    pub(crate) attached: Option<Attachment>,
    /// It has a place on storage: from the first attach on, or made of a snapshot.
    pub(crate) pooled: bool,
    pub(crate) protected: bool,
    pub(crate) snapshot: Option<Uuid>,
    pub(crate) created: OffsetDateTime,
    pub(crate) removed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) machine: Uuid,
    pub(crate) device: u32,
    pub(crate) since: OffsetDateTime,
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: Uuid,
    pub(crate) account: Uuid,
    pub(crate) volume: Uuid,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) state: &'static str,
    pub(crate) created: OffsetDateTime,
    pub(crate) removed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct MachineSnapshot {
    pub(crate) id: Uuid,
    pub(crate) account: Uuid,
    pub(crate) machine: Uuid,
    pub(crate) name: String,
    pub(crate) memory: bool,
    pub(crate) state: &'static str,
    pub(crate) created: OffsetDateTime,
    pub(crate) removed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// `Volume`, `UserVm`, `Snapshot` or `VMSnapshot`.
    pub(crate) kind: &'static str,
    pub(crate) resource: Uuid,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) account: Uuid,
}

/// What a parameter's id is an id of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Account,
    Job,
    Machine,
    MachineSnapshot,
    Offering,
    Project,
    Snapshot,
    Volume,
    Zone,
}
