//! How much is compared, and how far a source is believed, as operators say it: in flags and in requests.

use std::fmt;
use std::str::FromStr;

use oma_core::record::SampleSize;
use serde::{Deserialize, Serialize};

/// How much is compared after a copy: `none`, `sample`, `sample=COUNT`, `sample=N/1000`, `changed` or `full`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VerifyWanted {
    /// Nothing.
    #[default]
    None,
    /// Leaves chosen at random.
    Sample(SampleSize),
    /// What this epoch copied.
    Changed,
    /// Whole disks.
    Full,
}

/// Without a number, one leaf of a hundred.
const USUAL_SAMPLE: SampleSize = SampleSize::Permille(10);

impl FromStr for VerifyWanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| match text.strip_suffix("/1000") {
            Some(permille) => {
                permille.parse().ok().filter(|n| (1..=1000).contains(n)).map(SampleSize::Permille)
            }
            None => text.parse().ok().filter(|count| *count > 0).map(SampleSize::Leaves),
        };
        let level = match (text, text.strip_prefix("sample=")) {
            ("none", _) => Some(Self::None),
            ("sample", _) => Some(Self::Sample(USUAL_SAMPLE)),
            ("changed", _) => Some(Self::Changed),
            ("full", _) => Some(Self::Full),
            (_, Some(count)) => size(count).map(Self::Sample),
            (_, None) => None,
        };
        level.ok_or_else(|| "name none, sample, sample=COUNT, sample=N/1000, changed or full".to_owned())
    }
}

impl fmt::Display for VerifyWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Sample(SampleSize::Permille(permille)) => write!(f, "sample={permille}/1000"),
            Self::Sample(SampleSize::Leaves(count)) => write!(f, "sample={count}"),
            Self::Changed => f.write_str("changed"),
            Self::Full => f.write_str("full"),
        }
    }
}

#[cfg(feature = "server")]
impl From<VerifyWanted> for oma_core::engine::VerifyLevel {
    fn from(wanted: VerifyWanted) -> Self {
        match wanted {
            VerifyWanted::None => Self::None,
            VerifyWanted::Sample(size) => Self::Sample(size),
            VerifyWanted::Changed => Self::Changed,
            VerifyWanted::Full => Self::Full,
        }
    }
}

/// How far a source is believed when it says what changed: `yes`, `spot-check`, `spot-check=N/1000` or `no`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrustWanted {
    /// What it does not name is not looked at.
    #[default]
    Yes,
    /// So many of a thousand leaves of what it says is unchanged are compared.
    SpotCheck {
        /// Rounded up.
        permille: u16,
    },
    /// All is compared.
    No,
}

impl FromStr for TrustWanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let permille =
            |text: &str| text.strip_suffix("/1000")?.parse().ok().filter(|n| (1..=1000).contains(n));
        let policy = match (text, text.strip_prefix("spot-check=")) {
            ("yes", _) => Some(Self::Yes),
            ("no", _) => Some(Self::No),
            ("spot-check", _) => Some(Self::SpotCheck { permille: 10 }),
            (_, Some(size)) => permille(size).map(|permille| Self::SpotCheck { permille }),
            (_, None) => None,
        };
        policy.ok_or_else(|| "name yes, spot-check, spot-check=N/1000 or no".to_owned())
    }
}

impl fmt::Display for TrustWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::SpotCheck { permille } => write!(f, "spot-check={permille}/1000"),
            Self::No => f.write_str("no"),
        }
    }
}

#[cfg(feature = "server")]
impl From<TrustWanted> for oma_core::engine::TrustPolicy {
    fn from(wanted: TrustWanted) -> Self {
        match wanted {
            TrustWanted::Yes => Self::Trust,
            TrustWanted::SpotCheck { permille } => Self::SpotCheck { permille },
            TrustWanted::No => Self::AlwaysCompare,
        }
    }
}

macro_rules! as_text {
    ($($wanted:ty),+) => {$(
        impl TryFrom<String> for $wanted {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$wanted> for String {
            fn from(wanted: $wanted) -> Self {
                wanted.to_string()
            }
        }
    )+};
}
as_text!(VerifyWanted, TrustWanted);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in ["none", "sample=7", "sample=10/1000", "changed", "full"] {
            assert_eq!(text.parse::<VerifyWanted>().unwrap().to_string(), text);
        }
        for text in ["yes", "spot-check=25/1000", "no"] {
            assert_eq!(text.parse::<TrustWanted>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn levels_are_named_and_samples_counted() {
        let level = |text: &str| text.parse::<VerifyWanted>().ok();
        assert_eq!(level("full"), Some(VerifyWanted::Full));
        assert_eq!(level("sample"), Some(VerifyWanted::Sample(SampleSize::Permille(10))));
        assert_eq!(level("sample=7"), Some(VerifyWanted::Sample(SampleSize::Leaves(7))));
        assert_eq!(level("sample=1000/1000"), Some(VerifyWanted::Sample(SampleSize::Permille(1000))));
        for wrong in
            ["", "all", "sample=", "sample=0", "sample=1001/1000", "sample=0/1000", "sample=5%", "Full"]
        {
            assert_eq!(level(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn trust_is_named_and_a_spot_check_sized() {
        let trust = |text: &str| text.parse::<TrustWanted>().ok();
        assert_eq!([trust("yes"), trust("no")], [Some(TrustWanted::Yes), Some(TrustWanted::No)]);
        assert_eq!(trust("spot-check"), Some(TrustWanted::SpotCheck { permille: 10 }));
        assert_eq!(trust("spot-check=25/1000"), Some(TrustWanted::SpotCheck { permille: 25 }));
        for wrong in ["", "maybe", "spot-check=", "spot-check=5", "spot-check=0/1000", "spot-check=1001/1000"]
        {
            assert_eq!(trust(wrong), None, "{wrong}");
        }
    }
}
