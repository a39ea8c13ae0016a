//! Signature version 3: when a request expires.

use std::time::Duration;

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::params::Params;

/// With `enforce.post.requests.and.timestamps`, how far ahead a request may expire.
const FURTHEST: Duration = Duration::from_mins(15);

/// Whether the request is in time. Only version 3 has a time; `enforced` makes version 3 mandatory.
pub(crate) fn is_in_time(params: &Params, now: OffsetDateTime, enforced: bool) -> bool {
    if params.text("signatureversion") != Some("3") {
        return !enforced;
    }
    let Some(expires) = params.text("expires").and_then(parse) else { return false };
    now <= expires && (!enforced || expires <= now + FURTHEST)
}

/// The forms that the server's formatters take: `2030-01-02T03:04:05` with `Z`, `.123Z`, `+0530` or `+05:30`.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    let (date, rest) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, offset) = rest.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let small = |number: u32| u8::try_from(number).ok();
    let time = Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_offset(parse_offset(offset)?))
}

fn parse_offset(text: &str) -> Option<UtcOffset> {
    if let Some(fraction) = text.strip_suffix('Z') {
        let digits = fraction.strip_prefix('.').unwrap_or("000");
        return (digits.len() == 3 && is_digits(digits)).then_some(UtcOffset::UTC);
    }
    let (sign, digits) = text.split_at_checked(1)?;
    let factor = match sign {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let digits = if digits.len() == 5 { digits.replacen(':', "", 1) } else { digits.to_owned() };
    (digits.len() == 4 && is_digits(&digits)).then_some(())?;
    let number: i8 = digits[..2].parse().ok()?;
    UtcOffset::from_hms(factor * number, factor * digits[2..].parse::<i8>().ok()?, 0).ok()
}

fn numbers<const N: usize>(text: &str, separator: char, lengths: [usize; N]) -> Option<[u32; N]> {
    let parts: Vec<_> = text.split(separator).collect();
    let mut numbers = [0; N];
    (parts.len() == N).then_some(())?;
    for ((part, length), number) in parts.iter().zip(lengths).zip(&mut numbers) {
        (part.len() == length && is_digits(part)).then_some(())?;
        *number = part.parse().ok()?;
    }
    Some(numbers)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
