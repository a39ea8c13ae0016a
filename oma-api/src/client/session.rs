use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, Response};
use tokio::task::JoinHandle;

use super::http::Http;
use crate::backend;

/// An answer that is read for as long as a volume is to be open, and renewed. Dropped, the connection is closed, and by that the volume.
#[derive(Debug)]
pub(super) struct Session {
    is_over: Arc<AtomicBool>,
    reading: JoinHandle<()>,
}

/// So often a session is renewed within its lease.
const RENEWALS: u32 = 3;
/// No daemon is asked more often, whatever it says.
const SHORTEST: Duration = Duration::from_millis(100);

impl Session {
    pub(super) fn new(response: Response, http: Arc<Http>, told: backend::Session) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let backend::Session { session_id, lease_ms, .. } = told;
        let pause = SHORTEST.max(Duration::from_millis(lease_ms) / RENEWALS);
        let reading = tokio::spawn(async move {
            tokio::select! {
                () = beats(response) => {}
                never = renewals(&http, &session_id, pause) => match never {},
            }
            over.store(true, Ordering::Release);
        });
        Self { is_over, reading }
    }

    /// Whether the daemon ended it, or is gone.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

async fn beats(mut response: Response) {
    while let Ok(Some(_heartbeat)) = response.chunk().await {}
}

/// One that is lost is followed by the next; a session that ended ends its answer too.
async fn renewals(http: &Http, session: &str, pause: Duration) -> Infallible {
    loop {
        tokio::time::sleep(pause).await;
        let path = ["sessions", session, "renew"];
        drop(tokio::time::timeout(pause, http.send_to(Method::POST, &path, &())).await);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
