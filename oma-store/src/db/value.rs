//! Bound values: whole numbers, texts and times, with typed nulls, and nothing that an engine folds or rounds.

use oma_core::audit::AuditHash;
use oma_core::record::{AttemptSubject, Email, TokenHash};
use oma_core::state::{
    CleanupStatus, CleanupStepStatus, ContextStatus, DiskStatus, ExportStatus, JobKind, JobStatus,
    LineStream, LogLevel, OperationKind, OperationStatus, PointStatus, ReplicationType, Role, StepStatus,
    TokenKind, VolumeStatus, Wanted,
};
use oma_core::{
    AuditId, AutomationJobId, ByteSize, ChangeId, CleanupId, ContextId, DiskKey, Endpoint, Epoch, ExportName,
    FailoverJobId, Fence, Generation, InstanceId, InstanceUuid, JobId, LogId, OperationId, RecoveryPointId,
    SnapshotId, TargetName, Timestamp, TokenId, UserId, VmPath, VolumeId, WorkerId,
};

use crate::error::StoreError;

/// A value to bind, or one that was read. A null keeps its type: PostgreSQL asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Val {
    Int(Option<i64>),
    Text(Option<String>),
    /// Whole milliseconds; SQLite keeps them as a number.
    Time(Option<Timestamp>),
}

impl Val {
    pub(crate) const fn is_null(&self) -> bool {
        matches!(self, Self::Int(None) | Self::Text(None) | Self::Time(None))
    }
}

/// What can be bound. Numbers are checked: a column holds 63 bits.
pub(crate) trait ToVal {
    const NULL: Val;
    fn to_val(&self) -> Result<Val, StoreError>;
}

impl<T: ToVal + ?Sized> ToVal for &T {
    const NULL: Val = T::NULL;
    fn to_val(&self) -> Result<Val, StoreError> {
        (**self).to_val()
    }
}

impl<T: ToVal> ToVal for Option<T> {
    const NULL: Val = T::NULL;
    fn to_val(&self) -> Result<Val, StoreError> {
        self.as_ref().map_or(Ok(T::NULL), ToVal::to_val)
    }
}

impl ToVal for i64 {
    const NULL: Val = Val::Int(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        Ok(Val::Int(Some(*self)))
    }
}

impl ToVal for u64 {
    const NULL: Val = Val::Int(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        let number = i64::try_from(*self).map_err(|_| StoreError::TooLarge(*self))?;
        Ok(Val::Int(Some(number)))
    }
}

impl ToVal for u32 {
    const NULL: Val = Val::Int(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        i64::from(*self).to_val()
    }
}

impl ToVal for i32 {
    const NULL: Val = Val::Int(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        i64::from(*self).to_val()
    }
}

impl ToVal for bool {
    const NULL: Val = Val::Int(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        i64::from(*self).to_val()
    }
}

impl ToVal for str {
    const NULL: Val = Val::Text(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        // PostgreSQL refuses NUL in a text; a free text (an error, a label) loses it on every engine alike.
        Ok(Val::Text(Some(self.replace('\0', "\u{fffd}"))))
    }
}

impl ToVal for String {
    const NULL: Val = Val::Text(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        self.as_str().to_val()
    }
}

impl ToVal for Timestamp {
    const NULL: Val = Val::Time(None);
    fn to_val(&self) -> Result<Val, StoreError> {
        // What every engine's type for times can hold.
        const YEARS_1_TO_9999: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;
        if YEARS_1_TO_9999.contains(&self.as_millis()) {
            Ok(Val::Time(Some(*self)))
        } else {
            Err(StoreError::Invalid(format!(
                "the time {} ms is not in the years 1 to 9999",
                self.as_millis()
            )))
        }
    }
}

macro_rules! to_val {
    ($(($($type:ty),+) => $via:expr;)+) => {$($(
        impl ToVal for $type {
            const NULL: Val = via_null($via);
            fn to_val(&self) -> Result<Val, StoreError> {
                let via: fn(&$type) -> _ = $via;
                via(self).to_val()
            }
        }
    )+)+};
}

const fn via_null<T, U: ToVal>(_: fn(&T) -> U) -> Val {
    U::NULL
}

to_val! {
    (ByteSize) => |size: &ByteSize| size.bytes();
    (Epoch) => |epoch: &Epoch| epoch.0;
    (Fence) => |fence: &Fence| fence.0;
    (LogId) => |id: &LogId| id.0;
    (AuditId) => |id: &AuditId| id.0;
    (UserId) => |id: &UserId| id.0;
    (AuditHash) => |hash: &AuditHash| hash.to_string();
    (TokenHash) => |hash: &TokenHash| hash.to_hex();
    (Generation) => |generation: &Generation| generation.0;
}

/// Ids and labels: their text, as it is.
macro_rules! text_val {
    ($($type:ty),+ $(,)?) => {$(
        impl ToVal for $type {
            const NULL: Val = Val::Text(None);
            fn to_val(&self) -> Result<Val, StoreError> {
                Ok(Val::Text(Some(self.as_str().to_owned())))
            }
        }
    )+};
}

text_val! {
    AutomationJobId, ChangeId, CleanupId, CleanupStatus, CleanupStepStatus, FailoverJobId, ContextId, DiskKey, Endpoint, ExportName, InstanceId, InstanceUuid, JobId, OperationId, VmPath, VolumeId,
    TargetName, WorkerId, ContextStatus, DiskStatus, ExportStatus, JobKind, JobStatus, LineStream, LogLevel, OperationKind, OperationStatus,
    PointStatus,
    RecoveryPointId, ReplicationType, SnapshotId,
    AttemptSubject, Email, Role, TokenId, TokenKind,
    StepStatus, VolumeStatus, Wanted,
}

/// The values of a statement, in the order of its placeholders.
macro_rules! vals {
    ($($value:expr),* $(,)?) => {
        $crate::db::collect([$($crate::db::ToVal::to_val(&$value)),*])
    };
}
pub(crate) use vals;

pub(crate) fn collect<const N: usize>(values: [Result<Val, StoreError>; N]) -> Result<Vec<Val>, StoreError> {
    values.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_keep_their_type() {
        let values = vals![None::<Timestamp>, None::<JobId>, None::<u64>].unwrap();
        assert_eq!(values, [Val::Time(None), Val::Text(None), Val::Int(None)]);
    }

    #[test]
    fn a_number_beyond_63_bits_is_refused() {
        assert!(matches!(vals![u64::MAX], Err(StoreError::TooLarge(u64::MAX))));
        assert_eq!(vals![i64::MAX.unsigned_abs()].unwrap(), [Val::Int(Some(i64::MAX))]);
    }
}
