//! The log, on standard error.

use std::io;

use oma_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Lines for readers.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Begins it: what was asked for and what went wrong, or what `OMA_LOG` says.
///
/// # Errors
/// `Invalid` when the variable is none that it understands.
pub fn begin(log: Log) -> Result<()> {
    let filter = EnvFilter::builder()
        .with_env_var("OMA_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| Error::new(ErrorKind::Invalid, "read", "OMA_LOG").with_source(error))?;
    let told = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    match log {
        Log::Text => told.init(),
        Log::Json => told.json().init(),
    }
    Ok(())
}
