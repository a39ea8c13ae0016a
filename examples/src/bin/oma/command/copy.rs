use std::path::Path;
use std::sync::Arc;

use oma_api::CopyReport;
use oma_core::engine::{self, CopyRequest, Limit, LimitConfig, Original, ReplicateConfig};
use oma_core::traits::{Access, BlockDevice, Zeroing};
use oma_core::{ByteSize, Error, ErrorKind, Extent, Result};
use oma_nbd::{Client, ClientConfig, Uri};
use oma_volume::device::FileDevice;

use super::Context;
use crate::args::{CopyArgs, ReflinkArg};
use crate::copy_journal::Journal;
use crate::{extents_file, output, progress, report};
use oma_examples::failure::Failed;
use oma_examples::signals::Signals;
use oma_examples::source;

/// Copies one disk to another, without records but its own journal.
pub(super) async fn run(context: &Context, args: &CopyArgs) -> Result<(), Failed> {
    let signals = Signals::listen(match args.journal {
        None => "stopping; the target holds a part of the copy (once more: end at once)",
        Some(_) => "stopping; the same command goes on with the copy (once more: end at once)",
    })?;
    let extents = match &args.extents {
        Some(path) => Some(extents_file::read(path).await?),
        None => None,
    };
    let arg = args.disk();
    let disk = source::disk(&arg)?;
    source::is_another(&args.source, &args.target)?;
    let journal = Journal::open(args).await?;
    let goes_on = match &journal {
        Some(journal) => journal.goes_on().await?,
        None => false,
    };
    let described = disk.describe().await?;
    let target = target(args, described.capacity, goes_on).await?;
    let resume = journal.map(|journal| journal.bind(args, &described, &*target.device)).transpose()?;
    let source = disk.open().await?;
    let limit = LimitConfig { bandwidth: args.bandwidth, ..LimitConfig::default() };
    let request = CopyRequest {
        key: arg.key,
        source,
        target: Arc::clone(&target.device),
        extents,
        blank: target.blank,
        zeroing: Zeroing::Punch,
        limit: args.bandwidth.map(|_| Limit::new(&limit).map(Arc::new)).transpose()?,
        resume,
        repair: args.repair,
        verify: args.verify.into(),
        original: Some(Original { disk, content: described.content }),
    };
    let share_blocks = args.reflink == ReflinkArg::Auto;
    let (memory, journal_step) = (args.memory, args.journal_step);
    let trust_zeroes = !args.distrust_zeroes;
    let config =
        ReplicateConfig { memory, journal_step, share_blocks, trust_zeroes, ..ReplicateConfig::default() };
    let progress = progress::for_stderr();
    let copied = engine::copy(&request, &config, &*progress, signals.stop()).await;
    drop(progress);
    let done =
        copied.map_err(|error| Error::new(error.kind(), "copy to", &args.target).with_source(error))?;
    if args.extents.is_none() && request.target.info().capacity > described.capacity {
        output::note(format_args!(
            "the target is larger than the source: what it holds behind {} stays as it was",
            described.capacity
        ));
    }
    tell(context, args, &done)
}

fn tell(context: &Context, args: &CopyArgs, done: &engine::CopyReport) -> Result<(), Failed> {
    let report = CopyReport {
        source: args.source.clone(),
        target: args.target.clone(),
        bytes_total: done.bytes_total,
        bytes_resumed: done.bytes_resumed,
        bytes_recopied: done.bytes_recopied,
        bytes_read: done.bytes_read,
        bytes_written: done.bytes_written,
        bytes_shared: done.bytes_shared,
        bytes_zero: done.bytes_zero,
        bytes_equal: done.bytes_equal,
        bytes_verified: done.bytes_verified,
        seconds: done.duration.as_secs_f64(),
        explanation: report::explanation(&done.stages),
    };
    if context.json {
        output::json(&report)?;
    } else {
        if report.bytes_resumed > ByteSize::ZERO {
            output::line(format_args!("{} of it were there already", report.bytes_resumed))?;
        }
        if args.repair {
            output::line(format_args!("{} of it were equal", report.bytes_equal))?;
        }
        output::line(format_args!(
            "{} copied in {:.2} s: {} read, {} written, {} shared, {} zero; most time in {}",
            report.bytes_total,
            report.seconds,
            report.bytes_read,
            report.bytes_written,
            report.bytes_shared,
            report.bytes_zero,
            report.explanation.bottleneck.as_deref().unwrap_or("nothing"),
        ))?;
        if report.bytes_verified > ByteSize::ZERO {
            output::line(format_args!("{} compared and equal", report.bytes_verified))?;
        }
    }
    Ok(())
}

/// Where the copy goes.
struct Target {
    device: Arc<dyn BlockDevice>,
    /// It reads as zero everywhere.
    blank: bool,
}

async fn target(args: &CopyArgs, capacity: ByteSize, goes_on: bool) -> Result<Target> {
    if source::is_uri(&args.target) {
        let client = Client::connect(&Uri::parse(&args.target)?, ClientConfig::default()).await?;
        return Ok(Target { device: Arc::new(client), blank: args.blank });
    }
    // What the journal tells of is not made anew.
    let made = if goes_on { None } else { FileDevice::make(&args.target, capacity).await? };
    if let Some(device) = made {
        return Ok(Target { device: Arc::new(device), blank: true });
    }
    let device =
        FileDevice::open(&args.target, Access::ReadWrite).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound if goes_on => {
                Error::new(error.kind(), "go on with the copy to", &args.target).because(
                    "it is gone; bring it back, or remove the journal to copy all again, without --blank",
                )
            }
            _ => error,
        })?;
    // Whoever names extents means a target that is there. A device is always there, and cannot be made anew.
    let expected = goes_on || args.overwrite || args.repair || args.extents.is_some();
    let fits = device.info().capacity >= capacity;
    if !expected && fits && Path::new(&args.target).is_file() && holds_data(&device).await? {
        return Err(Error::new(ErrorKind::AlreadyExists, "copy to", &args.target)
            .because("it holds data; name another file, write over it with --overwrite, or make it equal with --repair"));
    }
    Ok(Target { device: Arc::new(device), blank: args.blank })
}

/// Whether anything of a device may read as something else than zero.
async fn holds_data(device: &dyn BlockDevice) -> Result<bool> {
    let capacity = device.info().capacity.bytes();
    let mut rest = Extent::between(0, capacity);
    while let Some(asked) = rest {
        let status = device.block_status(asked).await?;
        if status.iter().any(|status| !status.kind.reads_zero()) {
            return Ok(true);
        }
        rest = status.last().and_then(|last| Extent::between(last.extent.end(), capacity));
    }
    Ok(false)
}
