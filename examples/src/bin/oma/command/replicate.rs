use std::sync::Arc;

use oma_api::ReplicationReport;
use oma_core::Result;
use oma_core::engine::{CopyMode, PathPolicy, ReplicateConfig, ReplicateRequest, Report};

use super::Context;
use crate::appliance::Appliance;
use crate::args::{ReflinkArg, ReplicateArgs};
use crate::{metrics_file, output, progress, report};
use oma_examples::failure::Failed;
use oma_examples::limits_file;
use oma_examples::signals::Signals;
use oma_examples::trail;
use serde_json::json;

const STOPPING: &str = "stopping; what is copied stays, the same command continues (once more: end at once)";

/// Brings the volumes of a VM to what its disks are now.
pub(super) async fn run(context: &Context, args: &ReplicateArgs) -> Result<(), Failed> {
    let source = args.disks.open()?;
    source.notes().await?.iter().for_each(|note| output::note(format_args!("{note}")));
    let limits = args.limits.as_deref().map(limits_file::read).transpose()?;
    args.metrics.as_deref().map_or(Ok(()), metrics_file::check)?;
    let signals = Signals::listen(STOPPING)?;
    let appliance = Appliance::open(&context.data, source).await?;
    let request = ReplicateRequest {
        vm: args.disks.vm_path.clone(),
        path: if args.rename { PathPolicy::Rename } else { PathPolicy::Keep },
        verify: args.verify.into(),
        trust: args.trust_changes.into(),
        provisioning: args.provisioning.into(),
        points: args.points.keep(),
        mode: CopyMode::Pull,
    };
    let config = ReplicateConfig {
        journal_step: args.journal_step,
        share_blocks: args.reflink == ReflinkArg::Auto,
        trust_zeroes: !args.distrust_zeroes,
        memory: args.memory,
        ..ReplicateConfig::default()
    };
    let progress = progress::kept(&request.vm);
    let refreshing =
        args.metrics.clone().map(|path| metrics_file::Refreshing::start(path, Arc::clone(&progress)));
    let replicator = appliance.replicator(config);
    let replicator = match &limits {
        Some(limits) => replicator.with_limits(limits.clone()),
        None => replicator,
    };
    let entry = trail::entry("replication.run", "vm", &request.vm, json!({ "rename": args.rename }));
    let result = appliance.recorded(entry, replicator.run(&request, &*progress, signals.stop())).await;
    if let Some(refreshing) = refreshing {
        refreshing.end(result.is_ok()).await;
    }
    drop(progress);
    let told = result.map(|report| (tell(args, &request, &report), report));
    // Only then may another run write the same metrics.
    appliance.close().await;
    let (wire, report) = told?;
    if report.outcome.is_completed() {
        limits_file::note_unused(limits.as_ref());
    }
    if context.json {
        output::json(&wire)?;
    } else {
        print(&wire)?;
    }
    report::error(report).map_or(Ok(()), |error| Err(Failed::reported(error)))
}

/// The report as it is printed; its metrics are written.
fn tell(args: &ReplicateArgs, request: &ReplicateRequest, report: &Report) -> ReplicationReport {
    let mut wire = report::replication(&request.vm, report);
    if let Some(path) = &args.metrics
        && let Err(error) = metrics_file::write(path, &wire.metrics())
    {
        // The epoch is what it is, whoever reads of it.
        let warning = error.chain();
        output::note(format_args!("warning: {warning}"));
        wire.warnings.push(warning);
    }
    wire
}

fn print(report: &ReplicationReport) -> Result<()> {
    let table = report::table([report]);
    if !table.is_empty() {
        output::line(table)?;
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
