//! What the benchmarks have in common: the middle of many measurements, processor time, and tables.

mod process;
mod stats;
mod table;

pub use process::{Times, family};
pub use stats::{gib, median, quantile, spread};
pub use table::{Cell, Table};
