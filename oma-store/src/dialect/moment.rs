//! Times as the drivers of servers bind and read them.

use oma_core::Timestamp;
use sqlx::Error;
use time::OffsetDateTime;

/// For binding: whole milliseconds, so that no engine rounds.
pub(super) fn moment(time: Timestamp) -> Result<OffsetDateTime, Error> {
    let nanos = i128::from(time.as_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|error| Error::Encode(error.into()))
}

/// As it was read: what is finer than a millisecond is cut off.
pub(super) fn timestamp(moment: OffsetDateTime) -> Result<Timestamp, Error> {
    let millis = moment.unix_timestamp_nanos().div_euclid(1_000_000);
    i64::try_from(millis).map(Timestamp::from_millis).map_err(|error| Error::Decode(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_milliseconds_and_never_rounded() {
        for millis in [-62_135_596_800_000, -1, 0, 1, 1_755_770_000_123, 253_402_300_799_999] {
            let time = Timestamp::from_millis(millis);
            let nearly_later = moment(time).unwrap() + time::Duration::nanoseconds(999_999);
            assert_eq!(timestamp(nearly_later).unwrap(), time);
        }
    }
}
