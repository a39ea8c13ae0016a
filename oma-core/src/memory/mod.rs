//! Complete in-memory implementations of every trait: for tests, documentation and embedders' first steps.

mod clock;

pub use clock::ManualClock;
