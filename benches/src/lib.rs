//! What the benchmarks have in common: the middle of many measurements, and tables.

mod stats;
mod table;

pub use stats::{median, quantile};
pub use table::{Cell, Table};
