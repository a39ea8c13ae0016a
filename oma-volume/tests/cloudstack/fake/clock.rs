//! The fake's own time. Nothing here ever waits.

use std::time::Duration;

use time::OffsetDateTime;

/// Stands still at the moment of its making, or goes with the machine's; in both cases it can be moved on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    stopped_at: Option<OffsetDateTime>,
    ahead: Duration,
}

impl Clock {
    pub(crate) fn stopped() -> Self {
        Self { stopped_at: Some(OffsetDateTime::now_utc()), ahead: Duration::ZERO }
    }

    pub(crate) fn running() -> Self {
        Self { stopped_at: None, ahead: Duration::ZERO }
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.stopped_at.unwrap_or_else(OffsetDateTime::now_utc) + self.ahead
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }
}

/// As answers tell it: `2026-01-02T03:04:05+0000`.
pub(crate) fn text(moment: OffsetDateTime) -> String {
    let (date, time) = (moment.date(), moment.time());
    format!("{date}T{:02}:{:02}:{:02}+0000", time.hour(), time.minute(), time.second())
}
