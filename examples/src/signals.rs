//! SIGINT, SIGTERM and SIGHUP: the first ends the work cleanly, the second the process.

use std::{fs, future, process};

use oma_core::Result;
use oma_core::engine::CancellationToken;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::exit;
use crate::failure::io_error;
use crate::output;

/// SIGXFSZ, on x86 and ARM.
const FILE_TOO_LARGE: i32 = 25;

/// Listens for signals until it is dropped.
#[derive(Debug)]
pub struct Signals {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Signals {
    /// Listens; at the first signal tells `note` to the operator and cancels [`Signals::stop`].
    ///
    /// A terminal that goes is such a signal, unless it was to be ignored when the process began, as under nohup.
    pub fn listen(note: &'static str) -> Result<Self> {
        Self::listen_to(note, !ignores_hang_ups())
    }

    /// The same without SIGHUP, for what does something else then.
    pub fn listen_but_for_hang_ups(note: &'static str) -> Result<Self> {
        Self::listen_to(note, false)
    }

    fn listen_to(note: &'static str, hang_ups: bool) -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| io_error("listen for", "signals", error));
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        // Who has a handler is told of a file that may not grow (`ulimit -f`) by an error, in place of being killed.
        drop(listen(SignalKind::from_raw(FILE_TOO_LARGE))?);
        let mut hang_up = hang_ups.then(|| listen(SignalKind::hangup())).transpose()?;
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            next(&mut interrupt, &mut terminate, hang_up.as_mut()).await;
            output::note(note);
            token.cancel();
            // A shell may pass on what the kernel has sent already: another SIGHUP says nothing new.
            next(&mut interrupt, &mut terminate, None).await;
            process::exit(i32::from(exit::INTERRUPTED));
        });
        Ok(Self { stop, task })
    }

    /// Cancelled by the first signal.
    pub const fn stop(&self) -> &CancellationToken {
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
pub struct HangUps(JoinHandle<()>);

impl HangUps {
    /// Listens; `act` is done at each.
    ///
    /// # Errors
    /// When the system refuses to tell of signals.
    pub fn listen<F: Future<Output = ()> + Send>(
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

async fn next(interrupt: &mut Signal, terminate: &mut Signal, hang_up: Option<&mut Signal>) {
    let hung_up = async {
        match hang_up {
            Some(hang_up) => hang_up.recv().await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hung_up => {}
    }
}

/// Whether whoever started this process has it ignore SIGHUP, which is the first bit of the mask.
fn ignores_hang_ups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
