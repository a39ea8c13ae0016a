//! How much is compared, and how far a source is believed, as the command line says it.

use std::str::FromStr;

use oma_core::engine::{TrustPolicy, VerifyLevel};
use oma_core::record::SampleSize;

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerifyArg(VerifyLevel);

/// Without a number, one leaf of a hundred.
const USUAL_SAMPLE: SampleSize = SampleSize::Permille(10);

impl FromStr for VerifyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| match text.strip_suffix("/1000") {
            Some(permille) => {
                permille.parse().ok().filter(|n| (1..=1000).contains(n)).map(SampleSize::Permille)
            }
            None => text.parse().ok().filter(|count| *count > 0).map(SampleSize::Leaves),
        };
        let level = match (text, text.strip_prefix("sample=")) {
            ("none", _) => Some(VerifyLevel::None),
            ("sample", _) => Some(VerifyLevel::Sample(USUAL_SAMPLE)),
            ("changed", _) => Some(VerifyLevel::Changed),
            ("full", _) => Some(VerifyLevel::Full),
            (_, Some(count)) => size(count).map(VerifyLevel::Sample),
            (_, None) => None,
        };
        level
            .map(Self)
            .ok_or_else(|| "name none, sample, sample=COUNT, sample=N/1000, changed or full".to_owned())
    }
}

impl From<VerifyArg> for VerifyLevel {
    fn from(arg: VerifyArg) -> Self {
        arg.0
    }
}

/// How far a source is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrustArg(TrustPolicy);

impl FromStr for TrustArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let permille =
            |text: &str| text.strip_suffix("/1000")?.parse().ok().filter(|n| (1..=1000).contains(n));
        let policy = match (text, text.strip_prefix("spot-check=")) {
            ("yes", _) => Some(TrustPolicy::Trust),
            ("no", _) => Some(TrustPolicy::AlwaysCompare),
            ("spot-check", _) => Some(TrustPolicy::SpotCheck { permille: 10 }),
            (_, Some(size)) => permille(size).map(|permille| TrustPolicy::SpotCheck { permille }),
            (_, None) => None,
        };
        policy.map(Self).ok_or_else(|| "name yes, spot-check, spot-check=N/1000 or no".to_owned())
    }
}

impl From<TrustArg> for TrustPolicy {
    fn from(arg: TrustArg) -> Self {
        arg.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_named_and_samples_counted() {
        let level = |text: &str| text.parse::<VerifyArg>().map(VerifyLevel::from).ok();
        assert_eq!(level("full"), Some(VerifyLevel::Full));
        assert_eq!(level("sample"), Some(VerifyLevel::Sample(SampleSize::Permille(10))));
        assert_eq!(level("sample=7"), Some(VerifyLevel::Sample(SampleSize::Leaves(7))));
        assert_eq!(level("sample=1000/1000"), Some(VerifyLevel::Sample(SampleSize::Permille(1000))));
        for wrong in
            ["", "all", "sample=", "sample=0", "sample=1001/1000", "sample=0/1000", "sample=5%", "Full"]
        {
            assert_eq!(level(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn trust_is_named_and_a_spot_check_sized() {
        let trust = |text: &str| text.parse::<TrustArg>().map(TrustPolicy::from).ok();
        assert_eq!([trust("yes"), trust("no")], [Some(TrustPolicy::Trust), Some(TrustPolicy::AlwaysCompare)]);
        assert_eq!(trust("spot-check"), Some(TrustPolicy::SpotCheck { permille: 10 }));
        assert_eq!(trust("spot-check=25/1000"), Some(TrustPolicy::SpotCheck { permille: 25 }));
        for wrong in ["", "maybe", "spot-check=", "spot-check=5", "spot-check=0/1000", "spot-check=1001/1000"]
        {
            assert_eq!(trust(wrong), None, "{wrong}");
        }
    }
}
