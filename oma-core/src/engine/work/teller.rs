//! Listens to a run and says how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::progress::{DiskProgress, Event, Progress};
use crate::record::{DiskAdvance, JobProgress};
use crate::state::ReplicationType;
use crate::{ByteSize, Clock as _, DiskKey, SystemClock};

/// What "of late" means for a rate.
const WINDOW: Duration = Duration::from_secs(30);

/// Keeps what a run tells, in a form that can be recorded.
#[derive(Debug)]
pub(super) struct Teller {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    step: Option<&'static str>,
    disks: BTreeMap<DiskKey, Disk>,
    is_news: bool,
}

#[derive(Debug)]
struct Disk {
    progress: DiskProgress,
    unchanged: ByteSize,
    begun: Instant,
    first: ByteSize,
    /// Durable bytes at moments of late, oldest first.
    samples: VecDeque<(Instant, ByteSize)>,
    /// The rate as it was said last.
    rate: Option<ByteSize>,
}

impl Teller {
    pub(super) fn new() -> Self {
        Self { told: Mutex::default() }
    }

    /// What was said as news was not heard.
    pub(super) fn unheard(&self) {
        self.told().is_news = true;
    }

    /// How far the run is, unless that was said already. That nothing moves any more is news too, until the rate is said to be none.
    pub(super) fn news(&self) -> Option<JobProgress> {
        let mut told = self.told();
        let is_news = std::mem::take(&mut told.is_news);
        if !is_news && !told.disks.values().any(Disk::is_said_to_move) {
            return None;
        }
        let now = Instant::now();
        let disks = told.disks.iter_mut().map(|(key, disk)| disk.advance(key, now)).collect();
        Some(JobProgress { step: told.step.map(str::to_owned), at: SystemClock.now(), disks })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Teller {
    fn event(&self, event: Event<'_>) {
        let mut told = self.told();
        match event {
            Event::StepBegins(step) => told.step = Some(step),
            Event::StepEnded(_) => told.step = None,
            Event::Planned { disk, mode, progress, .. } => {
                told.disks.insert(disk.clone(), Disk::planned(mode, progress));
            }
            Event::Copied { disk, progress } | Event::Recorded { disk, progress } => {
                if let Some(disk) = told.disks.get_mut(disk) {
                    disk.progress = progress;
                }
            }
            Event::Job { .. } | Event::Compared { .. } | Event::Warning(_) => return,
        }
        told.is_news = true;
    }
}

impl Disk {
    fn planned(mode: ReplicationType, progress: DiskProgress) -> Self {
        let unchanged = match mode {
            ReplicationType::Initial => 0,
            ReplicationType::Incremental => progress.capacity.bytes().saturating_sub(progress.total.bytes()),
        };
        let (begun, first) = (Instant::now(), progress.durable);
        let samples = VecDeque::from([(begun, first)]);
        Self { progress, unchanged: ByteSize::new(unchanged), begun, first, samples, rate: None }
    }

    fn is_said_to_move(&self) -> bool {
        self.rate.is_some_and(|rate| rate > ByteSize::ZERO)
    }

    fn advance(&mut self, key: &DiskKey, now: Instant) -> DiskAdvance {
        let DiskProgress { total, done, durable, read, written, zero, times, .. } = self.progress;
        self.samples.push_back((now, durable));
        while self.samples.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.samples.pop_front();
        }
        let of_late = self.samples.front().and_then(|(at, then)| rate(*then, durable, now - *at));
        self.rate = of_late;
        let left = total.bytes().saturating_sub(durable.bytes());
        let remaining = of_late.filter(|rate| rate.bytes() > 0).map(|rate| left.div_ceil(rate.bytes()));
        DiskAdvance {
            key: key.clone(),
            total,
            done,
            durable,
            read,
            written,
            zero,
            unchanged: self.unchanged,
            rate: of_late,
            mean_rate: rate(self.first, durable, now - self.begun),
            remaining: if left == 0 { Some(Duration::ZERO) } else { remaining.map(Duration::from_secs) },
            bottleneck: times.bottleneck().map(|stage| stage.label().to_owned()),
        }
    }
}

/// Bytes per second; `None` for no time at all.
fn rate(from: ByteSize, to: ByteSize, time: Duration) -> Option<ByteSize> {
    let millis = u64::try_from(time.as_millis()).ok().filter(|millis| *millis > 0)?;
    let moved = u128::from(to.bytes().saturating_sub(from.bytes()));
    u64::try_from(moved * 1000 / u128::from(millis)).ok().map(ByteSize::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::explain::{Stage, StageTimes};

    fn key() -> DiskKey {
        DiskKey::parse("disk-2000").unwrap()
    }

    fn at(durable: u64) -> DiskProgress {
        let mut times = StageTimes::default();
        times.add(Stage::Write, Duration::from_secs(2));
        times.add(Stage::Read, Duration::from_secs(1));
        let (done, durable) = (ByteSize::mib(durable), ByteSize::mib(durable));
        DiskProgress {
            capacity: ByteSize::mib(1000),
            total: ByteSize::mib(400),
            done,
            durable,
            times,
            ..DiskProgress::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn l25_rates_and_the_rest_are_of_durable_bytes() {
        let (teller, key) = (Teller::new(), key());
        assert_eq!(teller.news(), None);
        teller.event(Event::StepBegins("copy"));
        let mode = ReplicationType::Incremental;
        teller.event(Event::Planned { disk: &key, mode, note: None, progress: at(100) });
        let first = teller.news().unwrap();
        assert_eq!(
            (first.step.as_deref(), first.disks[0].rate, first.disks[0].remaining),
            (Some("copy"), None, None)
        );
        assert_eq!(
            (first.disks[0].unchanged, first.disks[0].durable),
            (ByteSize::mib(600), ByteSize::mib(100))
        );
        assert_eq!(teller.news(), None);

        tokio::time::advance(Duration::from_secs(10)).await;
        teller.event(Event::Copied {
            disk: &key,
            progress: DiskProgress { done: ByteSize::mib(390), ..at(200) },
        });
        let second = teller.news().unwrap().disks.remove(0);
        assert_eq!((second.rate, second.mean_rate), (Some(ByteSize::mib(10)), Some(ByteSize::mib(10))));
        assert_eq!(second.remaining, Some(Duration::from_secs(20)));
        assert_eq!(second.bottleneck.as_deref(), Some("write"));

        // It slows down: of late it is slower than in the mean.
        tokio::time::advance(WINDOW).await;
        teller.event(Event::Recorded { disk: &key, progress: at(260) });
        let third = teller.news().unwrap().disks.remove(0);
        assert_eq!(third.rate, Some(ByteSize::mib(2)));
        assert_eq!(third.mean_rate, Some(ByteSize::mib(4)));
        assert_eq!(third.remaining, Some(Duration::from_secs(70)));

        tokio::time::advance(WINDOW).await;
        teller.event(Event::Recorded { disk: &key, progress: at(400) });
        assert_eq!(teller.news().unwrap().disks[0].remaining, Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn l25_a_source_that_hangs_has_no_rate_after_a_while() {
        let (teller, key) = (Teller::new(), key());
        let mode = ReplicationType::Incremental;
        teller.event(Event::Planned { disk: &key, mode, note: None, progress: at(100) });
        tokio::time::advance(Duration::from_secs(10)).await;
        teller.event(Event::Copied { disk: &key, progress: at(200) });
        assert_eq!(teller.news().unwrap().disks[0].rate, Some(ByteSize::mib(10)));
        let mut last = None;
        for _ in 0..WINDOW.as_secs() * 2 {
            tokio::time::advance(Duration::from_secs(1)).await;
            last = teller.news().or(last);
        }
        let last = last.expect("that nothing moves is told").disks.remove(0);
        assert_eq!(
            (last.rate, last.remaining, last.durable),
            (Some(ByteSize::ZERO), None, ByteSize::mib(200))
        );
        assert_eq!(teller.news(), None);
    }

    #[test]
    fn no_time_gives_no_rate() {
        assert_eq!(rate(ByteSize::ZERO, ByteSize::mib(1), Duration::ZERO), None);
    }
}
