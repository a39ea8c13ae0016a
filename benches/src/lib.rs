//! What the benchmarks have in common: the middle of many measurements, processor time, files, certificates, and tables.

mod certificates;
mod file;
mod process;
mod stats;
mod table;

pub use certificates::{CERTIFICATES_PROGRAM, certificates};
pub use file::{chill, data, is_in_memory, made};
pub use process::{Times, family, oma, program, read_from_disk};
pub use stats::{gib, median, quantile, spread};
pub use table::{Cell, Table};
