use oma_core::Error;
use serde::{Deserialize, Serialize};

use crate::Outcome;

/// A command that failed before it had anything else to report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `failed` or `suspended`.
    pub status: Outcome,
    /// What happened and what to do, in one sentence.
    pub error: String,
    /// What a caller can act on: the label of an [`ErrorKind`](oma_core::ErrorKind).
    pub kind: String,
}

impl Failure {
    /// The failure that an error means.
    #[must_use]
    pub fn new(error: &Error) -> Self {
        Self { status: Outcome::of(error), error: error.chain(), kind: error.kind().to_string() }
    }
}
