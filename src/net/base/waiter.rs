//! The wait of a blocking call. Must never know what it waits for, nor use a time-out where a
//! descriptor can report the event.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::net::error::{Error, Result};
use crate::net::sys::{self, PollFd};

/// The wait of the engine's blocking calls. Python's calls release the interpreter while they wait
/// and check for signals; Rust's calls only poll.
pub trait Waiter {
    /// Blocks until a descriptor is ready (true) or the deadline has passed (false).
    ///
    /// `Error::Interrupted` means that the caller must stop and return that error to its own
    /// caller; the waiter keeps the reason. A signal without a Python exception is not an
    /// interruption.
    ///
    /// A signal handler may fork. In the child the call returns true with nothing ready, and the
    /// caller checks whose object it waits with before it takes a lock or uses an event flag.
    fn wait(&mut self, fds: &mut [PollFd], deadline: Option<Instant>) -> Result<bool>;

    /// Called between the steps of a call that may run for long without waiting. Checks for signals
    /// and lets other threads have the interpreter, both from time to time.
    fn breathe(&mut self) -> Result<()> {
        Ok(())
    }

    /// Runs `block`, which may block for a short time on something other than a descriptor, such as
    /// joining a thread.
    fn release(&mut self, block: &mut (dyn FnMut() + Send)) {
        block();
    }

    /// Whether a call may wait in the kernel, by a blocking operation inside `release`: nothing but
    /// the end of the connection has to wake it.
    fn may_block(&self) -> bool {
        false
    }

    /// Whether retrying for a short time before waiting saves time (see `stream::Spin`).
    fn may_spin(&self) -> bool {
        false
    }
}

/// The longest single wait of a call for a flag. A program that closes descriptors which are not
/// its own takes the flag away without waking the call.
const BACKSTOP: Duration = Duration::from_secs(1);
/// How long a thread sleeps where its poll would return at once, because a descriptor is not open.
const CLOSED: Duration = Duration::from_millis(5);

/// Waits in a call from outside for descriptors of the engine: true if the caller must look again,
/// false after the deadline. True after a second at the latest, because a number that the program
/// has given to another file is never ready. EBADF if the program has closed one of them.
pub(crate) fn wait_for_own(
    waiter: &mut dyn Waiter,
    fds: &mut [PollFd],
    deadline: Option<Instant>,
) -> Result<bool> {
    let backstop = Instant::now() + BACKSTOP;
    let until = deadline.map_or(backstop, |deadline| deadline.min(backstop));
    let ready = waiter.wait(fds, Some(until))?;
    if ready && fds.iter().any(PollFd::is_invalid) {
        return Err(Error::errno("poll", "", libc::EBADF));
    }
    Ok(ready || deadline.is_none_or(|deadline| Instant::now() < deadline))
}

/// Waits for `interval`, at most until the deadline. False after the deadline.
pub(crate) fn pause(
    waiter: &mut dyn Waiter,
    interval: Duration,
    deadline: Option<Instant>,
) -> Result<bool> {
    let soon = Instant::now() + interval;
    let until = deadline.map_or(soon, |deadline| deadline.min(soon));
    waiter.wait(&mut [], Some(until))?;
    Ok(deadline.is_none_or(|deadline| until < deadline))
}

/// Waits on a thread of the engine: true if a descriptor is ready, false after the deadline. EINTR
/// counts as ready, so that the caller checks everything. EBADF if the program has closed one of
/// the descriptors.
pub(crate) fn poll_own(fds: &mut [PollFd], deadline: Option<Instant>) -> io::Result<bool> {
    match sys::poll(fds, deadline) {
        Ok(_) if fds.iter().any(PollFd::is_invalid) => {
            Err(io::Error::from_raw_os_error(libc::EBADF))
        }
        Ok(ready) => Ok(ready > 0),
        Err(_) => Ok(true),
    }
}

/// The same where nothing can be done about a descriptor that is closed: the thread then sleeps,
/// and checks everything from time to time.
pub(crate) fn poll_or_sleep(fds: &mut [PollFd], deadline: Option<Instant>) -> bool {
    poll_own(fds, deadline).unwrap_or_else(|_| {
        let soon = Instant::now() + CLOSED;
        thread::sleep(deadline.unwrap_or(soon).min(soon).saturating_duration_since(Instant::now()));
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    })
}

/// Waits on plain Rust threads: polls, and retries on EINTR.
pub struct Plain;

impl Waiter for Plain {
    fn wait(&mut self, fds: &mut [PollFd], deadline: Option<Instant>) -> Result<bool> {
        loop {
            match sys::poll(fds, deadline) {
                Ok(ready) => return Ok(ready > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::os("poll", "", &error)),
            }
        }
    }
}
