//! Statements, written once with `?` and known in both placeholder forms at compile time.

use crate::dialect::Dialect;

/// A statement that is complete at compile time: no text ever becomes part of it at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sql {
    question: &'static str,
    dollar: &'static str,
}

impl Sql {
    pub(crate) const fn new(question: &'static str, dollar: &'static str) -> Self {
        Self { question, dollar }
    }

    /// The text in the placeholder form of a dialect.
    pub(crate) const fn text(self, dialect: Dialect) -> &'static str {
        match dialect.placeholder() {
            Placeholder::Question => self.question,
            Placeholder::Dollar => self.dollar,
        }
    }
}

/// How an engine marks a bound value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// `?` (SQLite, MariaDB, MySQL).
    Question,
    /// `$1`, `$2` (PostgreSQL).
    #[allow(dead_code, reason = "the form is made for every statement; its engine has no dialect yet")]
    Dollar,
}

/// Number of bytes of `text` with `$n` in place of each `?`.
pub(crate) const fn dollar_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut count, mut len) = (0, 0, 0);
    while at < bytes.len() {
        if bytes[at] == b'?' {
            count += 1;
            len += if count > 9 { 3 } else { 2 };
        } else {
            len += 1;
        }
        at += 1;
    }
    assert!(count < 100, "a statement has at most 99 placeholders");
    len
}

/// The bytes of `text` with `$n` in place of each `?`.
pub(crate) const fn dollar<const LEN: usize>(text: &str) -> [u8; LEN] {
    const DIGITS: &[u8; 10] = b"0123456789";
    let bytes = text.as_bytes();
    let mut out = [0; LEN];
    let (mut at, mut count, mut end) = (0, 0, 0);
    while at < bytes.len() {
        if bytes[at] == b'?' {
            count += 1;
            out[end] = b'$';
            end += 1;
            if count > 9 {
                out[end] = DIGITS[count / 10];
                end += 1;
            }
            out[end] = DIGITS[count % 10];
        } else {
            out[end] = bytes[at];
        }
        end += 1;
        at += 1;
    }
    out
}

/// A statement with `?` for each bound value. No statement has a `?` in a literal.
macro_rules! sql {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const BYTES: [u8; $crate::db::dollar_len(TEXT)] = $crate::db::dollar(TEXT);
        const DOLLAR: &str = match std::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => panic!("a statement is UTF-8"),
        };
        $crate::db::Sql::new(TEXT, DOLLAR)
    }};
}
pub(crate) use sql;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_placeholder_forms_are_made_at_compile_time() {
        const TWELVE: Sql = sql!("VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) -- é");
        assert_eq!(TWELVE.question, "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) -- é");
        assert_eq!(TWELVE.dollar, "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) -- é");
        assert_eq!(sql!("SELECT 1").dollar, "SELECT 1");
    }
}
