//! What PostgreSQL's error codes mean (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).

use sqlx::error::DatabaseError;

use crate::dialect::Fault;

pub(super) fn of(refusal: &dyn DatabaseError) -> Fault {
    refusal.code().map_or(Fault::Unreachable, |code| of_code(&code))
}

fn of_code(code: &str) -> Fault {
    match code {
        // lock_not_available, query_canceled (by a timeout)
        "55P03" | "57014" => Fault::Busy,
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Fault::Undone,
        "53300" => Fault::Exhausted,
        "53100" => Fault::Full,
        "25006" => Fault::ReadOnly,
        // invalid_authorization_specification, invalid_password, insufficient_privilege
        "28000" | "28P01" | "42501" => Fault::Denied,
        "3D000" => Fault::NoDatabase,
        "23505" => Fault::Duplicate,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => Fault::Damaged,
        _ => match code.get(..2) {
            Some("22") => Fault::Value,
            Some("23") => Fault::Constraint,
            Some("40") => Fault::Undone,
            Some("42" | "0A") => Fault::Statement,
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
            (&["55P03", "57014"][..], Fault::Busy),
            (&["40001", "40P01"], Fault::Undone),
            (&["53300"], Fault::Exhausted),
            (&["53100"], Fault::Full),
            (&["25006"], Fault::ReadOnly),
            (&["28P01", "28000", "42501"], Fault::Denied),
            (&["3D000"], Fault::NoDatabase),
            (&["23505"], Fault::Duplicate),
            (&["23503", "23514", "23502"], Fault::Constraint),
            (&["22001", "22021", "22P02"], Fault::Value),
            (&["57P01", "57P03", "08006", "53200"], Fault::Unreachable),
            (&["42601", "42P01"], Fault::Statement),
            (&["XX001"], Fault::Damaged),
        ] {
            for code in codes {
                assert_eq!(of_code(code), fault, "{code}");
            }
        }
    }
}
