//! Standard output: results. Standard error: everything else.

use std::fmt::Display;
use std::io::{self, Write};

use oma_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::failure::io_error;

/// Prints a line to standard output. A reader that went away (`oma jobs | head`) is no failure.
pub fn line(text: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(io_error("write to", "standard output", error))
        }
        _ => Ok(()),
    }
}

/// Prints a value as one line of JSON.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Internal, "write", "JSON").with_source(error))?;
    line(text)
}

/// Prints a line to standard error. When that is gone, nobody is there to be told.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
