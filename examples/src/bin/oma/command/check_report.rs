use std::path::{Path, PathBuf};
use std::sync::Arc;

use oma_api::{ReportCheck, VerifyStatus};
use oma_core::engine::{CancellationToken, ReplicateConfig, tree_root};
use oma_core::record::{DiskVerification, VerificationReport};
use oma_core::seal::{PublicKey, Signer};
use oma_core::traits::{Access, BlockDevice};
use oma_core::tree::TreeRoot;
use oma_core::{Error, ErrorKind, Result};
use oma_volume::device::FileDevice;

use super::Context;
use crate::args::VerifyArgs;
use crate::{output, verification};
use oma_examples::failure::Failed;
use oma_examples::signals::Signals;
use oma_examples::signing_key;

/// Checks a report without the appliance that made it: its signature, and the roots of files that are said to be its disk
/// and its volume.
pub(super) async fn run(context: &Context, args: &VerifyArgs, path: &Path) -> Result<(), Failed> {
    let sealed = verification::read(path)?;
    let trusted = trusted(context, args)?;
    sealed.check(&trusted)?;
    let signals = Signals::listen("stopping; nothing was changed")?;
    let report = sealed.report;
    let files = compare_files(&report, args, signals.stop()).await?;
    let identical = report.is_identical();
    let check = ReportCheck {
        status: if identical { VerifyStatus::Identical } else { VerifyStatus::Differs },
        public_key: trusted,
        files,
        report,
    };
    if context.json {
        output::json(&check)?;
    } else {
        output::line(verification::table(&check.report))?;
        verification::print_differences(&check.report)?;
        output::line(format_args!("the report is as it was signed with {trusted}"))?;
        for file in &check.files {
            output::line(format_args!("{} has the root of the report", file.display()))?;
        }
    }
    if identical {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Mismatch, "check", path.display())
        .because("the report is good, and it says that source and volume differ");
    Err(Failed::reported(error))
}

/// The key that the report must be signed with: the one that was named, or that of the data directory.
fn trusted(context: &Context, args: &VerifyArgs) -> Result<PublicKey> {
    if let Some(key) = args.public_key {
        return Ok(key);
    }
    let own = signing_key::load(&context.data.signing_key())?;
    own.map(|key| Signer::public_key(&key)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "check", "the report").because(
            "whose signature it should bear is not known: name the key that `oma key` printed with --public-key",
        )
    })
}

/// Compares the roots of the files that were named with those of the report; the files.
async fn compare_files(
    report: &VerificationReport,
    args: &VerifyArgs,
    stop: &CancellationToken,
) -> Result<Vec<PathBuf>> {
    let named = [(args.source.as_ref().map(PathBuf::from), true), (args.volume.clone(), false)];
    let mut compared = Vec::new();
    for (path, is_source) in named {
        let Some(path) = path else { continue };
        let disk = report.disks.iter().find(|disk| disk.key == args.disk_key).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "check", &args.disk_key)
                .because("the report has no such disk; name one with --disk-key")
        })?;
        let expected = if is_source { disk.source_root } else { disk.target_root };
        compare_file(&path, disk, expected, stop).await?;
        compared.push(path);
    }
    Ok(compared)
}

async fn compare_file(
    path: &Path,
    disk: &DiskVerification,
    expected: Option<TreeRoot>,
    stop: &CancellationToken,
) -> Result<()> {
    let expected = expected.ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "check", &disk.key)
            .because("the report is not of a whole disk, so it has no root; check its signature alone")
    })?;
    let device: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(path, Access::ReadOnly).await?);
    let root = tree_root(&device, disk.capacity, &ReplicateConfig::default(), stop).await?;
    if root == expected {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Mismatch, "check", path.display()).because(format!(
        "its root is {root} and that of the report {expected}: it is another disk, or was written since"
    )))
}
