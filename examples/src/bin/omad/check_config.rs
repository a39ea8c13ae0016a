//! What is wrong with the settings, and what they are.

use oma_core::Result;
use oma_examples::daemon::{backend, doors, nbd_port};
use oma_examples::{limits_file, output};

use crate::settings::Settings;

/// Reads the files that are named, and prints all settings as a file.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    settings.work.limits.as_deref().map(limits_file::read).transpose()?;
    doors::identity(&settings.api)?;
    nbd_port::named_identity(&settings.nbd).await?;
    backend::check(&settings.volumes.backend())?;
    output::line(format_args!("# These settings are good.\n{}", settings.toml()?.trim_end()))
}
