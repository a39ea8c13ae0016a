//! How sockets are set up, on either side.
//!
//! What is set here only makes them faster: where it is refused, they work without. It is refused by a peer that is gone
//! as well, which the next call on the socket tells.

use rustix::net::sockopt::{set_socket_send_buffer_size, set_tcp_congestion};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

/// What a unix socket is to hold, a few requests or replies: the kernel's usual 208 KiB are less than one of a copy. It gives
/// as much as the system allows.
const SEND_BUFFER: usize = 1 << 20;
/// What a TCP socket takes beyond what the peer has room for. The kernel would queue megabytes, which are out of every cache
/// when they are sent.
const UNSENT: u32 = 256 << 10;
/// Congestion controls for a peer on this machine, the first that may be used. Others, such as BBR, pace what they send by
/// timers, which is of no use without a network and costs a part of the rate.
const UNPACED: [&str; 2] = ["cubic", "reno"];

pub(crate) fn prepare_unix(stream: &UnixStream) {
    let _ = set_socket_send_buffer_size(stream, SEND_BUFFER);
}

pub(crate) fn prepare_tcp(stream: &TcpStream) {
    // A message must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
    if is_local(stream) {
        let _ = UNPACED.iter().any(|name| set_tcp_congestion(stream, name).is_ok());
    }
}

/// Whether the peer is on this machine.
fn is_local(stream: &TcpStream) -> bool {
    match (stream.peer_addr(), stream.local_addr()) {
        (Ok(peer), Ok(own)) => peer.ip() == own.ip() || peer.ip().to_canonical().is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_send_buffer_size, tcp_congestion, tcp_nodelay};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_to_this_machine_sends_at_once_and_without_pacing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare_tcp(&stream);
        assert!(tcp_nodelay(&stream).unwrap());
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT);
        let congestion = tcp_congestion(&stream).unwrap();
        assert!(UNPACED.contains(&congestion.as_str()), "{congestion}");
    }

    #[tokio::test]
    async fn a_unix_socket_holds_as_much_as_the_system_allows() {
        let (stream, other) = UnixStream::pair().unwrap();
        prepare_unix(&stream);
        set_socket_send_buffer_size(&other, usize::MAX >> 33).unwrap();
        let (held, most) =
            (socket_send_buffer_size(&stream).unwrap(), socket_send_buffer_size(&other).unwrap());
        // The kernel counts its own part as much again.
        assert_eq!(held, most.min(2 * SEND_BUFFER));
    }
}
