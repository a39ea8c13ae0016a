use std::time::Duration;

use crate::Timestamp;
use crate::record::RecoveryPoint;
use crate::state::PointStatus;

/// Which recovery points of a VM are kept. A point stays while one of both says so; without any, all stay. The newest
/// ready one stays whatever they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepPoints {
    /// So many of the newest.
    pub last: Option<u32>,
    /// Those that are not older.
    pub younger_than: Option<Duration>,
}

impl KeepPoints {
    /// So many of the newest ready ones stay in any case.
    pub(super) fn least(&self) -> u32 {
        self.last.unwrap_or(1).max(1)
    }

    /// Those of `points`, newest first, that need not be kept at `now`, oldest first.
    pub(super) fn needless<'p>(&self, points: &'p [RecoveryPoint], now: Timestamp) -> Vec<&'p RecoveryPoint> {
        if self.last.is_none() && self.younger_than.is_none() {
            return Vec::new();
        }
        let last = usize::try_from(self.least()).unwrap_or(usize::MAX);
        let is_young = |point: &&RecoveryPoint| {
            self.younger_than.is_some_and(|limit| point.created_at.after(limit) > now)
        };
        let ready = points.iter().filter(|point| point.status == PointStatus::Ready);
        let mut needless: Vec<_> = ready.skip(last).filter(|point| !is_young(point)).collect();
        needless.reverse();
        needless
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextId, Epoch, JobId, RecoveryPointId};

    const HOUR: i64 = 3_600_000;

    /// Points of the hours 9 to 0, newest first; that of hour 5 is being deleted.
    fn points() -> Vec<RecoveryPoint> {
        let point = |hour: i64| RecoveryPoint {
            id: RecoveryPointId::parse(format!("point-{hour}")).unwrap(),
            context: ContextId::parse("ctx-1").unwrap(),
            job: JobId::parse("job-1").unwrap(),
            epoch: Epoch(hour.unsigned_abs()),
            status: if hour == 5 { PointStatus::Deleting } else { PointStatus::Ready },
            volumes: Vec::new(),
            reason: None,
            created_at: Timestamp::from_millis(hour * HOUR),
            updated_at: Timestamp::from_millis(hour * HOUR),
        };
        (0..10).rev().map(point).collect()
    }

    fn needless(last: Option<u32>, hours: Option<u64>, now: i64) -> Vec<u64> {
        let younger_than = hours.map(|hours| Duration::from_secs(hours * 3600));
        let (keep, points) = (KeepPoints { last, younger_than }, points());
        let found = keep.needless(&points, Timestamp::from_millis(now * HOUR));
        found.into_iter().map(|point| point.epoch.0).collect()
    }

    #[test]
    fn the_last_ones_stay_and_one_that_goes_does_not_count() {
        assert_eq!(needless(Some(6), None, 9), [0, 1, 2]);
        assert_eq!(needless(Some(100), None, 9), [0; 0]);
        assert_eq!(needless(Some(1), None, 9), [0, 1, 2, 3, 4, 6, 7, 8]);
    }

    #[test]
    fn young_ones_stay() {
        assert_eq!(needless(None, Some(4), 9), [0, 1, 2, 3, 4]);
        assert_eq!(needless(None, Some(100), 9), [0; 0]);
    }

    #[test]
    fn a_point_stays_while_one_of_both_rules_says_so() {
        assert_eq!(needless(Some(2), Some(4), 9), [0, 1, 2, 3, 4]);
        assert_eq!(needless(Some(8), Some(2), 9), [0]);
    }

    #[test]
    fn the_newest_stays_whatever_the_rules_say_and_without_rules_all_do() {
        assert_eq!(needless(Some(0), None, 9), needless(Some(1), None, 9));
        assert_eq!(needless(None, Some(0), 1000), needless(Some(1), None, 9));
        assert_eq!(needless(None, None, 1000), [0; 0]);
    }
}
