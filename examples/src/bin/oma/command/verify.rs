use std::time::Instant;

use oma_api::{DiskComparison, VerifyReport, VerifyStatus};
use oma_core::engine::{self, ReplicateConfig, VerifyRequest};
use oma_core::record::DiskVerification;
use oma_core::{Error, ErrorKind, Result, VmPath};

use super::{Context, check_report};
use crate::appliance::Appliance;
use crate::args::VerifyArgs;
use crate::{output, progress, verification};
use oma_examples::failure::Failed;
use oma_examples::limits_file;
use oma_examples::signals::Signals;

/// Compares disks with their volumes, or checks a report of that.
pub(super) async fn run(context: &Context, args: &VerifyArgs) -> Result<(), Failed> {
    match (&args.report, &args.vm_path) {
        (Some(report), _) => check_report::run(context, args, report).await,
        (None, Some(vm)) => compare(context, args, vm).await,
        (None, None) => Err(Error::new(ErrorKind::Invalid, "verify", "nothing")
            .because("name a VM with --vm-path or a report with --report")
            .into()),
    }
}

async fn compare(context: &Context, args: &VerifyArgs, vm: &VmPath) -> Result<(), Failed> {
    let begun = Instant::now();
    args.save.as_deref().map_or(Ok(()), verification::check_savable)?;
    let limits = args.limits.as_deref().map(limits_file::read).transpose()?;
    let source = args.machine.source(vm, &args.list())?;
    let signals = Signals::listen("stopping; nothing was changed")?;
    let appliance = Appliance::open_to_read(&context.data, source).await?;
    output::note(format_args!("comparing the disks of {vm} with their volumes"));
    let services = &appliance.services;
    let config = ReplicateConfig {
        trust_zeroes: !args.distrust_zeroes,
        memory: args.memory,
        ..ReplicateConfig::default()
    };
    let request = VerifyRequest { vm: vm.clone(), level: args.level.into(), limits: limits.clone() };
    let progress = progress::for_stderr();
    let found = engine::verify(services, &config, &request, &*progress, signals.stop()).await;
    drop(progress);
    appliance.close().await;
    let sealed = found?;
    limits_file::note_unused(limits.as_ref());
    let saved = args.save.as_ref().map_or(Ok(()), |path| verification::save(&sealed, path));
    let disks: Vec<_> = sealed.report.disks.into_iter().map(comparison).collect();
    let different: u64 = disks.iter().map(|disk| disk.bytes_different.bytes()).sum();
    let error = match (different > 0, saved) {
        (true, saved) => {
            // What differs goes before what could not be saved.
            saved.unwrap_or_else(|error| output::note(format_args!("warning: {}", error.chain())));
            Some(differs(vm, different))
        }
        (false, saved) => saved.err(),
    };
    let report = VerifyReport {
        vm_path: vm.clone(),
        status: status(different == 0),
        seconds: begun.elapsed().as_secs_f64(),
        error: error.as_ref().map(Error::chain),
        disks,
    };
    if context.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    error.map_or(Ok(()), |error| Err(Failed::reported(error)))
}

fn comparison(found: DiskVerification) -> DiskComparison {
    DiskComparison {
        bytes_verified: found.covered(),
        disk_key: found.key,
        status: status(found.differences.is_empty()),
        bytes_promised_zero: found.promised_zero.unwrap_or_default(),
        bytes_different: found.differences.bytes(),
        differences: found.differences.iter().collect(),
    }
}

const fn status(identical: bool) -> VerifyStatus {
    if identical { VerifyStatus::Identical } else { VerifyStatus::Differs }
}

fn differs(vm: &VmPath, bytes: u64) -> Error {
    Error::new(ErrorKind::Mismatch, "verify", vm).because(format!(
        "source and volumes differ in {bytes} bytes; if the source was not written since the last epoch, \
         replicate it with --trust-changes no, and --distrust-zeroes if it promises zeroes where it has data"
    ))
}

fn print(report: &VerifyReport) -> Result<()> {
    for disk in &report.disks {
        for extent in &disk.differences {
            output::line(format_args!(
                "{}: {} bytes differ at {}",
                disk.disk_key,
                extent.length(),
                extent.offset()
            ))?;
        }
        if disk.status == VerifyStatus::Identical {
            let (verified, promised) = (disk.bytes_verified, disk.bytes_promised_zero);
            output::line(format_args!(
                "{}: {verified} compared, identical; {promised} of them are only promised to be zero, by both sides",
                disk.disk_key
            ))?;
        }
    }
    Ok(())
}
