//! The wait of a blocking call. Must never know what it waits for, nor use a time-out where a
//! descriptor can report the event.

use std::io;
use std::time::Instant;

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
