//! Sets of bytes as short texts that know when they were damaged.
//!
//! ```text
//! 1.16.3.CBEBgBC.0f3a…   form . unit . extents . digits . FNV-1a of all that stands before it
//! ```
//!
//! Every offset and length is a multiple of 2^unit. The digits are gap, length, gap, length, …: numbers of five bits a digit,
//! lowest first, a sixth bit says that more follow. Scattered blocks of 64 KiB take two to four digits each.

use super::ExtentSet;
use crate::Extent;

/// Extents in one text, so that none grows beyond what a database takes in one packet.
const PART: usize = 32_768;
const FORM: &str = "1";
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const MORE: u8 = 32;

/// Why a text is not a set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// It was not written by [`ExtentSet::compact`], or not completely.
    #[error("it is not of the form of a compact set")]
    Form,
    /// Its checksum is another.
    #[error("it was damaged: its checksum is another")]
    Checksum,
    /// It does not come behind the part before it.
    #[error("it does not come behind the part before it")]
    Order,
}

impl ExtentSet {
    /// The set as texts of printable ASCII, in order; none for the empty set. Each has its own checksum.
    pub fn compact(&self) -> impl Iterator<Item = String> {
        let mut extents = self.iter();
        std::iter::from_fn(move || {
            let part: Vec<Extent> = extents.by_ref().take(PART).collect();
            (!part.is_empty()).then(|| write(&part))
        })
    }

    /// The set that [`ExtentSet::compact`] gave these texts of.
    ///
    /// # Errors
    /// When one was changed or cut, or they are not in their order. One that is missing is not noticed here: count them.
    pub fn from_compact<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> Result<Self, CompactError> {
        let mut set = Self::new();
        for part in parts {
            let part = read(part.as_ref())?;
            let end = set.last().map(Extent::end);
            if end.zip(part.first()).is_some_and(|(end, first)| first.offset() <= end) {
                return Err(CompactError::Order);
            }
            set.extend(part);
        }
        Ok(set)
    }
}

fn write(extents: &[Extent]) -> String {
    let bits = extents.iter().fold(0, |bits, extent| bits | extent.offset() | extent.length());
    let unit = bits.trailing_zeros();
    let mut text = format!("{FORM}.{unit}.{}.", extents.len());
    let mut at = 0;
    for extent in extents {
        push(&mut text, (extent.offset() - at) >> unit);
        push(&mut text, extent.length() >> unit);
        at = extent.end();
    }
    text.push('.');
    let sum = checksum(&text);
    text + &sum
}

fn push(text: &mut String, mut number: u64) {
    loop {
        let low = u8::try_from(number & 31).unwrap_or_default();
        number >>= 5;
        let digit = if number == 0 { low } else { low | MORE };
        text.push(char::from(DIGITS[usize::from(digit)]));
        if number == 0 {
            return;
        }
    }
}

fn read(text: &str) -> Result<Vec<Extent>, CompactError> {
    let body = text.len().checked_sub(16).and_then(|at| text.split_at_checked(at));
    let (body, sum) = body.ok_or(CompactError::Form)?;
    if checksum(body) != sum {
        return Err(CompactError::Checksum);
    }
    parse(body).ok_or(CompactError::Form)
}

fn parse(body: &str) -> Option<Vec<Extent>> {
    let mut fields = body.split('.');
    let (form, unit, count) = (fields.next()?, fields.next()?, fields.next()?);
    let (digits, nothing) = (fields.next()?, fields.next()?);
    let (unit, count): (u32, usize) = (unit.parse().ok()?, count.parse().ok()?);
    if form != FORM || unit > 63 || count > PART || !nothing.is_empty() || fields.next().is_some() {
        return None;
    }
    let mut numbers = digits.bytes();
    let mut extents = Vec::with_capacity(count);
    let mut at = 0_u64;
    for number in 0..count {
        let (gap, length) = (pull(&mut numbers, unit)?, pull(&mut numbers, unit)?);
        if number > 0 && gap == 0 {
            return None;
        }
        let extent = Extent::new(at.checked_add(gap)?, length).ok()?;
        at = extent.end();
        extents.push(extent);
    }
    numbers.next().is_none().then_some(extents)
}

fn pull(digits: &mut impl Iterator<Item = u8>, unit: u32) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let digit = value(digits.next()?)?;
        let bits = u64::from(digit & (MORE - 1));
        let shifted = bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        number |= shifted;
        if digit & MORE == 0 {
            return number.checked_shl(unit).filter(|whole| whole >> unit == number);
        }
        shift += 5;
    }
}

const fn value(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

/// FNV-1a: no single damaged byte gets past it.
fn checksum(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(list: &[(u64, u64)]) -> ExtentSet {
        list.iter().map(|(offset, length)| Extent::new(*offset, *length).unwrap()).collect()
    }

    fn texts(set: &ExtentSet) -> Vec<String> {
        set.compact().collect()
    }

    #[test]
    fn the_form_is_what_it_was() {
        let set = set(&[(0x20000, 0x10000), (0x60000, 0x20000), (40 << 20, 0x10000)]);
        assert_eq!(texts(&set), ["1.16.3.CBDC4TB.13ab3a0a71c7e030"]);
    }

    #[test]
    fn scattered_blocks_take_few_bytes_each() {
        let set: ExtentSet = (0..100_000).map(|at| Extent::new((at * 20) << 16, 65_536).unwrap()).collect();
        let bytes: usize = texts(&set).iter().map(String::len).sum();
        assert!(bytes < 100_000 * 2 + 4 * 64, "{bytes}");
        assert_eq!(ExtentSet::from_compact(texts(&set)), Ok(set));
    }

    #[test]
    fn the_empty_set_is_no_text_and_the_ends_of_the_range_are_kept() {
        assert_eq!(texts(&ExtentSet::new()), Vec::<String>::new());
        let ends = set(&[(0, 1), (u64::MAX - 1, 1)]);
        assert_eq!(ExtentSet::from_compact(texts(&ends)), Ok(ends));
    }

    #[test]
    fn parts_out_of_order_or_twice_are_refused() {
        let (first, second) = (texts(&set(&[(0, 10)])), texts(&set(&[(20, 10)])));
        for parts in [[&second[0], &first[0]], [&first[0], &first[0]]] {
            assert_eq!(ExtentSet::from_compact(parts), Err(CompactError::Order));
        }
    }

    #[test]
    fn what_was_never_written_like_this_is_refused_whatever_its_checksum() {
        for body in [
            "",
            "1.0.1.",
            "2.0.1.AB.",
            "1.64.1.AB.",
            "1.0.2.AB.",
            "1.0.1.ABA.",
            "1.0.1.AA.",
            "1.0.1.A*.",
            "1.0.2.ABAB.",
            // 3 << 63 is more than there is.
            "1.63.1.AD.",
        ] {
            let text = format!("{body}{}", checksum(body));
            assert_eq!(ExtentSet::from_compact([text]), Err(CompactError::Form), "{body}");
        }
        let long = format!("1.1.1.{}B.", "_".repeat(14));
        assert!(ExtentSet::from_compact([format!("{long}{}", checksum(&long))]).is_err());
    }

    proptest! {
        #[test]
        fn a_set_comes_back_as_it_was(list in prop::collection::vec((0u64..1 << 40, 1u64..1 << 30), 0..40), unit in 0u32..20) {
            let set: ExtentSet =
                list.iter().map(|(at, length)| Extent::new(at << unit, length << unit).unwrap()).collect();
            prop_assert_eq!(ExtentSet::from_compact(texts(&set)), Ok(set));
        }

        #[test]
        fn any_damage_is_noticed(
            list in prop::collection::vec((0u64..1 << 30, 1u64..1 << 20), 1..20),
            at in any::<prop::sample::Index>(),
            byte in 32u8..127,
        ) {
            let set: ExtentSet = list.iter().map(|(at, length)| Extent::new(*at, *length).unwrap()).collect();
            let text = texts(&set).remove(0);
            let at = at.index(text.len());
            let mut damaged = text.clone().into_bytes();
            damaged[at] = byte;
            let damaged = String::from_utf8(damaged).unwrap();
            prop_assert_eq!(ExtentSet::from_compact([&damaged]).is_ok(), damaged == text);
            prop_assert!(ExtentSet::from_compact([&text[..at]]).is_err());
        }
    }
}
