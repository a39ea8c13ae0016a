use oma_core::seal::SealedReport;
use oma_core::traits::{JobStore, ReportStore};
use oma_core::{Error, ErrorKind, JobId, Result};

use super::Context;
use crate::args::ReportArgs;
use crate::{appliance, output, verification};

/// Prints the verification report of a job, as it is stored.
pub(super) async fn run(context: &Context, args: &ReportArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let found = store.report_of(&args.job).await?;
    let known = store.get(&args.job).await?.is_some();
    store.close().await;
    tell(&found.ok_or_else(|| missing(&args.job, known))?, args, context.json)
}

/// Prints a report, whoever had it, and saves it where that is asked for.
pub(crate) fn tell(sealed: &SealedReport, args: &ReportArgs, json: bool) -> Result<()> {
    if let Some(path) = &args.save {
        verification::save(sealed, path)?;
    }
    if json { output::json(sealed) } else { print(sealed) }
}

fn print(sealed: &SealedReport) -> Result<()> {
    output::line(verification::table(&sealed.report))?;
    verification::print_differences(&sealed.report)?;
    match &sealed.seal {
        Some(seal) => output::line(format_args!("signed with {}; not checked here", seal.public_key)),
        None => output::line("not signed"),
    }
}

/// A report that is not there.
pub(crate) fn missing(job: &JobId, known: bool) -> Error {
    let reason = match known {
        true => "the job has no verification report: it was run with --verify none, or did not come as far",
        false => "there is no such job; `oma jobs` lists what there is",
    };
    Error::new(ErrorKind::NotFound, "read the report of", job).because(reason)
}
