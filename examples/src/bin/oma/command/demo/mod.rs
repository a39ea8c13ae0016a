//! A whole replication on a disk made for it:
//!
//! ```text
//! disk made → served over NBD → copied in full, verified → changed through NBD → changes copied, verified
//! ```

mod disk;
mod show;

use std::ffi::OsString;
use std::path::Path;

use oma_api::ReplicationReport;
use oma_core::{ByteSize, Error, ErrorKind, Result};

use super::Context;
use crate::args::DemoArgs;
use crate::report;
use oma_examples::failure::{Failed, io_error};
use oma_examples::output;

/// Below, the regions that are changed would overlap; above, a minute is not enough.
const SIZES: (ByteSize, ByteSize) = (ByteSize::mib(64), ByteSize::gib(64));

/// Shows it, and cleans up unless told to keep.
pub(super) async fn run(context: &Context, args: &DemoArgs) -> Result<(), Failed> {
    if args.size < SIZES.0 || args.size > SIZES.1 {
        let reason = format!("{} is not possible; name a size from {} to {}", args.size, SIZES.0, SIZES.1);
        return Err(Error::new(ErrorKind::Invalid, "make", "a disk").because(reason).into());
    }
    let named = |arg: OsString| arg.as_encoded_bytes().starts_with(b"--data-dir");
    if std::env::args_os().any(named) {
        output::note("the demo has a data directory of its own; --data-dir is not used");
    }
    let temporary = std::env::temp_dir();
    let failed = |error| io_error("make a folder in", temporary.display(), error);
    let folder = tempfile::Builder::new().prefix("oma-demo-").tempdir().map_err(failed)?;
    let reports = show::run(folder.path(), args.size).await?;
    if context.json {
        output::json(&reports)?;
    } else {
        print(&reports)?;
    }
    if args.keep {
        let kept = folder.keep();
        if !context.json {
            output::line(what_is_kept(&kept))?;
        }
        return Ok(());
    }
    let path = folder.path().to_owned();
    folder.close().map_err(|error| io_error("remove", path.display(), error))?;
    Ok(())
}

fn print(reports: &[ReplicationReport]) -> Result<()> {
    output::line(format_args!("\n{}", report::table(reports)))?;
    let verified: ByteSize =
        reports.iter().flat_map(|report| &report.disks).filter_map(|disk| disk.bytes_verified).sum();
    output::line(format_args!(
        "\nevery byte is the same at source and target: {verified} compared in {} epochs",
        reports.len()
    ))
}

fn what_is_kept(folder: &Path) -> String {
    let folder = folder.display();
    let data = format!("{folder}/{}", show::DATA_DIR);
    let source = format!("{folder}/{}", show::SOURCE);
    format!(
        "\nkept in {folder}:\n  the source {source}\n  the data directory {data}\n\nto look at it:\n  \
         oma --data-dir {data} disks\n  \
         oma --data-dir {data} jobs\n  \
         oma --data-dir {data} change-id --vm-path {vm}\n  \
         oma --data-dir {data} verify --vm-path {vm} --source {source}\n  \
         oma serve {source} --socket {folder}/source.sock",
        vm = show::VM,
    )
}
