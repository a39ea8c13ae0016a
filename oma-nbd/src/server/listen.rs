//! Takes connections from a listener and owns them until they end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::error::Closed;
use super::handshake::shake_hands;
use super::stop::Stop;
use super::thread::Thread;
use super::transmission::Connection;
use super::transport::Transport;
use crate::sockets::{prepare_tcp, prepare_unix};
use crate::tls::{ClientName, Principal, TlsPolicy};

/// A client on another machine that says nothing for so long is asked whether it is there, then again so often, so many
/// times. One whose machine or network is gone would keep its place, and an export's, for ever.
const SILENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(10);
const ASKED: u32 = 6;
/// Pause after a failed accept: mostly there are too many open files, and trying again at once only burns a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections get to notice that they were cut.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// A socket that takes connections.
pub(super) trait Listener: Send {
    /// Waits for a connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Transport, Principal)>> + Send;
}

impl Listener for UnixListener {
    async fn accept(&self) -> io::Result<(Transport, Principal)> {
        let (stream, _) = Self::accept(self).await?;
        prepare_unix(&stream);
        // It fails only for a client that is gone; nobody it is then.
        let user = stream.peer_cred().map(|peer| ClientName::uid(peer.uid()));
        Ok((stream.into(), user.into_iter().collect()))
    }
}

impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<(Transport, Principal)> {
        let (stream, _) = Self::accept(self).await?;
        prepare_tcp(&stream);
        // These fail only for a client that is gone.
        let _ = set_socket_keepalive(&stream, true);
        let _ = set_tcp_keepidle(&stream, SILENCE);
        let _ = set_tcp_keepintvl(&stream, ASK_AGAIN);
        let _ = set_tcp_keepcnt(&stream, ASKED);
        Ok((stream.into(), Principal::default()))
    }
}

/// Serves every connection of a listener until `shutdown`, then lets them finish.
pub(super) async fn serve<L: Listener>(
    server: Arc<Inner>,
    policy: TlsPolicy,
    listener: L,
    shutdown: CancellationToken,
) {
    let stop = Stop { drain: shutdown, cut: CancellationToken::new() };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.drain.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((transport, principal)) => {
                    let (server, policy) = (server.clone(), policy.clone());
                    connections.spawn(converse(server, policy, transport, principal, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all_ended = async |connections: &mut JoinSet<_>| {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(server.config.drain_timeout, all_ended(&mut connections)).await.is_err() {
        stop.cut.cancel();
        if timeout(CUT_GRACE, all_ended(&mut connections)).await.is_err() {
            tracing::warn!("a device has not answered all requests; leaving it alone with them");
        }
    }
}

/// Serves one connection from its first byte to its last.
pub(super) async fn converse(
    server: Arc<Inner>,
    policy: TlsPolicy,
    transport: Transport,
    principal: Principal,
    stop: Stop,
) -> Result<(), Closed> {
    let _seat = server.seats.clone().try_acquire_owned().map_err(|_| Closed::TooManyConnections)?;
    let handshake = shake_hands(&server, &policy, transport, principal);
    let handshake = timeout(server.config.handshake_timeout, handshake);
    let agreed = tokio::select! {
        biased;
        () = stop.drain.cancelled() => return Err(Closed::Cut),
        agreed = handshake => agreed.map_err(|_| Closed::HandshakeTimeout)??,
    };
    let Some((transport, agreed)) = agreed else { return Ok(()) };
    let served = &agreed.export.served;
    if transport.moves() && served.device.in_place().is_some() {
        match Thread::start(&served.export.name) {
            Ok(thread) => return thread.serve(server, transport, agreed, stop).await,
            // Slower, but served: it was told that it is.
            Err(error) => {
                tracing::warn!(%error, "no thread could be started for a connection; raise the limits");
            }
        }
    }
    Connection::new(server, transport, agreed).run(&stop).await
}

fn report(ended: Result<Result<(), Closed>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => tracing::debug!("a connection ended"),
        Ok(Err(closed)) => {
            tracing::info!(reason = oma_core::Error::from(closed).chain(), "a connection was closed");
        }
        Err(error) => tracing::error!(%error, "a connection's task failed"),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_client_whose_machine_is_gone_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (transport, _) = Listener::accept(&listener).await.unwrap();
        let Transport::Tcp(stream) = transport else { panic!("{transport:?}") };
        assert!(socket_keepalive(&stream).unwrap());
        let (idle, again) = (tcp_keepidle(&stream).unwrap(), tcp_keepintvl(&stream).unwrap());
        assert_eq!(idle + again * tcp_keepcnt(&stream).unwrap(), Duration::from_secs(120));
    }
}
