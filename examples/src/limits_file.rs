//! Limits in a file, as JSON.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use oma_core::engine::{Limits, LimitsConfig};
use oma_core::{Error, ErrorKind, Result, SystemClock};

use crate::failure::read_error;
use crate::output;

/// Reads the limits of a file.
///
/// # Errors
/// What reading it answers; `Invalid` for what are no limits.
pub fn read(path: &Path) -> Result<Limits> {
    let place = path.display();
    let text =
        fs::read_to_string(path).map_err(|error| read_error("read limits from", place.to_string(), error))?;
    let config: LimitsConfig = serde_json::from_str(&text).map_err(|error| {
        Error::new(ErrorKind::Invalid, "read limits from", place.to_string()).with_source(error)
    })?;
    Limits::new(config, Arc::new(SystemClock))
        .map_err(|error| Error::new(error.kind(), "read limits from", place.to_string()).with_source(error))
}

/// Tells which names limited nothing, after all disks were read.
pub fn note_unused(limits: Option<&Limits>) {
    for name in limits.map(Limits::unused).unwrap_or_default() {
        output::note(format_args!("{name} is on the way of no disk of this VM, and limited nothing"));
    }
}
