use oma_core::{ErrorKind, Retry};

/// What an engine's refusal means, whatever its codes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "mysql", feature = "postgres")),
    allow(dead_code, reason = "each engine has some of them")
)]
pub(crate) enum Fault {
    /// Another writer was not done in time.
    Busy,
    /// The engine undid the transaction to let another one go first: a deadlock, or two that cannot both be.
    Undone,
    /// No connection was free in time, here or at the server.
    Exhausted,
    /// No room on the disk.
    Full,
    /// A page is not what it should be.
    Damaged,
    /// The database, its file or the file's folder, may not be written.
    ReadOnly,
    /// The file cannot be opened.
    CannotOpen,
    /// The server can be asked, but not in this way: TLS, certificates, options.
    CannotConnect,
    /// User, password or rights do not suffice.
    Denied,
    /// The server has no such database.
    NoDatabase,
    /// Another writer was first with the same key.
    Duplicate,
    /// A constraint that the store's own checks come before.
    Constraint,
    /// A value that does not fit its column.
    Value,
    /// Reading or writing failed, or the connection is gone.
    Unreachable,
    /// A statement that this database does not take.
    Statement,
}

impl Fault {
    /// What a caller can act on.
    pub(crate) const fn kind(self) -> (ErrorKind, Retry) {
        match self {
            Self::Busy | Self::Undone | Self::Exhausted => (ErrorKind::Busy, Retry::Later),
            Self::Full => (ErrorKind::NoSpace, Retry::Never),
            Self::Damaged => (ErrorKind::Corrupt, Retry::Never),
            Self::ReadOnly | Self::CannotOpen | Self::Denied => (ErrorKind::PermissionDenied, Retry::Never),
            Self::NoDatabase => (ErrorKind::NotFound, Retry::Never),
            Self::CannotConnect | Self::Value => (ErrorKind::Invalid, Retry::Never),
            Self::Duplicate => (ErrorKind::Conflict, Retry::Later),
            Self::Constraint | Self::Statement => (ErrorKind::Internal, Retry::Never),
            Self::Unreachable => (ErrorKind::Unavailable, Retry::Later),
        }
    }

    /// What happened and what to do.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Busy => "another process is writing to it; try again",
            Self::Undone => "it undid the change to let another go first; try again, nothing was written",
            Self::Exhausted => "all connections to it are in use; try again, or allow it more connections",
            Self::Full => "no room is left on its disk; free some and run again, nothing was written",
            Self::Damaged => {
                "it is damaged; restore a backup of it, or move it away and replicate again; volumes are not touched"
            }
            Self::ReadOnly => {
                "it may not be written; make the file and its folder, or the server, writable for this user"
            }
            Self::CannotOpen => {
                "it cannot be opened; check that file and folder are readable and writable for this user"
            }
            Self::CannotConnect => {
                "it cannot be reached as its URL says; check TLS, certificates and options"
            }
            Self::Denied => "it refuses this user; check name, password and rights",
            Self::NoDatabase => "the server has no such database; create it first",
            Self::Duplicate => "another writer recorded the same at the same moment; try again",
            Self::Constraint => "it refused a record that contradicts others; nothing was written",
            Self::Value => "it refused a value that does not fit its column; nothing was written",
            Self::Unreachable => "it could not be read or written; check its server or disk, then try again",
            Self::Statement => "it does not take a statement of this program",
        }
    }
}
