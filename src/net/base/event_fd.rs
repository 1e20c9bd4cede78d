//! The event flag: eventfd(2) as a descriptor that is either set or clear. Must never block.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::fork::Listed;
use crate::net::sys;

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
        self.note(io::Write::write(&mut self.file(), &1u64.to_ne_bytes()))
    }

    /// Clears the flag. False if the program has closed the descriptor. Never blocks.
    pub fn clear(&self) -> bool {
        // EAGAIN: it was already clear.
        self.note(io::Read::read(&mut self.file(), &mut [0; 8]))
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

    /// Whether the number is still that of an event flag. The program may have given it to another file, with
    /// dup2(2): setting the flag then writes there. One system call, for the end of a server only.
    pub(crate) fn is_intact(&self) -> bool {
        static KIND: OnceLock<(u64, u64)> = OnceLock::new();
        let kind = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
        // All flags of a system have the inode of anonymous files.
        let of_flags = *KIND.get_or_init(|| {
            let flag = sys::eventfd().map(File::from);
            flag.and_then(|flag| kind(&flag)).unwrap_or((0, 0))
        });
        let is_intact =
            of_flags == (0, 0) || kind(self.file()).is_ok_and(|found| found == of_flags);
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
        if self.is_lost() {
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
