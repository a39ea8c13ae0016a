//! What the error numbers of MariaDB and MySQL mean (<https://mariadb.com/kb/en/mariadb-error-code-reference/>).

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use crate::dialect::Fault;

pub(super) fn of(refusal: &dyn DatabaseError) -> Fault {
    refusal
        .try_downcast_ref::<MySqlDatabaseError>()
        .map_or(Fault::Unreachable, |refusal| of_number(refusal.number()))
}

fn of_number(number: u16) -> Fault {
    match number {
        // lock wait timeout, statement timeout
        1205 | 1969 | 3024 => Fault::Busy,
        // record changed since last read, deadlock (also a conflict of a cluster at COMMIT)
        1020 | 1213 => Fault::Undone,
        // too many connections: in all, of this user
        1040 | 1203 | 1226 => Fault::Exhausted,
        // error writing a file, disk full, the table is full
        3 | 28 | 1021 | 1114 => Fault::Full,
        // crashed tables, wrong or old keys, corrupt index
        126 | 127 | 1034 | 1035 | 1194 | 1195 | 1712 | 1877 => Fault::Damaged,
        // --read-only, read-only table or transaction, InnoDB in read-only mode
        1036 | 1290 | 1792 | 1874 | 1836 => Fault::ReadOnly,
        // access denied: to a database, to the server, to a table, column or operation; no TLS but required; locked; triggers
        // while there is a binary log
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1419 | 1698 | 1820 | 3118 | 3159 | 4151 => Fault::Denied,
        1049 => Fault::NoDatabase,
        1062 | 1586 => Fault::Duplicate,
        // NULL, foreign keys, checks, what a trigger refuses
        1048 | 1216 | 1217 | 1451 | 1452 | 1644 | 3819 | 4025 => Fault::Constraint,
        // out of range, wrong value, too long, invalid characters
        1153 | 1264 | 1292 | 1366 | 1406 => Fault::Value,
        // shutting down, gone away, killed, no connection
        1053 | 1077..=1079 | 1152 | 1154..=1161 | 1317 | 1927 | 2002..=2013 => Fault::Unreachable,
        // syntax, unknown table, column, function; not of this version
        1054 | 1064 | 1109 | 1146 | 1193 | 1235 | 1305 => Fault::Statement,
        _ => Fault::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_mean_what_a_caller_can_act_on() {
        for (numbers, fault) in [
            (&[1205][..], Fault::Busy),
            (&[1213, 1020], Fault::Undone),
            (&[1040], Fault::Exhausted),
            (&[1021, 1114], Fault::Full),
            (&[1290, 1792], Fault::ReadOnly),
            (&[1044, 1045, 1142, 1419], Fault::Denied),
            (&[1049], Fault::NoDatabase),
            (&[1062], Fault::Duplicate),
            (&[1451, 1452, 1644, 4025, 3819], Fault::Constraint),
            (&[1406, 1366], Fault::Value),
            (&[1053, 1158, 1927], Fault::Unreachable),
            (&[1064, 1146], Fault::Statement),
        ] {
            for number in numbers {
                assert_eq!(of_number(*number), fault, "{number}");
            }
        }
    }
}
