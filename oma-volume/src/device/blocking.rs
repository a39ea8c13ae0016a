//! The door to blocking calls: nothing else in this crate leaves the async workers.
//!
//! Threads work everywhere. For reads of what is not in the page cache io_uring has up to twice the rate where it is allowed, for
//! a fifth of the processor time (`bench-io` in `benches/README.md`): the feature `uring` is for them. Durable writes as single
//! requests are slower with it, so these and all else stay here.

use super::error::DeviceError;

/// Runs a blocking call on a thread made for it. When the caller goes away, the call still ends, in its own time.
pub(crate) async fn blocking<T, F>(call: F) -> Result<T, DeviceError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(answer) => Ok(answer),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(DeviceError::Shutdown),
        },
    }
}
