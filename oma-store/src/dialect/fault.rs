use oma_core::{ErrorKind, Retry};

/// What an engine's refusal means, whatever its codes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Another writer was not done in time, or both had to be kept apart.
    Busy,
    /// No room on the disk.
    Full,
    /// A page is not what it should be.
    Damaged,
    /// The file, or its folder, may not be written.
    ReadOnly,
    /// The file cannot be opened.
    CannotOpen,
    /// Another writer was first with the same key.
    Duplicate,
    /// A constraint that the store's own checks come before.
    Constraint,
    /// Reading or writing the file failed, or the connection is gone.
    Unreachable,
    /// A statement that this database does not take.
    Statement,
}

impl Fault {
    /// What a caller can act on.
    pub(crate) const fn kind(self) -> (ErrorKind, Retry) {
        match self {
            Self::Busy => (ErrorKind::Busy, Retry::Later),
            Self::Full => (ErrorKind::NoSpace, Retry::Never),
            Self::Damaged => (ErrorKind::Corrupt, Retry::Never),
            Self::ReadOnly | Self::CannotOpen => (ErrorKind::PermissionDenied, Retry::Never),
            Self::Duplicate => (ErrorKind::Conflict, Retry::Later),
            Self::Constraint | Self::Statement => (ErrorKind::Internal, Retry::Never),
            Self::Unreachable => (ErrorKind::Unavailable, Retry::Later),
        }
    }

    /// What happened and what to do.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Busy => "another process is writing to it; try again",
            Self::Full => "no room is left on its disk; free some and run again, nothing was written",
            Self::Damaged => {
                "it is damaged; restore a backup of it, or move the file away and replicate again; volumes are not touched"
            }
            Self::ReadOnly => "it may not be written; make the file and its folder writable for this user",
            Self::CannotOpen => {
                "it cannot be opened; check that file and folder are readable and writable for this user"
            }
            Self::Duplicate => "another writer recorded the same at the same moment; try again",
            Self::Constraint => "it refused a record that contradicts others; nothing was written",
            Self::Unreachable => "it could not be read or written; check its disk, then try again",
            Self::Statement => "it does not take a statement of this program",
        }
    }
}
