//! Where the time of a push goes: in the target, or with the agent.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::engine::explain::{Stage, StageTimes};

/// Time since the first call, by what was under way: a flush, writes, or nothing, while the agent reads and sends.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    writes: u32,
    flushes: u32,
    /// When that changed last.
    since: Option<Instant>,
    times: StageTimes,
}

/// A call that is under way.
#[derive(Debug)]
pub(super) struct Call<'a> {
    meter: &'a Meter,
    stage: Stage,
}

impl Meter {
    /// A write begins.
    pub(super) fn write(&self) -> Call<'_> {
        self.begin(Stage::Write)
    }

    /// A flush begins.
    pub(super) fn flush(&self) -> Call<'_> {
        self.begin(Stage::Flush)
    }

    /// Until now; nothing before the first call.
    pub(super) fn times(&self) -> StageTimes {
        let mut state = self.state();
        if state.since.is_some() {
            state.pass();
        }
        state.times
    }

    fn begin(&self, stage: Stage) -> Call<'_> {
        let mut state = self.state();
        state.pass();
        *state.count(stage) += 1;
        Call { meter: self, stage }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pass(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.since.replace(now) {
            let stage = match (self.flushes, self.writes) {
                (0, 0) => Stage::Read,
                (0, _) => Stage::Write,
                _ => Stage::Flush,
            };
            self.times.add(stage, now - since);
        }
    }

    const fn count(&mut self, stage: Stage) -> &mut u32 {
        match stage {
            Stage::Flush => &mut self.flushes,
            _ => &mut self.writes,
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.meter.state();
        state.pass();
        *state.count(self.stage) -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn l25_time_is_the_targets_while_it_writes_and_the_agents_between() {
        let meter = Meter::default();
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        pass(100).await;
        assert_eq!(meter.times(), StageTimes::default());
        let (one, other) = (meter.write(), meter.write());
        pass(2).await;
        drop(one);
        pass(1).await;
        drop(other);
        pass(5).await;
        let flush = meter.flush();
        pass(4).await;
        let beside = meter.write();
        pass(1).await;
        drop(flush);
        pass(1).await;
        drop(beside);
        let times = meter.times();
        let seconds = [Stage::Write, Stage::Read, Stage::Flush].map(|stage| times.of(stage).as_secs());
        assert_eq!((seconds, times.bottleneck()), ([4, 5, 5], Some(Stage::Flush)));
    }
}
