/// Bytes that are not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another magic number.
    #[error(
        "{what} begins with {found:#x} instead of {expected:#x}; the peer does not speak NBD or lost its place"
    )]
    Magic {
        /// What should be there.
        what: &'static str,
        /// Its magic number.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// It ends too early.
    #[error("{what} ends too early")]
    Truncated {
        /// What ends.
        what: &'static str,
    },
    /// It goes on after its end.
    #[error("{what} has {extra} bytes too many")]
    Trailing {
        /// What is too long.
        what: &'static str,
        /// Bytes behind its end.
        extra: usize,
    },
    /// A text or a list is longer than the protocol allows.
    #[error("{what} has {length} bytes or entries; at most {limit} are possible")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A text is not UTF-8.
    #[error("{what} is not UTF-8")]
    Text {
        /// Which text.
        what: &'static str,
    },
    /// A value that must not be.
    #[error("{what} is {value:#x}, which must not be")]
    Value {
        /// Of what.
        what: &'static str,
        /// The value.
        value: u64,
    },
}
