//! Exit codes: what a script can act on without reading a sentence.

use oma_core::ErrorKind;

/// Shown by `oma --help` and in the README.
pub const HELP: &str = "\
Exit codes:
    0  done
    1  failed for a reason that has no number of its own
    2  the command line or the input can never be right
    3  source and target differ
    4  something else is at work: another process on the data directory, a live job, an open volume;
       or the path is of another VM
    5  the source or the store could not be reached, or went away: run the same command again
    6  no room is left
    7  there is no such thing: file, export, bitmap, VM, disk, job
    8  stored data is damaged or contradicts itself, or a source does
  130  interrupted: run the same command again, it continues

Environment:
  OMA_API       the appliance to be asked, as with --api, which goes before it; passed over where
                --data-dir, --embedded or --database is typed
  OMA_DATA_DIR  the data directory
  OMA_DATABASE  the database of `oma db`, `oma users` and `oma audit`, a URL that may hold a password
  OMA_LOG       what to log on standard error, e.g. info or oma_nbd=debug; nothing by default";

/// The exit code of a signal that is taken at once.
pub const INTERRUPTED: u8 = 130;

/// The exit code of a failure.
pub const fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid | ErrorKind::Unsupported => 2,
        ErrorKind::Mismatch => 3,
        ErrorKind::AlreadyExists | ErrorKind::Busy | ErrorKind::Conflict | ErrorKind::Fenced => 4,
        ErrorKind::Unavailable => 5,
        ErrorKind::NoSpace => 6,
        ErrorKind::NotFound => 7,
        ErrorKind::Corrupt => 8,
        ErrorKind::Cancelled => INTERRUPTED,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_but_success_is_some_failure() {
        let kinds = [
            ErrorKind::Internal,
            ErrorKind::Invalid,
            ErrorKind::Unsupported,
            ErrorKind::Mismatch,
            ErrorKind::Busy,
            ErrorKind::Unavailable,
            ErrorKind::NoSpace,
            ErrorKind::NotFound,
            ErrorKind::Corrupt,
            ErrorKind::Cancelled,
        ];
        let codes: Vec<u8> = kinds.into_iter().map(code).collect();
        assert_eq!(codes, [1, 2, 2, 3, 4, 5, 6, 7, 8, 130]);
        for code in codes {
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}");
        }
    }
}
