//! What the next epoch of a VM will cost, told from those before.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::services::Services;
use crate::record::{JobFilter, ReplicationJob};
use crate::state::{JobStatus, ReplicationType};
use crate::traits::{ChangeIdRepo, Inventory, JobStore};
use crate::{ByteSize, ContextId, Fence, JobId, Result, Timestamp};

/// Epochs that a forecast looks back on.
const LOOK_BACK: usize = 64;

/// A value that was met by half of the past, with what a tenth of it stayed below and nine tenths did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread<T> {
    /// A tenth of the past was below.
    pub low: T,
    /// Half of the past was below.
    pub middle: T,
    /// Nine tenths of the past were below.
    pub high: T,
}

impl<T: Copy> Spread<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> Spread<U> {
        Spread { low: change(self.low), middle: change(self.middle), high: change(self.high) }
    }
}

/// What the next epoch will cost, if the VM goes on as it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Incremental epochs that it is told from: those that took one run, after one that did.
    pub epochs: usize,
    /// Bytes that change in a second.
    pub change_rate: Spread<f64>,
    /// Bytes of an incremental epoch that begins now.
    pub next_bytes: Spread<ByteSize>,
    /// How long that will take.
    pub next_duration: Spread<Duration>,
    /// How long the disks must stand still at a cutover: one incremental epoch now, then, with the VM stopped, one of what changed
    /// meanwhile. The boot of the VM in its new place is not in it.
    pub cutover: Spread<Duration>,
}

/// Forecasts the next epoch of a VM; `None` before its second incremental epoch.
///
/// A job that took more than one run tells nothing, and neither does the epoch after it: between its runs nobody worked, and nobody
/// recorded when the last of them froze the source.
///
/// # Errors
/// What the store answers.
pub async fn forecast<S>(store: &S, vm: &ContextId, now: Timestamp) -> Result<Option<Forecast>>
where
    S: JobStore + Inventory + ChangeIdRepo,
{
    told_from(store, store, store, vm, now).await
}

impl Services {
    /// The same as [`forecast`], from these records.
    ///
    /// # Errors
    /// What the stores answer.
    pub async fn forecast(&self, vm: &ContextId, now: Timestamp) -> Result<Option<Forecast>> {
        told_from(&*self.jobs, &*self.inventory, &*self.change_ids, vm, now).await
    }
}

async fn told_from(
    jobs: &dyn JobStore,
    inventory: &dyn Inventory,
    change_ids: &dyn ChangeIdRepo,
    vm: &ContextId,
    now: Timestamp,
) -> Result<Option<Forecast>> {
    let mut copied: BTreeMap<JobId, Copied> = BTreeMap::new();
    for record in inventory.disks(vm).await? {
        let mut history = change_ids.history(&record.disk).take(LOOK_BACK);
        while let Some(epoch) = history.try_next().await? {
            let copied = copied.entry(epoch.job).or_default();
            copied.bytes += epoch.bytes_transferred;
            copied.in_full |= epoch.sync_type == ReplicationType::Initial;
        }
    }
    let filter = JobFilter { context: Some(vm.clone()), ..JobFilter::default() };
    let mut listed = jobs.list(filter);
    let mut runs = Vec::new();
    while runs.len() < LOOK_BACK
        && let Some(job) = listed.try_next().await?
    {
        runs.extend(copied.get(&job.id).and_then(|copied| Run::of(&job, copied)));
    }
    Ok(from_runs(&runs, now))
}

/// What a job copied of all disks.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    bytes: ByteSize,
    in_full: bool,
}

/// A job that reached its epoch.
#[derive(Clone, Copy, Debug)]
struct Run {
    begun: Timestamp,
    seconds: f64,
    bytes: f64,
    is_incremental: bool,
    /// It was not interrupted.
    in_one_go: bool,
}

impl Run {
    fn of(job: &ReplicationJob, copied: &Copied) -> Option<Self> {
        let ended = job.completed_at.filter(|_| job.status == JobStatus::Completed)?;
        Some(Self {
            begun: job.created_at,
            seconds: seconds_between(job.created_at, ended),
            bytes: float(copied.bytes.bytes()),
            is_incremental: !copied.in_full,
            // Every run claims the job anew.
            in_one_go: job.fence <= Fence::FIRST.next(),
        })
    }
}

/// From runs, newest first.
fn from_runs(runs: &[Run], now: Timestamp) -> Option<Forecast> {
    let last = runs.first()?;
    let mut rates = Vec::new();
    let mut costs = Vec::new();
    let tells = |(run, before): &(&Run, &Run)| run.is_incremental && run.in_one_go && before.in_one_go;
    for (run, before) in runs.iter().zip(runs.iter().skip(1)).filter(tells) {
        let interval = seconds_between(before.begun, run.begun);
        if interval > 0.0 {
            rates.push(run.bytes / interval);
            costs.push((run.bytes, run.seconds));
        }
    }
    if rates.len() < 2 {
        return None;
    }
    let change_rate = spread(&mut rates);
    let cost = Cost::fit(&costs);
    let next = change_rate.map(|rate| rate * seconds_between(last.begun, now));
    Some(Forecast {
        epochs: rates.len(),
        change_rate,
        next_bytes: next.map(whole_bytes),
        next_duration: next.map(|bytes| duration(cost.seconds(bytes))),
        // What changes while the epoch before the stop runs is all that is left to copy.
        cutover: Spread {
            low: duration(cost.seconds(change_rate.low * cost.seconds(next.low))),
            middle: duration(cost.seconds(change_rate.middle * cost.seconds(next.middle))),
            high: duration(cost.seconds(change_rate.high * cost.seconds(next.high))),
        },
    })
}

/// What an epoch costs: a fixed time, and a time for each byte.
#[derive(Clone, Copy, Debug)]
struct Cost {
    fixed: f64,
    per_byte: f64,
}

impl Cost {
    /// The line of least squares through what was seen; where that makes no sense, the quickest as the fixed time.
    fn fit(seen: &[(f64, f64)]) -> Self {
        let count = float(u64::try_from(seen.len()).unwrap_or(u64::MAX));
        let mean = |of: fn(&(f64, f64)) -> f64| seen.iter().map(of).sum::<f64>() / count;
        let (bytes, seconds) = (mean(|one| one.0), mean(|one| one.1));
        let variance: f64 = seen.iter().map(|one| (one.0 - bytes).powi(2)).sum();
        let together: f64 = seen.iter().map(|one| (one.0 - bytes) * (one.1 - seconds)).sum();
        let per_byte = together / variance;
        let fixed = seconds - per_byte * bytes;
        if per_byte.is_finite() && per_byte >= 0.0 && fixed >= 0.0 {
            return Self { fixed, per_byte };
        }
        // No epoch takes less than the quickest one did, however little it copies.
        let fixed = seen.iter().map(|one| one.1).fold(seconds, f64::min);
        let per_byte = if bytes > 0.0 { (seconds - fixed) / bytes } else { 0.0 };
        Self { fixed, per_byte }
    }

    fn seconds(&self, bytes: f64) -> f64 {
        self.fixed + self.per_byte * bytes
    }
}

fn spread(values: &mut [f64]) -> Spread<f64> {
    values.sort_by(f64::total_cmp);
    // The nearest rank (Hyndman and Fan 1996, definition 1).
    let at = |tenths: usize| values[(values.len() * tenths).div_ceil(10).max(1) - 1];
    Spread { low: at(1), middle: at(5), high: at(9) }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    float(u64::try_from(to.as_millis().saturating_sub(from.as_millis())).unwrap_or(0)) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a forecast need not be exact")]
#[allow(clippy::as_conversions, reason = "there is no other way to a float")]
const fn float(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a forecast need not be exact; the cast saturates"
)]
#[allow(clippy::as_conversions, reason = "there is no other way from a float")]
const fn whole_bytes(bytes: f64) -> ByteSize {
    ByteSize::new(bytes as u64)
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epochs an hour apart, newest first, of a VM that changes so many MB an hour, at 10 s and 1 s for each 100 MB.
    fn runs(megabytes: &[f64]) -> Vec<Run> {
        let epoch = |(index, mb): (usize, &f64)| Run {
            begun: hours(megabytes.len() - index),
            seconds: 10.0 + mb / 100.0,
            bytes: mb * 1e6,
            is_incremental: index + 1 < megabytes.len(),
            in_one_go: true,
        };
        megabytes.iter().enumerate().map(epoch).collect()
    }

    fn hours(hours: usize) -> Timestamp {
        Timestamp::from_millis(i64::try_from(hours).unwrap() * 3_600_000)
    }

    fn about(found: Duration, seconds: f64) {
        let found = found.as_secs_f64();
        assert!((found - seconds).abs() < seconds / 100.0, "{found} where {seconds} was expected");
    }

    #[test]
    fn a_steady_vm_goes_on_as_before() {
        let forecast = from_runs(&runs(&[360.0, 360.0, 720.0, 360.0, 100_000.0]), hours(6)).unwrap();
        assert_eq!(forecast.epochs, 4);
        let megabytes = forecast.next_bytes.map(|bytes| bytes.bytes() / 1_000_000);
        assert_eq!((megabytes.low, megabytes.middle, megabytes.high), (360, 360, 720));
        about(forecast.next_duration.middle, 13.6);
        about(forecast.next_duration.high, 17.2);
        // 13.6 s at 0.1 MB/s are 1.36 MB: 10 s and a little.
        about(forecast.cutover.middle, 10.01);
    }

    #[test]
    fn less_than_two_incremental_epochs_tell_nothing() {
        assert_eq!(from_runs(&[], hours(1)), None);
        assert_eq!(from_runs(&runs(&[360.0, 100_000.0]), hours(3)), None);
    }

    #[test]
    fn neither_an_interrupted_job_nor_the_epoch_after_it_tells_anything() {
        let mut interrupted = runs(&[360.0, 900.0, 800.0, 360.0, 360.0, 1.0]);
        (interrupted[2].in_one_go, interrupted[2].seconds) = (false, 3.0 * 86_400.0);
        let forecast = from_runs(&interrupted, hours(7)).unwrap();
        assert_eq!((forecast.epochs, forecast.next_bytes.high), (3, ByteSize::new(360_000_000)));
        about(forecast.next_duration.high, 13.6);
    }

    #[test]
    fn epochs_of_one_size_have_no_slope_and_still_a_cost() {
        let forecast = from_runs(&runs(&[360.0, 360.0, 360.0, 1.0]), hours(5)).unwrap();
        about(forecast.next_duration.middle, 13.6);
        let nothing = from_runs(&runs(&[0.0, 0.0, 0.0, 1.0]), hours(5)).unwrap();
        about(nothing.cutover.high, 10.0);
    }

    #[test]
    fn no_stand_still_is_shorter_than_the_quickest_epoch_was() {
        let mut odd = runs(&[300.0, 200.0, 100.0, 1.0]);
        for (run, seconds) in odd.iter_mut().zip([30.0, 5.0, 6.0]) {
            run.seconds = seconds;
        }
        let forecast = from_runs(&odd, hours(5)).unwrap();
        assert!(forecast.cutover.low.as_secs_f64() >= 5.0, "{forecast:?}");
    }

    #[test]
    fn a_clock_that_went_back_is_no_rate() {
        let mut back = runs(&[360.0, 360.0, 360.0, 1.0]);
        back[0].begun = hours(1);
        assert_eq!(from_runs(&back, hours(0)).unwrap().epochs, 2);
    }
}
