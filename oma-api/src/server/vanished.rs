//! Clients whose machine is gone without a word.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;

/// A connection on which nothing comes is looked after so often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// So often in vain, and the client is gone.
const TRIES: u32 = 3;
/// What was sent, a heartbeat say, is not acknowledged for so long: the client is gone. Without it Linux waits for a quarter of an hour
/// (`tcp_retries2`), and so long a volume that such a client had open would stay locked.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Has connections that are accepted from now on end within a minute once the client's machine has vanished. On Linux they inherit what is
/// set on the socket that listens.
pub(super) fn notice_vanished(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(TRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn connections_inherit_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        notice_vanished(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
    }
}
