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
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (51u16, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (52u16, key, iv),
            _ => return None,
        };
        let (salt, iv) = iv.as_ref().split_at_checked(4)?;
        let iv = u64::from_be_bytes(iv.try_into().ok()?);
        let (version, iv) = match version {
            ProtocolVersion::TLSv1_2 => (0x0303u16, unused(iv, sequence)),
            ProtocolVersion::TLSv1_3 => (0x0304, iv),
            _ => return None,
        };
        let begin = [version.to_ne_bytes(), cipher.to_ne_bytes()].concat();
        let (iv, sequence) = (iv.to_be_bytes(), sequence.to_be_bytes());
        Some(Self([&begin[..], &iv, key.as_ref(), salt, &sequence].concat()))
    }
}

/// The nonce from which the kernel may count on, in TLS 1.2: one that is used twice gives the key away.
///
/// The kernel adds one for each record. rustls gave the record `n` the nonce `first ^ n`, which is never more than `first + n`:
/// all of `sequence` records are below what this returns.
const fn unused(first: u64, sequence: u64) -> u64 {
    first.wrapping_add(sequence)
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

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    fn keys(version: ProtocolVersion, first: u64, sequence: u64) -> Vec<u8> {
        let mut iv = [7; 12];
        iv[4..].copy_from_slice(&first.to_be_bytes());
        let (key, iv) = (AeadKey::from([9; 32]), Iv::from(iv));
        Keys::new(version, &ConnectionTrafficSecrets::Aes256Gcm { key, iv }, sequence).unwrap().0
    }

    #[test]
    fn keys_are_laid_out_as_the_kernel_wants_them() {
        let laid_out = keys(ProtocolVersion::TLSv1_3, 0x0102_0304_0506_0708, 5);
        let expected: [&[u8]; 6] = [
            &0x0304u16.to_ne_bytes(),
            &52u16.to_ne_bytes(),
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[9; 32],
            &[7; 4],
            &[0, 0, 0, 0, 0, 0, 0, 5],
        ];
        assert_eq!(laid_out, expected.concat());
    }

    #[test]
    fn the_kernel_uses_no_nonce_of_tls_1_2_that_was_used_before() {
        for first in [0, 1, 2, 5, 0xfffe, u64::MAX - 3, u64::MAX] {
            for sequence in 1..300 {
                let begins: [u8; 8] =
                    keys(ProtocolVersion::TLSv1_2, first, sequence)[4..12].try_into().unwrap();
                let begins = u64::from_be_bytes(begins);
                let used: Vec<_> = (0..sequence).map(|number| first ^ number).collect();
                let next = (0..300).map(|number| begins.wrapping_add(number));
                assert!(next.into_iter().all(|nonce| !used.contains(&nonce)), "{first} {sequence}");
            }
        }
    }
}
