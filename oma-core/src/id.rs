//! Typed ids: two kinds never mix, and each is checked once, where it enters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// Why a text is not an id, a name or a path of OMA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("the {what} is empty")]
    Empty {
        /// Which kind of id.
        what: &'static str,
    },
    /// More characters than a database key holds.
    #[error("the {what} has {length} bytes; at most {limit} are possible")]
    TooLong {
        /// Which kind of id.
        what: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes possible.
        limit: usize,
    },
    /// A character that a database, a path or the protocol would fold or refuse.
    #[error("the {what} {text:?} has the character {character:?}, which is not possible there")]
    Character {
        /// Which kind of id.
        what: &'static str,
        /// The text given.
        text: String,
        /// The first character refused.
        character: char,
    },
    /// The text has another form than this kind of id.
    #[error("{text:?} is not a {what}: {expected}")]
    Form {
        /// Which kind of id.
        what: &'static str,
        /// The text given.
        text: String,
        /// The form it should have.
        expected: &'static str,
    },
}

pub(crate) fn check(
    what: &'static str,
    text: &str,
    limit: usize,
    refused: fn(char) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > limit {
        return Err(IdError::TooLong { what, length: text.len(), limit });
    }
    // Leading and trailing blanks: MariaDB's PAD SPACE collations take 'x' and 'x ' for the same key.
    let edge = text.chars().next().into_iter().chain(text.chars().last()).find(|c| c.is_whitespace());
    match edge.or_else(|| text.chars().find(|c| c.is_control() || refused(*c))) {
        None => Ok(()),
        Some(character) => Err(IdError::Character { what, text: text.to_owned(), character }),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal, $refused:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a text that is an id already.
            ///
            /// # Errors
            /// An empty or too long text, or one with a character that is not possible there.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check($what, &text, $limit, $refused)?;
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

fn blank_or_slash(c: char) -> bool {
    c.is_whitespace() || c == '/' || c == '\\'
}

fn nothing(_: char) -> bool {
    false
}

text_id! {
    /// Identity of a VM context: lasts longer than every job.
    ContextId, "VM context id", 64, blank_or_slash
}
text_id! {
    /// Identity of a replication job: `job-YYYYMMDD-HHMMSS-xxxxxx`.
    JobId, "job id", 191, blank_or_slash
}
text_id! {
    /// Identity of a volume in its backend, a UUID in CloudStack.
    VolumeId, "volume id", 64, blank_or_slash
}
text_id! {
    /// Identity of a snapshot of a volume; names the job that it was made for (L20).
    SnapshotId, "snapshot id", 255, blank_or_slash
}
text_id! {
    /// Identity of a recovery point.
    RecoveryPointId, "recovery point id", 64, blank_or_slash
}
text_id! {
    /// Identity of a cleanup.
    CleanupId, "cleanup id", 64, blank_or_slash
}
text_id! {
    /// Identity of a failover job (`failover_jobs.job_id`), e.g. `failover-20250821-123456`.
    FailoverJobId, "failover job id", 191, blank_or_slash
}
text_id! {
    /// Key of a disk within its VM, e.g. `disk-2000`. Never its position in a list (L04).
    DiskKey, "disk key", 64, blank_or_slash
}
text_id! {
    /// Identity of one intent to change a volume; the idempotency key of that change.
    OperationId, "operation id", 64, blank_or_slash
}
text_id! {
    /// Identity of a deployment (one database); part of the ownership tag of its volumes (L02).
    InstanceId, "instance id", 64, blank_or_slash
}
text_id! {
    /// Identity of the process family that drives jobs: one appliance, one data directory.
    WorkerId, "worker id", 191, blank_or_slash
}
text_id! {
    /// Instance UUID of a VM at its source.
    InstanceUuid, "instance UUID", 64, blank_or_slash
}
text_id! {
    /// Where a VM comes from: a vCenter, a hypervisor, `direct` for disks named by the operator.
    Endpoint, "source endpoint", 191, char::is_whitespace
}
text_id! {
    /// Identity of a frozen point in time at a source. Equal ids mean equal content.
    PointId, "source point id", 512, nothing
}
text_id! {
    /// Name of the cloud or place that volumes live in.
    TargetName, "target name", 191, blank_or_slash
}
text_id! {
    /// Identity of an automation job (`jobs.job_id`): a run of a playbook, not a replication job.
    AutomationJobId, "automation job id", 36, blank_or_slash
}
text_id! {
    /// Identity of a token or session; says nothing of its secret.
    TokenId, "token id", 64, blank_or_slash
}
text_id! {
    /// Inventory path of a VM, e.g. `/DC/vm/NAME`.
    VmPath, "VM path", 500, nothing
}
text_id! {
    /// Name under which a volume is exported over NBD.
    ///
    /// The protocol allows 4096 bytes; the database key allows 191.
    ExportName, "export name", 191, char::is_whitespace
}

impl ContextId {
    /// A new id, ordered by time.
    #[must_use]
    pub fn mint() -> Self {
        Self(format!("ctx-{}", Uuid::now_v7()))
    }
}

impl OperationId {
    /// A new id, ordered by time.
    #[must_use]
    pub fn mint() -> Self {
        Self(format!("op-{}", Uuid::now_v7()))
    }
}

impl CleanupId {
    /// A new id, ordered by time.
    #[must_use]
    pub fn mint() -> Self {
        Self(format!("cleanup-{}", Uuid::now_v7()))
    }
}

impl VolumeId {
    /// The same id for the same operation: for backends that give their volumes ids themselves.
    #[must_use]
    pub fn of_operation(operation: &OperationId) -> Self {
        Self(format!("vol-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, operation.as_str().as_bytes())))
    }
}

impl SnapshotId {
    /// A new id that carries the job's.
    #[must_use]
    pub fn mint(job: &JobId) -> Self {
        Self(format!("snap-{job}-{}", Uuid::now_v7().simple()))
    }
}

impl RecoveryPointId {
    /// A new id, ordered by time.
    #[must_use]
    pub fn mint() -> Self {
        Self(format!("point-{}", Uuid::now_v7()))
    }
}

impl TokenId {
    /// A new id, ordered by time.
    #[must_use]
    pub fn mint() -> Self {
        Self(format!("tok-{}", Uuid::now_v7()))
    }
}

impl InstanceId {
    /// A new random id.
    #[must_use]
    pub fn mint() -> Self {
        Self(Uuid::new_v4().to_string())
    }
}

impl InstanceUuid {
    /// The same UUID for the same path: for sources that know no UUID of their VM.
    #[must_use]
    pub fn from_path(path: &VmPath) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, path.as_str().as_bytes()).to_string())
    }
}

impl JobId {
    /// A new id of the form `job-YYYYMMDD-HHMMSS-xxxxxx`; the suffix is random.
    #[must_use]
    pub fn mint(now: Timestamp) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let random = Uuid::new_v4();
        let suffix: String =
            random.as_bytes()[..6].iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
        Self(format!("job-{}-{suffix}", now.compact()))
    }
}

impl VmPath {
    /// The last component: the VM's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.trim_end_matches('/').rsplit('/').next().unwrap_or(&self.0)
    }
}

impl ExportName {
    /// The seeds' name for a disk's export: `migration-vm-{UUID}-{disk key}`.
    ///
    /// # Errors
    /// When the parts together are longer than an export name can be.
    pub fn for_disk(instance: &InstanceUuid, key: &DiskKey) -> Result<Self, IdError> {
        Self::parse(format!("migration-vm-{instance}-{key}"))
    }
}

/// A disk: the VM context it belongs to and its key there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskRef {
    /// The VM context.
    pub context: ContextId,
    /// The key within it.
    pub key: DiskKey,
}

impl fmt::Display for DiskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.context, self.key)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $first:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value before anything happened.
            pub const FIRST: Self = Self($first);

            /// The next value.
            ///
            /// # Panics
            /// After 2^64 steps.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("2^64 steps never happen"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// Number of a consistent point in time of a VM; 0 before the first commit.
    Epoch, 0
}
counter! {
    /// Grows whenever a volume stops being "the last epoch plus nothing else" (L09).
    Generation, 1
}
counter! {
    /// Number of a log event: grows in the order of recording; 0 before the first.
    LogId, 0
}
counter! {
    /// Number of a user (`users.id`); 0 is nobody's.
    UserId, 0
}
counter! {
    /// Number of an entry of the audit trail (`audit_logs.id`): grows by one; 0 before the first.
    AuditId, 0
}
counter! {
    /// Fencing token of a job: grows with every claim (L16); 0 before the first.
    Fence, 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_jobs_in_one_second_have_two_ids() {
        let now = Timestamp::from_millis(1_755_770_000_000);
        let first = JobId::mint(now);
        assert!(first.as_str().starts_with("job-20250821-095320-"), "{first}");
        assert_eq!(first.as_str().len(), "job-YYYYMMDD-HHMMSS-xxxxxx".len());
        assert_ne!(first, JobId::mint(now));
    }

    #[test]
    fn ids_refuse_what_a_database_would_fold() {
        assert_eq!(DiskKey::parse(""), Err(IdError::Empty { what: "disk key" }));
        for bad in ["a b", "a ", " a", "a\0", "a/b", "a\u{a0}"] {
            assert!(DiskKey::parse(bad).is_err(), "{bad:?}");
        }
        assert!(DiskKey::parse("x".repeat(65)).is_err());
        assert!(DiskKey::parse("disk-2000").is_ok());
    }

    #[test]
    fn a_vm_path_keeps_blanks_inside() {
        let path = VmPath::parse("/DC 1/vm/My VM").unwrap();
        assert_eq!(path.name(), "My VM");
        assert_eq!(InstanceUuid::from_path(&path), InstanceUuid::from_path(&path));
    }

    #[test]
    fn ids_are_checked_when_read_from_json() {
        assert!(serde_json::from_str::<DiskKey>("\"disk-2000\"").is_ok());
        assert!(serde_json::from_str::<DiskKey>("\"\"").is_err());
    }
}
