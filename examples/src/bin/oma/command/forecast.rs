use std::time::Duration;

use oma_api::{ForecastReport, Spread};
use oma_core::engine::{self, Forecast};
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
    let forecast = forecast.ok_or_else(|| {
        let reason = match known {
            Some(_) => {
                "it has less than two incremental epochs that took one run each; replicate it twice more, some time apart"
            }
            None => "there is no such VM; `oma disks` lists those that there are",
        };
        Error::new(ErrorKind::NotFound, "forecast", &args.vm_path).because(reason)
    })?;
    let report = report(&args.vm_path, &forecast);
    if context.json {
        output::json(&report)?;
    } else {
        print(&report)?;
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

fn report(vm: &VmPath, forecast: &Forecast) -> ForecastReport {
    ForecastReport {
        vm_path: vm.clone(),
        epochs: u64::try_from(forecast.epochs).unwrap_or(u64::MAX),
        change_bytes_per_second: spread(forecast.change_rate, |rate| rate),
        next_bytes: spread(forecast.next_bytes, |bytes| bytes),
        next_seconds: spread(forecast.next_duration, |time| time.as_secs_f64()),
        cutover_seconds: spread(forecast.cutover, |time| time.as_secs_f64()),
    }
}

fn spread<T: Copy, U>(of: engine::Spread<T>, change: impl Fn(T) -> U) -> Spread<U> {
    Spread { p10: change(of.low), p50: change(of.middle), p90: change(of.high) }
}
