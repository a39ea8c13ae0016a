//! How often something can be done in a while.

use std::time::{Duration, Instant};

use crate::Result;

/// Has every worker do its work again and again until the time is up; answers how often a second they did it in all.
///
/// A worker answers how much it did, and nothing when there is nothing left to do.
pub(crate) async fn rate<W, F>(workers: Vec<W>, window: Duration) -> Result<f64>
where
    W: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<Option<u32>>> + Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = workers
        .into_iter()
        .map(|mut work| {
            tokio::spawn(async move {
                let mut done = 0.0;
                while begun.elapsed() < window {
                    match work().await? {
                        Some(more) => done += f64::from(more),
                        None => break,
                    }
                }
                Ok::<_, crate::Failure>(done)
            })
        })
        .collect();
    let mut done = 0.0;
    for task in tasks {
        done += task.await??;
    }
    Ok(done / begun.elapsed().as_secs_f64())
}
