//! pipe2(2), splice(2), pread(2). Must never hold state, decide anything, or know what a server is.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::net::sys::check_len;

/// pread(2) of a descriptor number that the caller owns.
pub(crate) fn pread(number: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the slice is valid for writes of its length; a number that is not open is EBADF.
    check_len(unsafe { libc::pread(number, buffer.as_mut_ptr().cast(), buffer.len(), offset) })
}

/// pipe2(2), non-blocking and close-on-exec. Returns the read end and the write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// fcntl(F_SETPIPE_SZ): sets the capacity of a pipe, which the kernel rounds up.
pub(crate) fn set_pipe_size(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    rustix::pipe::fcntl_setpipe_size(pipe, bytes)?;
    Ok(())
}

/// splice(2), never waiting: moves up to `most` bytes between a pipe and another descriptor.
///
/// splice(2) has no flag against SIGPIPE, so all threads that call this block that signal.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(from, None, to, None, most, flags)?)
}
