//! A thread for one connection.
//!
//! A device whose calls are done in place may keep its caller waiting for a disk. On a thread that serves nobody else, nobody
//! else waits; and the client's next request is taken where its last was answered, without a hand-over.

use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use tokio::runtime;
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

/// Serves a connection to its end on a thread of its own.
pub(super) async fn serve(
    server: Arc<Inner>,
    transport: Transport,
    agreed: Agreed,
    stop: Stop,
) -> Result<(), Closed> {
    let (tell, outcome) = oneshot::channel();
    let name = format!("nbd {}", agreed.export.served.export.name);
    let thread = Builder::new().name(name).spawn(move || {
        // The receiver is gone when the listener was shut down and did not wait any longer.
        let _ = tell.send(run(server, transport, agreed, &stop));
    });
    thread.map_err(Closed::NoThread)?;
    outcome.await.unwrap_or(Err(Closed::Panicked))
}

fn run(server: Arc<Inner>, transport: Transport, agreed: Agreed, stop: &Stop) -> Result<(), Closed> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(WAITING)
        .thread_keep_alive(IDLE)
        .build()
        .map_err(Closed::NoThread)?;
    runtime.block_on(async {
        let transport = transport.moved()?;
        Connection::new(server, transport, agreed).in_place().run(stop).await
    })
}
