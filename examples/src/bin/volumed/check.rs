//! Whether the place where volumes live has all that is needed.

use oma_core::{Error, ErrorKind, Result};
use oma_examples::data_dir::DataDir;
use oma_examples::output;
use oma_volume::cloudstack::Verdict;

use crate::args::Cli;
use oma_examples::daemon::{Backend, backend};

pub(crate) async fn run(cli: &Cli) -> Result<()> {
    if cli.backend.backend != Backend::Cloudstack {
        let data = DataDir::new(&cli.data_dir)?;
        data.make()?;
        backend::open(&cli.backend, &data).await?;
        return output::line("good: volumes can be made in the data directory");
    }
    let found = backend::cloudstack(&cli.backend)?.preflight().await?;
    found.findings.iter().try_for_each(output::line)?;
    match found.findings.iter().any(|finding| finding.verdict == Verdict::Failed) {
        true => Err(Error::new(ErrorKind::Unavailable, "check", "CloudStack")
            .because("not all that is needed is there")),
        false => Ok(()),
    }
}
