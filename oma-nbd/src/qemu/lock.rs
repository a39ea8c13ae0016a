use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::Failure;

/// The right to change a machine's block graph, for one process of this host at a time.
///
/// It is an abstract socket that nobody connects to: the kernel lets it go with the process, however that ends, and no file stays.
#[derive(Debug)]
pub(super) struct MachineLock(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl MachineLock {
    /// Waits for the lock of a machine.
    pub(super) async fn acquire(machine: &str, patience: Duration) -> Result<Self, Failure> {
        let name = format!("oma-qemu-{machine}");
        let address = SocketAddr::from_abstract_name(name).map_err(Failure::Lock)?;
        let end = Instant::now() + patience;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self(listener)),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(Failure::Lock(error)),
                Err(_) if Instant::now() >= end => return Err(Failure::Locked),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
