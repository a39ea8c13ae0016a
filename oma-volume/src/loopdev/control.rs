//! What the kernel's loop driver is told (`man 4 loop`). All calls block.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use libc::c_int;
use linux_raw_sys::loop_device::{
    LO_NAME_SIZE, LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LOOP_GET_STATUS64, LOOP_SET_CAPACITY,
    LOOP_SET_STATUS64, loop_config, loop_info64,
};
use rustix::io::Errno;

/// Where free devices are asked for.
pub(super) const PATH: &str = "/dev/loop-control";
/// `LO_FLAGS_AUTOCLEAR` and `LO_FLAGS_DIRECT_IO` of linux/loop.h.
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// What a loop device is made of.
#[derive(Debug)]
pub(super) struct Status(loop_info64);

/// Whether a device is to go around the page cache of its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Io {
    Direct,
    Buffered,
}

impl Status {
    #[cfg(test)]
    pub(super) fn made(mark: &str, offset: u64) -> Self {
        let mut info = nothing();
        info.lo_offset = offset;
        info.lo_file_name[..mark.len()].copy_from_slice(mark.as_bytes());
        Self(info)
    }

    /// Device number and inode of its image.
    pub(super) fn image(&self) -> (u64, u64) {
        (self.0.lo_device, self.0.lo_inode)
    }

    /// The name that its maker gave it.
    pub(super) fn mark(&self) -> &[u8] {
        let name = &self.0.lo_file_name[..];
        name.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Whether it is all of its image.
    pub(super) fn is_whole(&self) -> bool {
        (self.0.lo_offset, self.0.lo_sizelimit) == (0, 0)
    }

    /// Whether it goes as soon as nobody has it open.
    pub(super) fn is_leaving(&self) -> bool {
        self.0.lo_flags & AUTOCLEAR != 0
    }

    pub(super) fn io(&self) -> Io {
        if self.0.lo_flags & DIRECT_IO == 0 { Io::Buffered } else { Io::Direct }
    }
}

/// The mark as it fits, with the byte that ends it.
pub(super) fn fitted(mark: &str) -> &[u8] {
    let most = usize::try_from(LO_NAME_SIZE).map_or(0, |size| size - 1);
    &mark.as_bytes()[..mark.len().min(most)]
}

/// The number of a device that nobody uses, made if there is none. Somebody else may get the same.
pub(super) fn free(control: &File) -> io::Result<u32> {
    let number = call(control, LOOP_CTL_GET_FREE, std::ptr::null_mut::<u8>())?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Makes a free device of all of an image, in one step. It keeps the open file, and with it the locks of that.
pub(super) fn configure(device: &File, image: &File, mark: &str, io: Io) -> io::Result<()> {
    let mut info = nothing();
    info.lo_flags = if io == Io::Direct { DIRECT_IO } else { 0 };
    let mark = fitted(mark);
    info.lo_file_name[..mark.len()].copy_from_slice(mark);
    let fd = u32::try_from(image.as_raw_fd()).map_err(io::Error::other)?;
    let mut config = loop_config { fd, block_size: 0, info, __reserved: [0; 8] };
    call(device, LOOP_CONFIGURE, &raw mut config).map(|_| ())
}

/// `None` for a device that nothing is made of.
pub(super) fn status(device: &File) -> io::Result<Option<Status>> {
    let mut info = nothing();
    match call(device, LOOP_GET_STATUS64, &raw mut info) {
        Ok(_) => Ok(Some(Status(info))),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes a device apart once nobody has it open.
pub(super) fn clear(device: &File) -> io::Result<()> {
    call(device, LOOP_CLR_FD, std::ptr::null_mut::<u8>()).map(|_| ())
}

/// Takes [`clear`] back while somebody has it open.
pub(super) fn keep(device: &File, status: &Status) -> io::Result<()> {
    let mut info = status.0;
    info.lo_flags &= !AUTOCLEAR;
    call(device, LOOP_SET_STATUS64, &raw mut info).map(|_| ())
}

/// Gives a device the size that its image has now.
pub(super) fn measure(device: &File) -> io::Result<()> {
    call(device, LOOP_SET_CAPACITY, std::ptr::null_mut::<u8>()).map(|_| ())
}

fn nothing() -> loop_info64 {
    loop_info64 {
        lo_device: 0,
        lo_inode: 0,
        lo_rdevice: 0,
        lo_offset: 0,
        lo_sizelimit: 0,
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: 0,
        lo_file_name: [0; 64],
        lo_crypt_name: [0; 64],
        lo_encrypt_key: [0; 32],
        lo_init: [0; 2],
    }
}

/// `argument` is what the request takes: a structure of it, or null for one that takes none.
fn call<T>(file: &File, request: u32, argument: *mut T) -> io::Result<c_int> {
    #[allow(unsafe_code, reason = "no library we use has calls for loop devices, only their structures")]
    // SAFETY: the descriptor is open as long as `file` lives. Every caller in this file hands over null, which these requests do not
    // look at, or a structure of the kernel's own layout for the request, which is exclusively borrowed and outlives the call.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request.into(), argument) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
