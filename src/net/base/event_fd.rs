//! The event flag: eventfd(2) as a descriptor that is either set or clear. Must never block.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::fork::Listed;
use crate::net::sys::{self, PollFd};

/// An eventfd(2) as a flag that can be polled like any other descriptor.
pub struct EventFd {
    // Before the file, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    /// Some until the drop.
    file: Option<File>,
    /// The number is not that of the flag any more: the program has closed it.
    is_lost: AtomicBool,
}

impl EventFd {
    /// A flag that is not set. Fails with EMFILE, ENFILE or ENOMEM.
    pub fn new() -> io::Result<Self> {
        let fd = sys::eventfd()?;
        let listed = Listed::new(&fd);
        Ok(Self { _listed: listed, file: Some(fd.into()), is_lost: AtomicBool::new(false) })
    }

    /// Sets the flag, which wakes every thread that polls it. False if the program has closed the
    /// descriptor: no thread is woken. Never blocks.
    pub fn set(&self) -> bool {
        // EAGAIN would mean that 2^64 - 2 settings are pending, so the flag is set.
        self.is_intact() && self.note(io::Write::write(&mut self.file(), &1u64.to_ne_bytes()))
    }

    /// Clears the flag. False if the program has closed the descriptor. Never blocks.
    pub fn clear(&self) -> bool {
        // EAGAIN: it was already clear.
        self.is_intact() && self.note(io::Read::read(&mut self.file(), &mut [0; 8]))
    }

    /// The entry of a poll that waits for the flag. Invalid once a closed descriptor was noticed: a
    /// poll does not look at the file that has the number by then.
    #[must_use]
    pub fn polled(&self) -> PollFd {
        if self.is_lost() { PollFd::invalid() } else { PollFd::readable(self.as_fd()) }
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("there until the drop")
    }

    fn note(&self, result: io::Result<usize>) -> bool {
        let is_ours = match result {
            Ok(length) => length == 8,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if !is_ours {
            self.lose();
        }
        is_ours
    }

    /// Whether the number is still that of an event flag. The program may have closed it, and the
    /// number may be that of another file, which must not be written, read or closed. One system
    /// call; none once the loss was noticed.
    pub(crate) fn is_intact(&self) -> bool {
        static KIND: OnceLock<Option<(u64, u64)>> = OnceLock::new();
        let kind = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
        if self.is_lost() {
            return false;
        }
        // All flags of a system have the inode of anonymous files. None if a filter refuses the
        // call, or if no descriptor is free; the latter is tried again.
        let of_flags = KIND.get().copied().or_else(|| {
            let flag = File::from(sys::eventfd().ok()?);
            Some(*KIND.get_or_init(|| kind(&flag).ok()))
        });
        let is_intact = match (of_flags.flatten(), kind(self.file())) {
            (Some(of_flags), Ok(found)) => found == of_flags,
            (_, Err(error)) => error.raw_os_error() != Some(libc::EBADF),
            (None, Ok(_)) => true,
        };
        if !is_intact {
            self.lose();
        }
        is_intact
    }

    /// Notes that the descriptor is closed, as a poll has found. The number is not used again.
    pub(crate) fn lose(&self) {
        self.is_lost.store(true, Relaxed);
    }

    /// Whether the program has closed the descriptor, as far as that was noticed.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // A number that the program has closed may be that of another file by now.
        if !self.is_intact() {
            self.file.take().map(IntoRawFd::into_raw_fd);
        }
    }
}

impl std::fmt::Debug for EventFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventFd")
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file().as_fd()
    }
}
