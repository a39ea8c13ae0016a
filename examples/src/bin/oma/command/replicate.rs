use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use oma_api::ReplicationReport;
use oma_core::engine::{ReplicateConfig, ReplicateRequest};
use oma_core::{Error, ErrorKind, Result};

use super::Context;
use crate::appliance::Appliance;
use crate::args::{ReflinkArg, ReplicateArgs};
use crate::failure::{Failed, io_error};
use crate::signals::Signals;
use crate::source::Source;
use crate::{limits_file, output, progress, report};

/// How metrics begin.
const MARK: &[u8; 11] = b"# HELP oma_";

const STOPPING: &str = "stopping; what is copied stays, the same command continues (once more: end at once)";

/// Brings the volumes of a VM to what its disks are now.
pub(super) async fn run(context: &Context, args: &ReplicateArgs) -> Result<(), Failed> {
    let source = Source::open(&args.disks.vm_path, &args.disks.machine, &args.disks.list())?;
    source.notes().await?.iter().for_each(|note| output::note(format_args!("{note}")));
    let limits = args.limits.as_deref().map(limits_file::read).transpose()?;
    args.metrics.as_deref().map_or(Ok(()), check_replaceable)?;
    let signals = Signals::listen(STOPPING)?;
    let appliance = Appliance::open(&context.data, source).await?;
    let request = ReplicateRequest {
        vm: args.disks.vm_path.clone(),
        verify: args.verify.into(),
        trust: args.trust_changes.into(),
        provisioning: args.provisioning.into(),
        points: args.points.keep(),
    };
    let config = ReplicateConfig {
        journal_step: args.journal_step,
        share_blocks: args.reflink == ReflinkArg::Auto,
        trust_zeroes: !args.distrust_zeroes,
        ..ReplicateConfig::default()
    };
    let progress = progress::for_stderr();
    let replicator = appliance.replicator(config);
    let replicator = match limits {
        Some(limits) => replicator.with_limits(limits),
        None => replicator,
    };
    let result = replicator.run(&request, &*progress, signals.stop()).await;
    drop(progress);
    appliance.close().await;
    let report = result?;
    let wire = report::replication(&request.vm, &report);
    if context.json {
        output::json(&wire)?;
    } else {
        print(&wire)?;
    }
    let written = args.metrics.as_ref().map(|path| write_metrics(path, &wire));
    // Why there is no epoch goes before what could not be written.
    let failed = report::error(report).map_or(Ok(()), Err).and(written.unwrap_or(Ok(())));
    failed.map_err(Failed::reported)
}

/// A collector that reads meanwhile sees the old file or the new one.
fn write_metrics(path: &Path, report: &ReplicationReport) -> Result<()> {
    let failed = |error| io_error("write metrics to", path.display(), error);
    check_replaceable(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(report.metrics().as_bytes()).map_err(failed)?;
    let readable = Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Only metrics of ours are replaced: a slip of the pen must not cost a disk or a device.
fn check_replaceable(path: &Path) -> Result<()> {
    let failed = |error| io_error("write metrics to", path.display(), error);
    let mut begin = [0; MARK.len()];
    let ours = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(about) if !about.is_file() => false,
        Ok(_) => {
            let mut file = File::open(path).map_err(failed)?;
            file.read_exact(&mut begin).is_ok() && begin == *MARK
        }
    };
    if ours {
        return Ok(());
    }
    Err(Error::new(ErrorKind::AlreadyExists, "write metrics to", path.display())
        .because("what is there is no file of metrics; name another one, or remove it"))
}

fn print(report: &ReplicationReport) -> Result<()> {
    if !report.disks.is_empty() {
        output::line(report::table([report]))?;
    }
    if report.status == oma_api::Outcome::Completed {
        output::line(format_args!(
            "{}: epoch {} of {} is committed",
            report.job_id, report.epoch, report.vm_path
        ))?;
        if let Some(point) = &report.recovery_point {
            output::line(format_args!("{point} is its recovery point"))?;
        }
    }
    Ok(())
}
