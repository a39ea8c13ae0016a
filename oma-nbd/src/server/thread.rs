//! A thread for one connection.
//!
//! A device whose calls are done in place may keep its caller waiting for a disk. On a thread that serves nobody else, nobody
//! else waits; and the client's next request is taken where its last was answered, without a hand-over.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::Builder;
use std::time::Duration;

use oma_core::ExportName;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use super::Inner;
use super::error::Closed;
use super::handshake::Agreed;
use super::stop::Stop;
use super::transmission::Connection;
use super::transport::Transport;

/// Threads of one connection for calls that wait for the disk: reads of what is not in memory, flushes.
const WAITING: usize = 16;
/// How long such a thread stays without work.
const IDLE: Duration = Duration::from_secs(2);

/// A connection with all that it needs.
struct Work {
    server: Arc<Inner>,
    transport: Transport,
    agreed: Agreed,
    stop: Stop,
}

/// A runtime that can be dropped anywhere: without a thread for it, that is where another runtime is at work.
struct Own(Option<Runtime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A thread that waits for its connection.
pub(super) struct Thread {
    begin: mpsc::Sender<Work>,
    outcome: oneshot::Receiver<Result<(), Closed>>,
}

impl Thread {
    /// Starts a thread.
    ///
    /// # Errors
    /// There are too many threads or open files.
    pub(super) fn start(export: &ExportName) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WAITING)
            .thread_keep_alive(IDLE)
            .build()
            .map(|runtime| Own(Some(runtime)))?;
        let ((begin, work), (tell, outcome)) = (mpsc::channel(), oneshot::channel());
        Builder::new().name(format!("nbd {export}")).spawn(move || {
            if let (Ok(work), Some(runtime)) = (work.recv(), &runtime.0) {
                // The receiver is gone when the listener was shut down and did not wait any longer.
                let _ = tell.send(runtime.block_on(serve(work)));
            }
        })?;
        Ok(Self { begin, outcome })
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(
        self,
        server: Arc<Inner>,
        transport: Transport,
        agreed: Agreed,
        stop: Stop,
    ) -> Result<(), Closed> {
        let sent = self.begin.send(Work { server, transport, agreed, stop });
        sent.map_err(|_| Closed::Panicked)?;
        self.outcome.await.unwrap_or(Err(Closed::Panicked))
    }
}

async fn serve(Work { server, transport, agreed, stop }: Work) -> Result<(), Closed> {
    Connection::new(server, transport.moved()?, agreed).in_place().run(&stop).await
}
