//! What stands in a certificate that was verified already: its names, and until when it is good.
//!
//! ```text
//!  Certificate { TBSCertificate { [0] version, serial, algorithm, issuer, validity, subject, key, …, [3] extensions }, … }
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tls::ClientName;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const ASCII: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const EXTENSIONS: u8 = 0xa3;
const VERSION: u8 = 0xa0;
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 29, 17];

/// A sequence of values with tag and length (DER).
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value, if it is whole.
    fn value(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let mut length = usize::from(*first);
        if length >= 0x80 {
            let count = length & 0x7f;
            if count == 0 || count > 3 {
                return None;
            }
            let (digits, after) = rest.split_at_checked(count)?;
            length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            rest = after;
        }
        let (value, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((*tag, value))
    }

    /// The next value, if it has this tag.
    fn tagged(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let (found, value) = ahead.value()?;
        if found != tag {
            return None;
        }
        *self = ahead;
        Some(value)
    }

    fn inside(&mut self, tag: u8) -> Option<Self> {
        self.tagged(tag).map(Self)
    }
}

impl<'a> Iterator for Der<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.value()
    }
}

struct Parts<'a> {
    validity: Der<'a>,
    subject: Der<'a>,
    extensions: Der<'a>,
}

fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let mut inside = Der(certificate).inside(SEQUENCE)?.inside(SEQUENCE)?;
    inside.tagged(VERSION);
    inside.tagged(INTEGER)?;
    inside.tagged(SEQUENCE)?;
    inside.tagged(SEQUENCE)?;
    let validity = inside.inside(SEQUENCE)?;
    let subject = inside.inside(SEQUENCE)?;
    inside.tagged(SEQUENCE)?;
    let extensions = inside.find(|(tag, _)| *tag == EXTENSIONS);
    let extensions = extensions.and_then(|(_, value)| Der(value).inside(SEQUENCE)).unwrap_or(Der(&[]));
    Some(Parts { validity, subject, extensions })
}

/// The names of a certificate; those that are no text, or text with control characters, are left out.
pub(super) fn of(certificate: &[u8]) -> Vec<ClientName> {
    let Some(parts) = parts(certificate) else { return Vec::new() };
    let mut names: Vec<_> =
        parts.extensions.filter_map(|(_, value)| alternative_names(value)).flatten().collect();
    let mut common = parts.subject.flat_map(|(_, set)| Der(set)).filter_map(|(_, value)| common_name(value));
    // Of several common names none can be told to be the one that was meant.
    if let (Some(name), None) = (common.next(), common.next()) {
        names.extend(name);
    }
    names
}

fn alternative_names(extension: &[u8]) -> Option<Vec<ClientName>> {
    let mut inside = Der(extension);
    if inside.tagged(OBJECT)? != ALTERNATIVE_NAMES {
        return None;
    }
    let (_, value) = inside.find(|(tag, _)| *tag == OCTETS)?;
    let names = Der(value).inside(SEQUENCE)?;
    Some(names.filter_map(|(tag, value)| alternative_name(tag, value)).collect())
}

fn alternative_name(tag: u8, value: &[u8]) -> Option<ClientName> {
    let kind = match tag {
        0x81 => "email",
        0x82 => "dns",
        0x86 => "uri",
        0x87 => return address(value).map(ClientName::ip),
        _ => return None,
    };
    named(kind, value)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let four = || <[u8; 4]>::try_from(value).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    let six = || <[u8; 16]>::try_from(value).ok().map(|bytes| Ipv6Addr::from(bytes).into());
    four().or_else(six)
}

/// The common name that an attribute is; `Some(None)` when it cannot be used.
fn common_name(attribute: &[u8]) -> Option<Option<ClientName>> {
    let mut inside = Der(attribute);
    if inside.tagged(OBJECT)? != COMMON_NAME {
        return None;
    }
    let text = inside.value().filter(|(tag, _)| [UTF8, PRINTABLE, ASCII].contains(tag));
    Some(text.and_then(|(_, value)| named("cn", value)))
}

fn named(kind: &str, value: &[u8]) -> Option<ClientName> {
    ClientName::parse(&format!("{kind}:{}", std::str::from_utf8(value).ok()?)).ok()
}

/// The last second at which a certificate is good, counted from 1970.
pub(super) fn good_until(certificate: &[u8]) -> Option<u64> {
    validity(certificate).map(|(_, until)| until)
}

/// The first and the last second at which a certificate (DER) is good, counted from 1970; `None` for what is none. Nothing else of it is
/// checked.
#[must_use]
pub fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let mut validity = parts(certificate)?.validity;
    Some((time(validity.value()?)?, time(validity.value()?)?))
}

fn time((tag, digits): (u8, &[u8])) -> Option<u64> {
    match tag {
        UTC_TIME => {
            // Two digits of a year mean 1950 to 2049.
            let century = if digits.first()? >= &b'5' { b"19" } else { b"20" };
            seconds(&[century, digits].concat())
        }
        TIME => seconds(digits),
        _ => None,
    }
}

/// Seconds since 1970 of `YYYYMMDDHHMMSSZ`.
fn seconds(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z').filter(|text| text.len() == 14)?;
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // Years begin in March here, so that the day that some have more is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    let since_1970 = days.checked_sub(719_469)?;
    Some(since_1970 * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_certificates_are_read() {
        for (text, expected) in [
            (&b"19700101000000Z"[..], Some(0)),
            (b"20000229235959Z", Some(951_868_799)),
            (b"20261121110947Z", Some(1_795_259_387)),
            (b"20380119031408Z", Some(1 << 31)),
            (b"99991231235959Z", Some(253_402_300_799)),
            (b"20261321110947Z", None),
            (b"2026112111094Z", None),
            (b"20261121110947+0100", None),
        ] {
            assert_eq!(seconds(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        for bytes in
            [&[0x30][..], &[0x30, 5, 1], &[0x30, 0x80], &[0x30, 0x84, 1, 0, 0, 0], &[0x30, 0x82, 0xff]]
        {
            assert_eq!(Der(bytes).value(), None);
            assert!(of(bytes).is_empty());
        }
    }
}
