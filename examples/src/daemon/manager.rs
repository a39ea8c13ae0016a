//! What a service manager is told (`sd_notify`), where there is one: that the daemon serves, that it lives, that it ends.

use std::time::Duration;

use oma_api::server::Readiness;
use oma_core::engine::CancellationToken;
use sd_notify::NotifyState;

/// How often it is told how the daemon does, without a watchdog.
const PACE: Duration = Duration::from_secs(30);
/// The part of a daemon without which a restart helps; all else is no fault of its own.
const OWN: &str = "worker";

/// Tells the service manager.
#[derive(Debug)]
pub(super) struct Manager {
    readiness: Readiness,
    /// It ends a daemon that says nothing for so long.
    watchdog: Option<Duration>,
}

impl Manager {
    pub(super) fn new(readiness: Readiness) -> Self {
        Self { readiness, watchdog: sd_notify::watchdog_enabled() }
    }

    /// The daemon serves.
    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    }

    /// Tells that it lives and what it lacks, until it ends. A daemon that hangs itself is not told of.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let pace = self.watchdog.map_or(PACE, |limit| limit / 3);
        let telling = async {
            loop {
                self.tell().await;
                tokio::time::sleep(pace).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = telling => {}
        }
        tell(&[
            NotifyState::Stopping,
            NotifyState::Status("jobs are given back, answers under way finished"),
        ]);
    }

    async fn tell(&self) {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        let missing = self.readiness.missing().await;
        let status = match missing.is_empty() {
            true => "serving".to_owned(),
            false => format!("serving, but not there: {}", missing.join(", ")),
        };
        let mut told = vec![NotifyState::Status(&status)];
        if self.watchdog.is_some() && !missing.contains(&OWN) {
            told.push(NotifyState::Watchdog);
        }
        tell(&told);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "could not tell the service manager");
    }
}
