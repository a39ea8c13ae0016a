use std::time::Duration;

use crate::JobId;

/// How often a job is attempted, and how long it waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; 0 counts as 1.
    pub attempts: u32,
    /// The longest wait after the first failed attempt; doubled after each.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_secs(30), longest: Duration::from_secs(1800) }
    }
}

impl RetryPolicy {
    /// How long a job waits after its `attempt`th failed attempt (1 is the first): whole milliseconds between half of
    /// `first` · 2^(attempt-1), at most `longest`, and the whole of it.
    ///
    /// The same for the same job and attempt in every store and process; different jobs that failed together spread.
    #[must_use]
    pub fn pause(&self, job: &JobId, attempt: u32) -> Duration {
        let factor = 1_u128.checked_shl(attempt.saturating_sub(1)).unwrap_or(u128::MAX);
        let whole = self.first.as_millis().saturating_mul(factor).min(self.longest.as_millis());
        let whole = u64::try_from(whole).unwrap_or(u64::MAX);
        let spread = whole / 2;
        Duration::from_millis(whole - jitter(job, attempt) % spread.saturating_add(1))
    }
}

/// FNV-1a of the id and the attempt, mixed as in splitmix64: FNV alone leaves the low bits of neighbours alike.
fn jitter(job: &JobId, attempt: u32) -> u64 {
    let bytes = job.as_str().bytes().chain(attempt.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn job(number: u32) -> JobId {
        JobId::parse(format!("job-20250821-095320-{number}")).unwrap()
    }

    proptest! {
        #[test]
        fn a_pause_lies_between_half_and_the_whole_of_what_doubling_gives(
            number in 0..1000_u32, attempt in 1..12_u32, first in 1..100_000_u64, longest in 1..10_000_000_u64,
        ) {
            let [first, longest] = [first, longest].map(Duration::from_millis);
            let policy = RetryPolicy { attempts: 3, first, longest };
            let whole = (first * 2_u32.pow(attempt - 1)).min(longest);
            let pause = policy.pause(&job(number), attempt);
            prop_assert!(pause <= whole, "{pause:?} of {whole:?}");
            prop_assert!(pause * 2 >= whole, "{pause:?} of {whole:?}");
            prop_assert_eq!(pause, policy.pause(&job(number), attempt));
        }

        #[test]
        fn no_pause_overflows(attempt in any::<u32>(), first in any::<u64>(), longest in any::<u64>()) {
            let [first, longest] = [first, longest].map(Duration::from_secs);
            let policy = RetryPolicy { attempts: 3, first, longest };
            prop_assert!(policy.pause(&job(1), attempt) <= longest.max(Duration::from_millis(u64::MAX)));
        }
    }

    #[test]
    fn jobs_that_failed_together_spread() {
        let policy = RetryPolicy::default();
        let pauses: BTreeSet<_> = (0..100).map(|number| policy.pause(&job(number), 1)).collect();
        assert!(pauses.len() > 90, "{} pauses of 100 jobs", pauses.len());
        let (least, most) = (pauses.first().unwrap(), pauses.last().unwrap());
        assert!(*most - *least > policy.first / 3, "from {least:?} to {most:?}");
    }

    #[test]
    fn a_pause_is_the_same_in_every_build() {
        let policy = RetryPolicy::default();
        let pauses = [1, 2, 3].map(|attempt| policy.pause(&job(1), attempt).as_millis());
        assert_eq!(pauses, [19_909, 36_103, 106_134]);
    }
}
