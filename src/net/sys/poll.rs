//! ppoll(2), eventfd(2), timerfd_create(2), edges by epoll(7). Must never hold state, decide
//! anything, or know what a server is.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::net::sys::{check, is_refused};

/// One descriptor of a `poll` call.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for input, its end, or an error.
    #[must_use]
    pub fn readable(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLIN)
    }

    /// Waits for input, urgent data, the peer's end, or an error.
    #[must_use]
    pub fn input(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLIN | libc::POLLPRI | libc::POLLRDHUP)
    }

    /// Waits for input, for an error, or for a shutdown of the socket by any of its owners.
    #[must_use]
    pub fn arrival(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLIN | libc::POLLRDHUP)
    }

    /// Waits for a shutdown of the socket by any of its owners, or for an error, but for no input.
    #[must_use]
    pub fn shutdown(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLRDHUP)
    }

    /// Waits until writing is possible, or for an error.
    #[must_use]
    pub fn writable(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLOUT)
    }

    fn new(fd: BorrowedFd<'_>, events: libc::c_short) -> Self {
        Self(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 })
    }

    /// An entry that `poll` ignores.
    #[must_use]
    pub fn unused() -> Self {
        Self(libc::pollfd { fd: -1, events: 0, revents: 0 })
    }

    /// An entry that `poll` reports as not open: no limit of descriptors reaches its number.
    #[must_use]
    pub fn invalid() -> Self {
        Self(libc::pollfd { fd: libc::c_int::MAX, events: 0, revents: 0 })
    }

    /// Whether the last `poll` for `input` found the end of the input and no error.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.0.revents & (libc::POLLRDHUP | libc::POLLERR) == libc::POLLRDHUP
    }

    /// Whether the last `poll` for `arrival` or `shutdown` found that the socket was shut down.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.0.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0
    }

    /// Whether the last `poll` found an error, which a read need not report.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.0.revents & libc::POLLERR != 0
    }

    /// Whether the last `poll` found that the descriptor is not open.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.0.revents & libc::POLLNVAL != 0
    }

    /// Whether the last `poll` reported any event.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// ppoll(2) until `deadline`. Returns the number of ready descriptors, 0 after the deadline. EINTR
/// is returned, not retried. Where ppoll(2) is not available, poll(2) waits, in whole milliseconds.
pub fn poll(fds: &mut [PollFd], deadline: Option<Instant>) -> io::Result<usize> {
    let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
    let pointer = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: PollFd is a transparent pollfd; the slice is valid for its length, and the timespec,
    // if present, outlives the call.
    let ready = check(unsafe {
        libc::ppoll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, pointer, std::ptr::null())
    });
    match ready {
        Err(error) if is_refused(&error) => poll_by_milliseconds(fds, deadline),
        ready => ready.map(|ready| ready as usize),
    }
}

#[cold]
fn poll_by_milliseconds(fds: &mut [PollFd], deadline: Option<Instant>) -> io::Result<usize> {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    // Rounded up, because a wait of 0 before the deadline would make the caller spin.
    let left = left.map_or(-1, |left| {
        libc::c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: PollFd is a transparent pollfd; the slice is valid for its length.
    let ready =
        check(unsafe { libc::poll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, left) })?;
    Ok(ready as usize)
}

pub(crate) fn timespec(duration: Duration) -> libc::timespec {
    // The types of the fields differ between targets; this many seconds, 68 years, fit in all.
    let seconds = i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    libc::timespec { tv_sec: seconds as _, tv_nsec: duration.subsec_nanos() as _ }
}

/// Calls timerfd_create(2) for the clock that counts from the start of the system.
pub(crate) fn timerfd() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Calls timerfd_settime(2): it expires once, after this time. No time is the shortest.
pub(crate) fn set_timerfd(fd: BorrowedFd<'_>, after: Duration) -> io::Result<()> {
    // A time of 0 would disarm it.
    let after = after.max(Duration::from_nanos(1));
    let value =
        Timespec::try_from(after).unwrap_or(Timespec { tv_sec: i32::MAX.into(), tv_nsec: 0 });
    let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
    let spec = Itimerspec { it_interval: interval, it_value: value };
    timerfd_settime(fd, TimerfdTimerFlags::empty(), &spec)?;
    Ok(())
}

/// eventfd(2), non-blocking and close-on-exec.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// An epoll(7) instance that is readable from each arrival of input at `fd` until `take_edge`, also
/// where input was there before. Fails with EMFILE and similar errors.
pub(crate) fn watch_edges(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&watch, fd, epoll::EventData::new_u64(0), flags)?;
    Ok(watch)
}

/// Whether input has arrived at what `watch_edges` watches since the last call. Never blocks.
pub(crate) fn take_edge(watch: BorrowedFd<'_>) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut event = [MaybeUninit::uninit()];
    let (found, _) = epoll::wait(watch, &mut event, Some(&now))?;
    Ok(!found.is_empty())
}
