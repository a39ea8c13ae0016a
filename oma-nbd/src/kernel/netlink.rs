//! The kernel's NBD client, told by generic netlink. All calls block.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, sendto, socket_with,
};

use super::error::Failure;
use super::message::{Garbled, Message, Request, attribute, messages, u16_at, u32_at};

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NBD_CMD_CONNECT: u8 = 1;
const NBD_CMD_DISCONNECT: u8 = 2;
const NBD_ATTR_INDEX: u16 = 1;
const NBD_ATTR_SIZE_BYTES: u16 = 2;
const NBD_ATTR_BLOCK_SIZE_BYTES: u16 = 3;
const NBD_ATTR_TIMEOUT: u16 = 4;
const NBD_ATTR_SERVER_FLAGS: u16 = 5;
const NBD_ATTR_SOCKETS: u16 = 7;
const NBD_ATTR_DEAD_CONN_TIMEOUT: u16 = 8;
const NBD_ATTR_BACKEND_IDENTIFIER: u16 = 10;
const NBD_SOCK_ITEM: u16 = 1;
const NBD_SOCK_FD: u16 = 1;

/// Time for the kernel to answer; it waits for requests that are under way when it disconnects.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the kernel is to attach.
#[derive(Debug)]
pub(super) struct Connect<'a> {
    pub(super) sockets: &'a [OwnedFd],
    pub(super) size: u64,
    pub(super) block_size: u32,
    /// Transmission flags.
    pub(super) flags: u16,
    /// Seconds that a request may take.
    pub(super) timeout: u64,
    /// Seconds that requests wait for a new connection when all are gone.
    pub(super) dead_timeout: u64,
    pub(super) identifier: &'a str,
}

/// A socket to the family `nbd`.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    family: u16,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, Failure> {
        let told = |error: Errno| Failure::Netlink(error.into());
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::GENERIC),
        )
        .map_err(told)?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 0)).map_err(told)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(told)?;
        let mut netlink = Self { socket, family: GENL_ID_CTRL };
        let ask = Request::new(GENL_ID_CTRL, CTRL_CMD_GETFAMILY).text(CTRL_ATTR_FAMILY_NAME, "nbd");
        let found = netlink.ask(ask, |attributes| {
            attribute(attributes, CTRL_ATTR_FAMILY_ID)?.map(|id| u16_at(id, 0)).transpose()
        });
        match found {
            Ok(Some(family)) => netlink.family = family,
            Ok(None) => return Err(Failure::NoModule),
            Err(Failure::Netlink(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::NoModule);
            }
            Err(failure) => return Err(failure),
        }
        Ok(netlink)
    }

    /// Attaches a device that nobody uses, a new one if need be; which, the kernel tells.
    pub(super) fn connect(&self, connect: &Connect<'_>) -> Result<u32, Failure> {
        let request = Request::new(self.family, NBD_CMD_CONNECT)
            .u64(NBD_ATTR_SIZE_BYTES, connect.size)
            .u64(NBD_ATTR_BLOCK_SIZE_BYTES, connect.block_size.into())
            .u64(NBD_ATTR_TIMEOUT, connect.timeout)
            .u64(NBD_ATTR_DEAD_CONN_TIMEOUT, connect.dead_timeout)
            .u64(NBD_ATTR_SERVER_FLAGS, connect.flags.into())
            .text(NBD_ATTR_BACKEND_IDENTIFIER, connect.identifier)
            .nested(NBD_ATTR_SOCKETS, |list| {
                connect.sockets.iter().fold(list, |list, socket| {
                    let number = u32::try_from(socket.as_raw_fd()).expect("an open socket has a number");
                    list.nested(NBD_SOCK_ITEM, |item| item.u32(NBD_SOCK_FD, number))
                })
            });
        let index = self.ask(request, |attributes| {
            attribute(attributes, NBD_ATTR_INDEX)?.map(|index| u32_at(index, 0)).transpose()
        });
        index?.ok_or(Failure::Garbled(Garbled))
    }

    /// Detaches a device: requests that are under way fail, nothing more is sent.
    pub(super) fn disconnect(&self, index: u32) -> Result<(), Failure> {
        let request = Request::new(self.family, NBD_CMD_DISCONNECT).u32(NBD_ATTR_INDEX, index);
        self.ask(request, |_| Ok(None::<()>)).map(drop)
    }

    /// Sends a request and takes the answer up to its end; what `read` finds in its parts.
    fn ask<T>(
        &self,
        request: Request,
        read: impl Fn(&[u8]) -> Result<Option<T>, Garbled>,
    ) -> Result<Option<T>, Failure> {
        let told = |error: Errno| Failure::Netlink(error.into());
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &request.finish(), SendFlags::empty(), &kernel).map_err(told)?;
        let (mut buffer, mut found) = (vec![0; 16 << 10], None);
        loop {
            let (count, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty()).map_err(told)?;
            for message in messages(&buffer[..count]).map_err(Failure::Garbled)? {
                match message {
                    Message::Part(attributes) => {
                        let more = read(attributes).map_err(Failure::Garbled)?;
                        found = found.or(more);
                    }
                    Message::End(0) => return Ok(found),
                    Message::End(errno) => return Err(Failure::Netlink(io::Error::from_raw_os_error(errno))),
                }
            }
        }
    }
}
