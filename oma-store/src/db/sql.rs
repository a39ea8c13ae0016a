//! Statements, written once with `?` and known in the form of every engine at compile time.

use crate::dialect::Dialect;

/// A statement that is complete at compile time: no text ever becomes part of it at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sql {
    sqlite: &'static str,
    mysql: &'static str,
    postgres: &'static str,
}

impl Sql {
    /// From its texts: `?` marks a value for SQLite and MySQL, `$1` for PostgreSQL.
    pub(crate) const fn new(sqlite: &'static str, mysql: &'static str, postgres: &'static str) -> Self {
        Self { sqlite, mysql, postgres }
    }

    /// The text for an engine.
    pub(crate) const fn text(self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::MySql => self.mysql,
            Dialect::Postgres => self.postgres,
        }
    }
}

/// Number of bytes of `text` with `$n` in place of each `?`.
pub(crate) const fn dollar_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut count, mut len) = (0, 0, 0);
    while at < bytes.len() {
        if bytes[at] == b'?' {
            count += 1;
            len += digits(count) + 1;
        } else {
            len += 1;
        }
        at += 1;
    }
    assert!(count < 10_000, "a statement has at most 9999 placeholders");
    len
}

const fn digits(number: usize) -> usize {
    match number {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        _ => 4,
    }
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
            end += digits(count) + 1;
            let (mut rest, mut back) = (count, end);
            while rest > 0 {
                back -= 1;
                out[back] = DIGITS[rest % 10];
                rest /= 10;
            }
        } else {
            out[end] = bytes[at];
            end += 1;
        }
        at += 1;
    }
    out
}

/// A text with `$n` for each `?`. No statement has a `?` in a literal.
macro_rules! dollars {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const BYTES: [u8; $crate::db::dollar_len(TEXT)] = $crate::db::dollar(TEXT);
        const DOLLARS: &str = match std::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => panic!("a statement is UTF-8"),
        };
        DOLLARS
    }};
}
pub(crate) use dollars;

/// A statement with `?` for each bound value.
///
/// - `sql!("…")`: the same on every engine;
/// - `sql!(locking "…")`: the rows found stay locked, and rows that others hold are passed over (SQLite has one writer);
/// - `sql!(sqlite: "…", mysql: "…", postgres: "…")`: another text on each;
/// - `sql!("…", mysql: "…")`, `sql!("…", mysql: "…", postgres: "…")`: another text on the engines named.
macro_rules! sql {
    (locking $text:expr) => {
        $crate::db::sql!(
            sqlite: $text,
            mysql: concat!($text, " FOR UPDATE SKIP LOCKED"),
            // Stronger locks would also pass over rows that somebody only refers to.
            postgres: concat!($text, " FOR NO KEY UPDATE SKIP LOCKED"),
        )
    };
    (sqlite: $sqlite:expr, mysql: $mysql:expr, postgres: $postgres:expr $(,)?) => {
        $crate::db::Sql::new($sqlite, $mysql, $crate::db::dollars!($postgres))
    };
    ($text:expr, mysql: $mysql:expr, postgres: $postgres:expr $(,)?) => {
        $crate::db::sql!(sqlite: $text, mysql: $mysql, postgres: $postgres)
    };
    ($text:expr, mysql: $mysql:expr $(,)?) => {
        $crate::db::sql!(sqlite: $text, mysql: $mysql, postgres: $text)
    };
    ($text:expr) => {
        $crate::db::sql!(sqlite: $text, mysql: $text, postgres: $text)
    };
}
pub(crate) use sql;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_placeholder_forms_are_made_at_compile_time() {
        const TWELVE: Sql = sql!("VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) -- é");
        assert_eq!(TWELVE.text(Dialect::Sqlite), "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) -- é");
        assert_eq!(TWELVE.text(Dialect::MySql), TWELVE.text(Dialect::Sqlite));
        let dollars = "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) -- é";
        assert_eq!(TWELVE.text(Dialect::Postgres), dollars);
        assert_eq!(sql!("SELECT 1").text(Dialect::Postgres), "SELECT 1");
    }

    #[test]
    fn a_locking_statement_locks_where_there_are_several_writers() {
        const LOCKING: Sql = sql!(locking concat!("SELECT a ", "FROM b WHERE c = ?"));
        assert_eq!(LOCKING.text(Dialect::Sqlite), "SELECT a FROM b WHERE c = ?");
        assert_eq!(LOCKING.text(Dialect::MySql), "SELECT a FROM b WHERE c = ? FOR UPDATE SKIP LOCKED");
        assert_eq!(
            LOCKING.text(Dialect::Postgres),
            "SELECT a FROM b WHERE c = $1 FOR NO KEY UPDATE SKIP LOCKED"
        );
    }
}
