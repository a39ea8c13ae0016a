use std::time::Duration;

/// The middle value; of an even number of values, the middle of the two in the middle. Not a number without any.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(sorted[middle - 1], *value),
    }
}

/// The smallest of these values that `percent` of a hundred of them do not exceed; zero without any.
#[must_use]
pub fn quantile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The smallest and the largest value.
pub fn spread(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let widen = |(low, high): (f64, f64), value| (low.min(value), high.max(value));
    values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), widen)
}

/// Bytes as GiB, of whole KiB.
#[must_use]
pub fn gib(bytes: u64) -> f64 {
    let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    f64::from(kib) / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!(median([]).is_nan());
    }

    #[test]
    fn values_lie_within_their_spread() {
        let (low, high) = spread([2.0, 1.0, 3.0]);
        assert!(low < 1.5 && high > 2.5, "{low} {high}");
    }

    #[test]
    fn bytes_are_gibibytes() {
        assert_eq!(gib(3 << 29).to_bits(), 1.5_f64.to_bits());
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let hundred: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&hundred, 50), Duration::from_millis(50));
        assert_eq!(quantile(&hundred, 99), Duration::from_millis(99));
        assert_eq!(quantile(&hundred, 100), Duration::from_millis(100));
        assert_eq!(quantile(&hundred[..1], 50), Duration::from_millis(100));
        assert_eq!(quantile(&[], 99), Duration::ZERO);
    }
}
