//! Where the time of a run went.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// A part of the way of data from a source to a target, or of the proof that it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Waiting until memory is free and limits allow it.
    Wait,
    /// Reading from the source.
    Read,
    /// Looking for zeroes.
    Scan,
    /// Writing to the target, zeroes too.
    Write,
    /// Making the target durable.
    Flush,
    /// Writing the journal.
    Journal,
    /// Comparing source and target by their hashes, before the copy or after it.
    Hash,
}

impl Stage {
    /// All stages, in the order that data passes them.
    pub const ALL: [Self; 7] =
        [Self::Wait, Self::Read, Self::Scan, Self::Write, Self::Flush, Self::Journal, Self::Hash];

    /// Its name in reports and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Read => "read",
            Self::Scan => "scan",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Journal => "journal",
            Self::Hash => "hash",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Time that data spent in each stage, added up over all pieces that were under way at once: more than the run took, when its
/// pipeline was full. By Little's law the stage with most of it is the one where pieces queued: the bottleneck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    times: [Duration; Stage::ALL.len()],
}

impl StageTimes {
    /// The time in one stage.
    #[must_use]
    pub const fn of(&self, stage: Stage) -> Duration {
        self.times[Self::index(stage)]
    }

    /// Adds time to a stage.
    pub fn add(&mut self, stage: Stage, time: Duration) {
        self.times[Self::index(stage)] += time;
    }

    /// The stage where most time was spent; `None` when nothing was done.
    #[must_use]
    pub fn bottleneck(&self) -> Option<Stage> {
        Stage::ALL.into_iter().filter(|stage| !self.of(*stage).is_zero()).max_by_key(|stage| self.of(*stage))
    }

    const fn index(stage: Stage) -> usize {
        match stage {
            Stage::Wait => 0,
            Stage::Read => 1,
            Stage::Scan => 2,
            Stage::Write => 3,
            Stage::Flush => 4,
            Stage::Journal => 5,
            Stage::Hash => 6,
        }
    }
}

impl AddAssign for StageTimes {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in self.times.iter_mut().zip(other.times) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottleneck_is_where_most_time_was_spent() {
        let mut times = StageTimes::default();
        assert_eq!(times.bottleneck(), None);
        for (stage, millis) in [(Stage::Read, 5), (Stage::Write, 7), (Stage::Read, 4)] {
            times.add(stage, Duration::from_millis(millis));
        }
        assert_eq!(
            (times.bottleneck(), times.of(Stage::Read)),
            (Some(Stage::Read), Duration::from_millis(9))
        );
        let mut sum = times;
        sum += times;
        assert_eq!(sum.of(Stage::Write), Duration::from_millis(14));
    }

    #[test]
    fn every_stage_has_its_own_place_and_name() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(StageTimes::index(stage), index);
            assert_eq!(Stage::ALL.iter().filter(|other| other.label() == stage.label()).count(), 1);
        }
    }
}
