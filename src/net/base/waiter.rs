//! How a blocking call waits. Must never know what it waits for, nor use a time-out where a
//! descriptor can tell.

use std::io;
use std::time::Instant;

use crate::net::error::{Error, Result};
use crate::net::sys::{self, PollFd};

/// How a blocking call of the engine waits. Python's calls wait with the interpreter released and
/// look for signals; Rust's own just poll.
pub trait Waiter {
    /// Blocks until a descriptor is ready (true) or the deadline has passed (false).
    ///
    /// `Error::Interrupted` means that the caller must give up and tell its own caller; the waiter
    /// keeps the reason. A signal that asks for nothing is not an interruption.
    fn wait(&mut self, fds: &mut [PollFd], deadline: Option<Instant>) -> Result<bool>;

    /// Called between the parts of a call that may go on for long without ever having to wait: looks
    /// for signals, and lets others have the interpreter, now and then.
    fn breathe(&mut self) -> Result<()> {
        Ok(())
    }

    /// Runs what may block for a moment, though not for a descriptor, as joining a thread does.
    fn release(&mut self, block: &mut (dyn FnMut() + Send)) {
        block();
    }

    /// Whether a call may wait in the kernel, by the operation itself inside of `release`: where nobody
    /// has to be heard but whoever ends the connection.
    fn may_block(&self) -> bool {
        false
    }

    /// Whether it pays to retry for a moment before waiting (see `stream::Spin`).
    fn may_spin(&self) -> bool {
        false
    }
}

/// Waits on plain Rust threads: polls, retries EINTR.
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
