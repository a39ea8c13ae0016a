use std::time::Duration;

use oma_api::ForecastReport;
use oma_core::engine;
use oma_core::traits::Inventory;
use oma_core::{ByteSize, Clock, Error, ErrorKind, Result, SystemClock, VmPath};

use super::Context;
use crate::args::ForecastArgs;
use crate::{appliance, metrics_file, output};

/// Prints what the next epoch of a VM will cost, also while another process replicates.
pub(super) async fn run(context: &Context, args: &ForecastArgs) -> Result<()> {
    args.metrics.as_deref().map_or(Ok(()), metrics_file::check)?;
    let store = appliance::open_records(&context.data).await?;
    let known = store.by_path(&args.vm_path).await?;
    let forecast = match &known {
        Some(vm) => engine::forecast(&store, &vm.id, SystemClock.now()).await?,
        None => None,
    };
    store.close().await;
    let forecast = forecast.ok_or_else(|| missing(&args.vm_path, known.is_some()))?;
    tell(&ForecastReport::new(&args.vm_path, &forecast), args, context.json)
}

/// Why there is no forecast.
pub(crate) fn missing(vm: &VmPath, known: bool) -> Error {
    let reason = match known {
        true => ForecastReport::TOO_EARLY,
        false => "there is no such VM; `oma disks` lists those that there are",
    };
    Error::new(ErrorKind::NotFound, "forecast", vm).because(reason)
}

/// Prints a forecast, whoever told it, and writes its metrics where that is asked for.
pub(crate) fn tell(report: &ForecastReport, args: &ForecastArgs, json: bool) -> Result<()> {
    if json {
        output::json(report)?;
    } else {
        print(report)?;
    }
    args.metrics.as_deref().map_or(Ok(()), |path| metrics_file::write(path, &report.metrics()))
}

fn print(report: &ForecastReport) -> Result<()> {
    let ForecastReport { epochs, next_bytes, next_seconds, cutover_seconds, .. } = report;
    let size = |rate: f64| {
        Duration::try_from_secs_f64(rate).map_or(ByteSize::ZERO, |rate| ByteSize::new(rate.as_secs()))
    };
    let rate = &report.change_bytes_per_second;
    output::line(format_args!(
        "of the last {epochs} incremental epochs a tenth was below, half, nine tenths:\n\
         changes a second   {} {} {}\n\
         next epoch, bytes  {} {} {}\n\
         next epoch, time   {:.1} s {:.1} s {:.1} s\n\
         stand-still        {:.1} s {:.1} s {:.1} s",
        size(rate.p10),
        size(rate.p50),
        size(rate.p90),
        next_bytes.p10,
        next_bytes.p50,
        next_bytes.p90,
        next_seconds.p10,
        next_seconds.p50,
        next_seconds.p90,
        cutover_seconds.p10,
        cutover_seconds.p50,
        cutover_seconds.p90,
    ))
}
