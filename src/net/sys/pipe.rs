//! pipe2(2), splice(2), pread(2). Must never hold state, decide anything, or know what a server is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::net::sys::{check, check_len};

/// pread(2) of a descriptor number that the caller owns.
pub(crate) fn pread(number: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the slice is valid for writes of its length; a number that is not open is EBADF.
    check_len(unsafe { libc::pread(number, buffer.as_mut_ptr().cast(), buffer.len(), offset) })
}

/// pipe2(2), non-blocking and close-on-exec. Returns the read end and the write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the array has room for the two numbers.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the kernel has just returned these numbers; they have no other owner.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// fcntl(F_SETPIPE_SZ): sets the capacity of a pipe, which the kernel rounds up.
pub(crate) fn set_pipe_size(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: no pointers are involved.
    check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
    Ok(())
}

/// splice(2), never waiting: moves up to `most` bytes between a pipe and another descriptor.
///
/// splice(2) has no flag against SIGPIPE, so all threads that call this block that signal.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    // SAFETY: no offsets are given; the numbers are open for the length of the call.
    check_len(unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            most,
            libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
        )
    })
}
