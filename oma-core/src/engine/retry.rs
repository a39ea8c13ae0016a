//! The one retry loop of the workspace.

use tokio_util::sync::CancellationToken;

use super::config::RetryConfig;
use crate::{Error, ErrorKind, Result, Retry};

/// Calls until it succeeds, fails for good, was tried often enough or is stopped. A call that is under way is waited for, whatever
/// is stopped: who may give one up says so ([`StoppableBackend`](super::stoppable::StoppableBackend)), or bounds it.
pub(super) async fn retry<T, Fut>(
    config: &RetryConfig,
    stop: &CancellationToken,
    mut call: impl FnMut() -> Fut,
) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let mut pause = config.first_pause;
    let mut attempt = 1;
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) if error.retry() != Retry::Later => return Err(error),
            Err(error) if attempt >= config.attempts => return Err(error.with_retry(Retry::Exhausted)),
            Err(error) => error,
        };
        tracing::debug!(attempt, error = %error.chain(), "try again later");
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stopped(&error)),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(config.longest_pause);
        attempt += 1;
    }
}

fn stopped(error: &Error) -> Error {
    Error::new(ErrorKind::Cancelled, error.operation().to_owned(), error.resource())
        .because(format!("stopped while waiting to try again after: {}", error.chain()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Duration;

    fn failing(retry: Retry) -> Error {
        Error::new(ErrorKind::Unavailable, "ask", "somebody").with_retry(retry)
    }

    #[tokio::test(start_paused = true)]
    async fn tries_again_only_when_that_can_help() {
        let calls = Cell::new(0);
        let never: Result<()> = retry(&RetryConfig::default(), &CancellationToken::new(), || {
            calls.set(calls.get() + 1);
            async { Err(failing(Retry::Never)) }
        })
        .await;
        assert_eq!((never.unwrap_err().retry(), calls.get()), (Retry::Never, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_the_last_attempt_and_says_so() {
        let calls = Cell::new(0);
        let exhausted: Result<()> = retry(&RetryConfig::default(), &CancellationToken::new(), || {
            calls.set(calls.get() + 1);
            async { Err(failing(Retry::Later)) }
        })
        .await;
        assert_eq!((exhausted.unwrap_err().retry(), calls.get()), (Retry::Exhausted, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_success_is_a_success() {
        let calls = Cell::new(0);
        let third = retry(&RetryConfig::default(), &CancellationToken::new(), || {
            calls.set(calls.get() + 1);
            let call = calls.get();
            async move { if call < 3 { Err(failing(Retry::Later)) } else { Ok(call) } }
        })
        .await;
        assert_eq!(third.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn l11_a_stop_while_waiting_is_not_success_and_nothing_is_tried_again() {
        let config = RetryConfig { attempts: 64, first_pause: Duration::ZERO, ..RetryConfig::default() };
        let (stop, calls) = (CancellationToken::new(), Cell::new(0));
        stop.cancel();
        let error = retry(&config, &stop, || {
            calls.set(calls.get() + 1);
            async { Err::<(), _>(failing(Retry::Later)) }
        })
        .await;
        assert_eq!((error.unwrap_err().kind(), calls.get()), (ErrorKind::Cancelled, 1));
    }
}
