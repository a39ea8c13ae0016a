//! SIGINT and SIGTERM: the first ends the work cleanly, the second the process.

use std::process;

use oma_core::Result;
use oma_core::engine::CancellationToken;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::exit;
use crate::failure::io_error;
use crate::output;

/// Listens for signals until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Signals {
    /// Listens; at the first signal tells `note` to the operator and cancels [`Signals::stop`].
    pub(crate) fn listen(note: &'static str) -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| io_error("listen for", "signals", error));
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            next(&mut interrupt, &mut terminate).await;
            output::note(note);
            token.cancel();
            next(&mut interrupt, &mut terminate).await;
            process::exit(i32::from(exit::INTERRUPTED));
        });
        Ok(Self { stop, task })
    }

    /// Cancelled by the first signal.
    pub(crate) const fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Does something at each SIGHUP until it is dropped.
#[derive(Debug)]
pub(crate) struct HangUps(JoinHandle<()>);

impl HangUps {
    pub(crate) fn listen<F: Future<Output = ()> + Send>(
        mut act: impl FnMut() -> F + Send + 'static,
    ) -> Result<Self> {
        let mut hang_ups =
            signal(SignalKind::hangup()).map_err(|error| io_error("listen for", "signals", error))?;
        Ok(Self(tokio::spawn(async move {
            while hang_ups.recv().await.is_some() {
                act().await;
            }
        })))
    }
}

impl Drop for HangUps {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
