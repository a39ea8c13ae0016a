//! What SQLite's result codes mean (<https://www.sqlite.org/rescode.html>).

use sqlx::error::DatabaseError;

use crate::dialect::Fault;

pub(super) fn of(refusal: &dyn DatabaseError) -> Fault {
    refusal.code().and_then(|code| code.parse().ok()).map_or(Fault::Unreachable, of_code)
}

/// Extended codes carry the primary one in their low byte.
fn of_code(code: u32) -> Fault {
    match code {
        // SQLITE_CONSTRAINT_PRIMARYKEY, _UNIQUE, _ROWID
        1555 | 2067 | 2579 => Fault::Duplicate,
        _ => match code & 0xff {
            // SQLITE_BUSY, SQLITE_LOCKED
            5 | 6 => Fault::Busy,
            // SQLITE_PERM, SQLITE_READONLY, SQLITE_AUTH
            3 | 8 | 23 => Fault::ReadOnly,
            // SQLITE_CORRUPT, SQLITE_NOTADB
            11 | 26 => Fault::Damaged,
            13 => Fault::Full,
            14 => Fault::CannotOpen,
            19 => Fault::Constraint,
            // SQLITE_ERROR, SQLITE_SCHEMA, SQLITE_MISMATCH, SQLITE_MISUSE, SQLITE_RANGE
            1 | 17 | 20 | 21 | 25 => Fault::Statement,
            _ => Fault::Unreachable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_a_caller_can_act_on() {
        for (codes, fault) in [
            (&[5, 6, 261, 517, 773][..], Fault::Busy),
            (&[13], Fault::Full),
            (&[11, 26, 267, 523, 779], Fault::Damaged),
            (&[8, 264, 520, 776, 1032, 1288, 1544], Fault::ReadOnly),
            (&[14, 270, 526], Fault::CannotOpen),
            (&[1555, 2067], Fault::Duplicate),
            (&[275, 787, 1299, 3091], Fault::Constraint),
            (&[10, 266, 778, 1034], Fault::Unreachable),
            (&[1], Fault::Statement),
        ] {
            for code in codes {
                assert_eq!(of_code(*code), fault, "{code}");
            }
        }
    }
}
