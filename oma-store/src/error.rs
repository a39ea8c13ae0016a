//! What can go wrong in the store, and the one place that says what a caller can do about it.

use std::path::PathBuf;

use oma_core::state::{JobStatus, Refused};
use oma_core::{Error, ErrorKind, JobId, OperationId, Retry, Timestamp, WorkerId};

use crate::dialect::Fault;

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "mysql", feature = "postgres")),
    allow(dead_code, reason = "each engine has some of them")
)]
pub(crate) enum StoreError {
    #[error("the database {place}: {}", fault.advice())]
    Database { place: String, fault: Fault, source: sqlx::Error },
    #[error(
        "the database {} is damaged ({detail}); restore a backup of it, or move the file away and replicate again; \
         volumes are not touched",
        path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error(
        "a row of the database {} is none that its schema allows ({detail}); set it to what the table's CHECK rules allow, or restore \
         a backup; volumes are not touched",
        path.display()
    )]
    Forbidden { path: PathBuf, detail: String },
    #[error("the folder of {} does not exist; create it, or name another database", path.display())]
    NoFolder { path: PathBuf },
    #[error("it holds no database of OMA yet; run a command that replicates first")]
    NoDatabase,
    #[error("{place} is not a database of OMA ({detail}); name another one, it was not changed")]
    Foreign { place: String, detail: String },
    #[error(
        "the database has schema {found}, this program knows {known}; use the newer program that made it"
    )]
    Newer { found: i64, known: i64 },
    #[error("the database has schema {found}, this program needs {known}; run a command that writes once")]
    Older { found: i64, known: i64 },
    #[error(
        "schema step {version} ({name}) was made by another build of OMA; use that build, or start anew with a database that is empty: every volume is filled again then"
    )]
    OtherBuild { version: i64, name: String },
    #[error("another process is migrating the database; try again")]
    Migrating,
    #[error("the database was opened for reading only")]
    ReadOnly,
    #[error("{0}")]
    Url(&'static str),
    #[error("this build has no {0} engine; build oma-store with the feature of that name")]
    NotBuilt(&'static str),
    #[error("{table} row {key}, column {column}: {reason}; restore a backup of the database")]
    Row { table: &'static str, key: String, column: &'static str, reason: String },
    #[error("job {job} is driven by {worker} until {until}; wait for it to end, or stop that worker")]
    Driven { job: JobId, worker: WorkerId, until: Timestamp },
    #[error("line {number} of the file: {reason}; nothing was imported")]
    Line { number: u64, reason: String, source: Option<Box<Self>> },
    #[error("the file has {what} {found}, this program reads {known}; use the program that wrote it")]
    OtherFile { what: &'static str, found: i64, known: i64 },
    #[error("the database keeps {table} row {key} as something else than the file has; nothing was imported")]
    Changed { table: &'static str, key: String },
    #[error("the file cannot be read or written")]
    File(#[from] std::io::Error),
    #[error("{0} does not fit a database column; at most 2^63-1 is possible")]
    TooLarge(u64),
    #[error("cannot be written as JSON")]
    Json(#[from] serde_json::Error),

    #[error("the lease is not the newest any more, or the job has ended; stop at once")]
    Fenced,
    #[error("{worker} drives it until {until}; wait for it to end, or for its lease to expire")]
    Held { worker: WorkerId, until: Timestamp },
    #[error("another writer changed it at the same moment; try again")]
    Raced,
    #[error("there is no {what} {id}")]
    Missing { what: &'static str, id: String },
    #[error("{what} {id} exists already and differs from what is asked for")]
    Exists { what: &'static str, id: String },
    #[error("{0}")]
    Invalid(String),
    #[error("job {0} of this VM has not ended; wait for it, or cancel it")]
    LiveJob(JobId),
    #[error("operation {0} of this disk has not ended; finish it first")]
    Unfinished(OperationId),
    #[error("the job is {found}, not {expected}")]
    Moved { expected: JobStatus, found: JobStatus },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    Conflict(String),
    #[error("the account has changed meanwhile; log in again")]
    OtherAccount,
}

impl StoreError {
    pub(crate) fn missing(what: &'static str, id: &(impl ToString + ?Sized)) -> Self {
        Self::Missing { what, id: id.to_string() }
    }

    pub(crate) fn exists(what: &'static str, id: &(impl ToString + ?Sized)) -> Self {
        Self::Exists { what, id: id.to_string() }
    }

    /// A server that did not answer in time.
    pub(crate) fn away(place: &str, source: sqlx::Error) -> Self {
        Self::Database { place: place.to_owned(), fault: Fault::Unreachable, source }
    }

    /// Whether another transaction came between, so that nothing was written and doing it again can help at once.
    pub(crate) fn is_undone(&self) -> bool {
        matches!(self, Self::Raced | Self::Database { fault: Fault::Undone | Fault::Duplicate, .. })
    }

    /// Whether somebody else was in the way, longer than one waits.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_busy(&self) -> bool {
        self.is_undone() || matches!(self, Self::Database { fault: Fault::Busy, .. })
    }

    /// The public error: the only place that decides the kind and whether trying again can help.
    pub(crate) fn at(self, operation: &'static str, resource: impl std::fmt::Display) -> Error {
        let (kind, retry) = match &self {
            Self::Database { fault, .. } => fault.kind(),
            Self::File(error) => (file_kind(error), Retry::Never),
            Self::Damaged { .. } | Self::Forbidden { .. } | Self::Row { .. } | Self::Line { .. } => {
                (ErrorKind::Corrupt, Retry::Never)
            }
            Self::NoFolder { .. } | Self::NoDatabase | Self::Missing { .. } => {
                (ErrorKind::NotFound, Retry::Never)
            }
            Self::Newer { .. } | Self::OtherBuild { .. } | Self::OtherFile { .. } | Self::NotBuilt(_) => {
                (ErrorKind::Unsupported, Retry::Never)
            }
            Self::ReadOnly | Self::OtherAccount => (ErrorKind::PermissionDenied, Retry::Never),
            Self::Foreign { .. } | Self::Url(_) | Self::TooLarge(_) | Self::Invalid(_) => {
                (ErrorKind::Invalid, Retry::Never)
            }
            Self::Json(_) | Self::Changed { .. } => (ErrorKind::Internal, Retry::Never),
            Self::Fenced => (ErrorKind::Fenced, Retry::Never),
            Self::Migrating | Self::Raced | Self::Held { .. } | Self::Driven { .. } => {
                (ErrorKind::Busy, Retry::Later)
            }
            Self::Exists { .. } => (ErrorKind::AlreadyExists, Retry::Never),
            Self::Older { .. }
            | Self::LiveJob(_)
            | Self::Unfinished(_)
            | Self::Moved { .. }
            | Self::Refused(_)
            | Self::Conflict(_) => (ErrorKind::Conflict, Retry::Never),
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}

fn file_kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    }
}
