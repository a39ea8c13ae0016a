//! What the kernel tells everybody about devices: its own uevents, not those that udev sends on (`man 7 netlink`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with};

/// The group to which the kernel itself speaks.
const KERNEL: u32 = 1;
/// More than a uevent has (`UEVENT_BUFFER_SIZE` is 2048).
const MESSAGE: usize = 8 << 10;
/// What a uevent of a block device says.
const BLOCK: &[u8] = b"SUBSYSTEM=block\0";

/// Listens from now on, without waiting.
pub(crate) fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(netlink::KOBJECT_UEVENT);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, KERNEL))?;
    Ok(socket)
}

/// Takes the next message: whether it is of a block device. `AGAIN` when there is none yet, `NOBUFS` when there were too many to keep.
pub(crate) fn take(socket: impl AsFd) -> Result<bool, Errno> {
    let mut message = [0; MESSAGE];
    let (length, _) = recv(socket, &mut message, RecvFlags::DONTWAIT)?;
    Ok(message[..length].windows(BLOCK.len()).any(|part| part == BLOCK))
}
