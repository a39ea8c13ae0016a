use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Response;
use tokio::task::JoinHandle;

/// An answer that is read for as long as a volume is to be open. Dropped, the connection is closed, and by that the volume.
#[derive(Debug)]
pub(super) struct Session {
    is_over: Arc<AtomicBool>,
    reading: JoinHandle<()>,
}

impl Session {
    pub(super) fn new(mut response: Response) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let reading = tokio::spawn(async move {
            while let Ok(Some(_heartbeat)) = response.chunk().await {}
            told.store(true, Ordering::Release);
        });
        Self { is_over, reading }
    }

    /// Whether the daemon ended it, or is gone.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
