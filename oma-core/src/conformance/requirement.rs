//! What a test needs from the machine, and what happens when it is not there.

use std::env;
use std::fmt;

/// Something that a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A program in `PATH`.
    Program(&'static str),
    /// Something else: its name and whether it is there.
    Feature(&'static str, bool),
}

impl Requirement {
    /// Whether it is there.
    #[must_use]
    pub fn is_met(self) -> bool {
        match self {
            Self::Program(name) => {
                let path = env::var_os("PATH").unwrap_or_default();
                env::split_paths(&path).any(|folder| folder.join(name).is_file())
            }
            Self::Feature(_, met) => met,
        }
    }

    /// Whether `OMA_TEST_REQUIRE` (names with commas between, or `all`) turns its absence into a failure.
    #[must_use]
    pub fn is_required(self) -> bool {
        let list = env::var("OMA_TEST_REQUIRE").unwrap_or_default();
        list.split(',').map(str::trim).any(|name| name == "all" || name == self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Program(name) | Self::Feature(name, _) => name,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
