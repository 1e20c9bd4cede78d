//! A timer as a descriptor: timerfd_create(2). Must never block, nor be read: a poller that reports
//! edges learns of each expiry.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::fork::Listed;
use crate::net::sys;

/// A timer that an edge-triggered poller watches. It is exact, where the time-out of epoll_wait(2)
/// is rounded up to milliseconds.
pub(crate) struct TimerFd {
    // First, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    fd: OwnedFd,
    set_for: Option<Instant>,
}

impl TimerFd {
    /// A timer that is not set. Fails with EMFILE, ENFILE, ENOMEM, or where the call is refused.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = sys::timerfd()?;
        Ok(Self { _listed: Listed::new(&fd), fd, set_for: None })
    }

    /// Has the timer expire at `at`, and at no other time. Fails if the program has closed the
    /// descriptor.
    pub(crate) fn set(&mut self, at: Instant) -> io::Result<()> {
        if self.set_for != Some(at) {
            let left = at.saturating_duration_since(Instant::now());
            sys::set_timerfd(self.fd.as_fd(), left)?;
            self.set_for = Some(at);
        }
        Ok(())
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
