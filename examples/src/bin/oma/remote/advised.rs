use std::fmt::Display;

use oma_core::Error;

/// An error with advice behind what it says.
pub(super) fn advised(error: &Error, advice: impl Display) -> Error {
    let (chain, first) = (error.chain(), error.to_string());
    let cause = chain.strip_prefix(&first).and_then(|rest| rest.strip_prefix(": ")).unwrap_or_default();
    let separator = if cause.is_empty() { "" } else { "; " };
    Error::new(error.kind(), error.operation().to_owned(), error.resource())
        .with_retry(error.retry())
        .because(format!("{cause}{separator}{advice}"))
}

#[cfg(test)]
mod tests {
    use oma_core::{ErrorKind, Retry};

    use super::*;

    #[test]
    fn advice_stands_behind_the_cause_and_changes_nothing_else() {
        let bare = Error::new(ErrorKind::Unavailable, "ask for", "it").with_retry(Retry::Exhausted);
        assert_eq!(advised(&bare, "ask again").chain(), "ask for it: unavailable: ask again");
        let told = advised(&bare.because("it hangs"), "ask again");
        assert_eq!(told.chain(), "ask for it: unavailable: it hangs; ask again");
        assert_eq!((told.kind(), told.retry()), (ErrorKind::Unavailable, Retry::Exhausted));
    }
}
