//! Ages on the command line and in settings.

use std::time::Duration;

/// Each unit and its seconds, those first that ages are told in.
const UNITS: [(char, u64); 5] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1), ('w', 604_800)];

/// Reads `90s`, `5m`, `12h`, `7d` or `2w`.
///
/// # Errors
/// A sentence for whoever wrote something else.
pub fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no age; write a number with s, m, h, d or w behind it, e.g. 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let (_, seconds) = UNITS.iter().find(|(letter, _)| *letter == unit).ok_or_else(wrong)?;
    let count: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    let all = count.checked_mul(*seconds).filter(|all| *all > 0 && text.matches(unit).count() == 1);
    all.map(Duration::from_secs).ok_or_else(wrong)
}

/// An age of whole seconds as it is read: a number of the longest unit, up to days, that leaves no rest.
#[must_use]
pub fn exact(age: Duration) -> String {
    let seconds = age.as_secs();
    let fits = UNITS.iter().find(|(_, unit)| seconds.is_multiple_of(*unit));
    let (unit, length) = fits.unwrap_or(&('s', 1));
    format!("{}{unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_with_its_unit() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
        {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["90s", "5m", "12h", "7d", "90d", "25h", "3601s"] {
            assert_eq!(exact(age(text).unwrap()), text);
        }
        for wrong in [
            "",
            "d",
            "7",
            "7y",
            "0d",
            "-1d",
            "7dd",
            "1.5d",
            "7 d",
            "99999999999999999999d",
            "999999999999999w",
        ] {
            assert!(age(wrong).is_err(), "{wrong:?}");
        }
    }
}
