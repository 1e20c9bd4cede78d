//! The event flag: eventfd(2) as a descriptor that is either set or clear. Must never block.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::fork::Listed;
use crate::net::sys;

/// An eventfd(2) as a flag that can be polled like any other descriptor.
pub struct EventFd {
    // Before the file, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    file: std::fs::File,
}

impl EventFd {
    /// A flag that is not set. Fails with EMFILE, ENFILE or ENOMEM.
    pub fn new() -> io::Result<Self> {
        let fd = sys::eventfd()?;
        Ok(Self { _listed: Listed::new(&fd), file: fd.into() })
    }

    /// Sets the flag, which wakes every thread that polls it. Never blocks.
    pub fn set(&self) {
        // EAGAIN would mean that 2^64 - 2 settings are pending, so the flag is set.
        let _ = io::Write::write(&mut &self.file, &1u64.to_ne_bytes());
    }

    /// Clears the flag. Never blocks.
    pub fn clear(&self) {
        // EAGAIN: it was already clear.
        let _ = io::Read::read(&mut &self.file, &mut [0; 8]);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
