//! Sizes in bytes.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes.
///
/// ```
/// use oma_core::ByteSize;
///
/// let size: ByteSize = "64MiB".parse()?;
/// assert_eq!(size, ByteSize::mib(64));
/// assert_eq!(size.to_string(), "64.0 MiB");
/// # Ok::<(), oma_core::ByteSizeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: write a whole number and, if you like, one of B, KiB, MiB, GiB, TiB")]
pub struct ByteSizeError {
    text: String,
}

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl ByteSize {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB.
    ///
    /// # Panics
    /// When the size does not fit 64 bits.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count.checked_mul(1 << 10).expect("a size fits 64 bits"))
    }

    /// So many MiB.
    ///
    /// # Panics
    /// When the size does not fit 64 bits.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count.checked_mul(1 << 20).expect("a size fits 64 bits"))
    }

    /// So many GiB.
    ///
    /// # Panics
    /// When the size does not fit 64 bits.
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count.checked_mul(1 << 30).expect("a size fits 64 bits"))
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// As it is read, without a loss: a whole number of the largest unit that leaves no rest.
    ///
    /// ```
    /// use oma_core::ByteSize;
    ///
    /// assert_eq!(ByteSize::mib(128).exact(), "128MiB");
    /// assert_eq!(ByteSize::new(1025).exact(), "1025");
    /// ```
    #[must_use]
    pub fn exact(self) -> String {
        let is_whole = |(_, shift): &&(&str, u32)| self.0 >= 1 << shift && self.0.trailing_zeros() >= *shift;
        match UNITS.iter().find(is_whole) {
            None => self.0.to_string(),
            Some((unit, shift)) => format!("{}{unit}", self.0 >> shift),
        }
    }

    /// Whole GiB, rounded up: the `size_gb` columns of the seeds.
    #[must_use]
    pub const fn gib_ceiling(self) -> u64 {
        self.0.div_ceil(1 << 30)
    }
}

impl Add for ByteSize {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for ByteSize {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for ByteSize {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match UNITS.iter().find(|(_, shift)| self.0 >= 1 << shift) {
            None => format!("{} B", self.0),
            Some((unit, shift)) => {
                let tenths = (u128::from(self.0) * 10) >> shift;
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            }
        };
        f.pad(&text)
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let refused = || ByteSizeError { text: text.to_owned() };
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].trim().to_ascii_lowercase();
        let shift = match unit.as_str() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => return Err(refused()),
        };
        let count: u64 = digits.parse().map_err(|_| refused())?;
        count.checked_mul(1 << shift).map(Self).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_printed() {
        for (text, bytes) in [("0", 0), ("512", 512), ("4 KiB", 4096), ("1g", 1 << 30), ("2TiB", 2 << 40)] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::bytes), Ok(bytes), "{text}");
        }
        for bad in ["", "x", "1.5GiB", "-1", "1 XB", "99999999999TiB", "ä"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for bytes in [0, 1, 1023, 1024, 1536, 3 << 20, (1 << 30) + 1, 5 << 40, u64::MAX] {
            assert_eq!(ByteSize::new(bytes).exact().parse(), Ok(ByteSize::new(bytes)), "{bytes}");
        }
        assert_eq!(
            (ByteSize::new(1536).exact(), ByteSize::mib(2048).exact()),
            ("1536".into(), "2GiB".into())
        );
        assert_eq!(ByteSize::new(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize::new(u64::MAX).to_string(), "16777215.9 TiB");
        assert_eq!(ByteSize::new((1 << 30) + 1).gib_ceiling(), 2);
    }
}
