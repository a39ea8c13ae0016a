//! Work that goes on when whoever asked for it goes away (L18), and how it ended, told to who asks again.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Error, ErrorKind, Result, Retry};

/// So many failures are remembered, the last ones.
const REMEMBERED: usize = 64;

/// Errands under way, each by its name. A clone is another handle on the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Errands(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Cancelled when nothing more is to be begun.
    stop: CancellationToken,
    /// Cancelled when what is under way is not waited for any longer.
    given_up: CancellationToken,
    tasks: TaskTracker,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: BTreeSet<String>,
    failed: VecDeque<Failure>,
}

/// What an errand failed with; an error itself is told once only.
#[derive(Clone, Debug)]
struct Failure {
    name: String,
    kind: ErrorKind,
    retry: Retry,
    operation: String,
    resource: String,
    why: String,
}

/// An errand is under way until this is dropped, also by a panic.
struct UnderWay(Errands, String);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().under_way.remove(&self.1);
        self.0.0.ended.notify_waiters();
    }
}

impl Errands {
    /// Begins one, unless it is under way already. To be called within a Tokio runtime.
    pub(super) fn begin(
        &self,
        name: impl fmt::Display,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let name = name.to_string();
        let mut state = self.state();
        if !state.under_way.insert(name.clone()) {
            return;
        }
        state.failed.retain(|failure| failure.name != name);
        drop(state);
        let under_way = UnderWay(self.clone(), name);
        self.0.tasks.spawn(async move {
            let UnderWay(errands, name) = &under_way;
            let ended = tokio::select! {
                biased;
                ended = work => ended,
                () = errands.0.given_up.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(errand = %name, error = %error.chain(), "was not done");
                errands.remember(name, &error);
            }
        });
    }

    pub(super) fn is_under_way(&self, name: impl fmt::Display) -> bool {
        self.state().under_way.contains(&name.to_string())
    }

    /// How one ended, or `None` when it is under way still after so long. One that nobody knows of has not failed here.
    pub(super) async fn wait(&self, name: impl fmt::Display, within: Duration) -> Option<Result<()>> {
        let name = name.to_string();
        // For ever is ten years.
        let until = Instant::now() + within.min(Duration::from_hours(10 * 365 * 24));
        loop {
            let ended = self.0.ended.notified();
            if !self.is_under_way(&name) {
                return Some(self.failure(&name).map_or(Ok(()), Err));
            }
            if Instant::now() >= until {
                return None;
            }
            drop(tokio::time::timeout_at(until, ended).await);
        }
    }

    /// Cancelled when what is under way is to rest.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Something that is looked after until [`Errands::end`].
    pub(super) fn look_after(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(work);
    }

    /// Lets what is under way end soon, and waits for that; what does not within `patience` is left as after a crash.
    pub(super) async fn end(&self, patience: Duration) {
        self.0.stop.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_err() {
            tracing::error!("something is under way that does not end; the next start goes on with it");
            self.0.given_up.cancel();
            self.0.tasks.wait().await;
        }
    }

    fn remember(&self, name: &str, error: &Error) {
        let mut state = self.state();
        if state.failed.len() >= REMEMBERED {
            state.failed.pop_front();
        }
        let prefix = format!("{error}: ");
        let chain = error.chain();
        let why = chain.strip_prefix(&prefix).unwrap_or_default().to_owned();
        state.failed.push_back(Failure {
            name: name.to_owned(),
            kind: error.kind(),
            retry: error.retry(),
            operation: error.operation().to_owned(),
            resource: error.resource().to_owned(),
            why,
        });
    }

    fn failure(&self, name: &str) -> Option<Error> {
        let failure = self.state().failed.iter().find(|failure| failure.name == name).cloned()?;
        let Failure { kind, retry, operation, resource, why, .. } = failure;
        let error = Error::new(kind, operation, resource);
        Some(if why.is_empty() { error } else { error.because(why) }.with_retry(retry))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_errand_goes_on_by_itself_and_what_it_failed_with_is_told_until_it_is_begun_again() {
        let errands = Errands::default();
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        errands.begin("one", async {
            let _ = receive.await;
            Err(Error::new(ErrorKind::Busy, "open volume", "vol-1").because("a reader has it"))
        });
        errands.begin("one", async { panic!("it is under way already") });
        assert!(errands.wait("one", Duration::ZERO).await.is_none());
        send.send(()).unwrap();
        for _ in 0..2 {
            let failed = errands.wait("one", Duration::MAX).await.unwrap().unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Busy);
            assert_eq!(failed.chain(), "open volume vol-1: busy: a reader has it");
        }
        errands.begin("one", async { Ok(()) });
        errands.wait("one", Duration::MAX).await.unwrap().unwrap();
        errands.wait("unknown", Duration::ZERO).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_left() {
        let errands = Errands::default();
        errands.begin("one", std::future::pending());
        errands.end(Duration::from_secs(60)).await;
        assert!(errands.stop().is_cancelled() && !errands.is_under_way("one"));
    }
}
