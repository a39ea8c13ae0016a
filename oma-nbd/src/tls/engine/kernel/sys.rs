//! The system calls of kTLS. No library we use has them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

/// Which way keys are for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Out,
    In,
}

/// A message of TLS that is no data.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) kind: u8,
    pub(super) length: usize,
}

/// Keys as the kernel takes them: `struct tls12_crypto_info_aes_gcm_…` of linux/tls.h.
pub(super) struct Keys(Vec<u8>);

impl Keys {
    /// `None` for a cipher or version that the kernel has not, or has not had for long.
    pub(super) fn new(
        version: ProtocolVersion,
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
    ) -> Option<Self> {
        let version: u16 = match version {
            ProtocolVersion::TLSv1_2 => 0x0303,
            ProtocolVersion::TLSv1_3 => 0x0304,
            _ => return None,
        };
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (51u16, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (52u16, key, iv),
            _ => return None,
        };
        let (salt, iv) = iv.as_ref().split_at_checked(4)?;
        let begin = [version.to_ne_bytes(), cipher.to_ne_bytes()].concat();
        Some(Self([&begin, iv, key.as_ref(), salt, &sequence.to_be_bytes()].concat()))
    }
}

/// Gives a socket to the kernel's TLS; until it has keys it works as before.
pub(super) fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_TCP, libc::TCP_ULP, b"tls")
}

pub(super) fn set_keys(socket: BorrowedFd<'_>, way: Way, keys: &Keys) -> io::Result<()> {
    let option = match way {
        Way::Out => libc::TLS_TX,
        Way::In => libc::TLS_RX,
    };
    set(socket, libc::SOL_TLS, option, &keys.0)
}

fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    #[allow(unsafe_code, reason = "no library we use has these options")]
    // SAFETY: the descriptor is borrowed, so it is open; the kernel reads `length` bytes of `value`, which outlives the call.
    let answer =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Room for one control message of one byte, aligned as its header must be.
#[repr(align(8))]
struct Room([u8; 24]);

/// Sends a message of TLS that is no data.
pub(super) fn send_control(socket: BorrowedFd<'_>, kind: u8, message: &[u8]) -> io::Result<()> {
    let mut room = Room([0; 24]);
    #[allow(unsafe_code, reason = "no library we use makes this control message")]
    // SAFETY: `header` is all zero, which is a valid `msghdr`, and points to `part` and `room`, which outlive the call. The
    // room has the alignment of a `cmsghdr` and the 24 bytes that CMSG_SPACE(1) is, so the first header and its one byte of
    // data lie inside. The kernel only reads `message`.
    let sent = unsafe {
        let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = room.0.as_mut_ptr().cast();
        header.msg_controllen = room.0.len();
        let control = libc::CMSG_FIRSTHDR(&raw const header);
        (*control).cmsg_level = libc::SOL_TLS;
        (*control).cmsg_type = libc::TLS_SET_RECORD_TYPE;
        (*control).cmsg_len = 17;
        *libc::CMSG_DATA(control) = kind;
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives the message of TLS that is next, which is no data.
pub(super) fn receive_control(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Control> {
    let mut room = Room([0; 24]);
    #[allow(unsafe_code, reason = "no library we use takes this control message apart")]
    // SAFETY: as in `send_control`; the kernel writes at most `buffer.len()` bytes to `buffer` and at most 24 to `room`, and
    // says in `msg_controllen` how many, so that CMSG_FIRSTHDR gives a header inside of it or null.
    let (received, kind) = unsafe {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = room.0.as_mut_ptr().cast();
        header.msg_controllen = room.0.len();
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT);
        let control = libc::CMSG_FIRSTHDR(&raw const header);
        let is_kind = !control.is_null()
            && (*control).cmsg_level == libc::SOL_TLS
            && (*control).cmsg_type == libc::TLS_GET_RECORD_TYPE;
        (received, is_kind.then(|| *libc::CMSG_DATA(control)))
    };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let kind = kind.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Control { kind, length })
}
