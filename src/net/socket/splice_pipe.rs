//! Pipes that carry bytes between two sockets inside the kernel: pipe(2), splice(2). Owns their
//! number and size; must never decide when a pipe is worth its cost.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::net::sys;

/// Requested capacity of a pipe, in bytes: what a connection moves in one turn. Measured with
/// messages of 1 MiB: the system's 64 KiB takes a third longer, 1 MiB is no faster.
pub(crate) const CAPACITY: usize = 256 * 1024;
/// Maximum number of idle pipes per worker.
const KEPT: usize = 8;
/// Requests that return None after a pipe could not be opened, before the next attempt.
const SKIPPED: u32 = 256;

/// The number of pipes of a server, with its limit.
#[derive(Debug, Default)]
pub(crate) struct PipeAllowance {
    most: AtomicUsize,
    open: AtomicUsize,
}

impl PipeAllowance {
    /// Sets the limit. Called before the first worker is started.
    pub(crate) fn set(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    fn take(&self) -> bool {
        let most = self.most.load(Relaxed);
        let more = |open| (open < most).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// A pipe with its contents.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: File,
    write: OwnedFd,
    held: usize,
    allowance: Arc<PipeAllowance>,
}

impl Pipe {
    /// Bytes in the pipe.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `most` bytes from a socket's receive queue into the pipe. EAGAIN if the queue is
    /// empty or the pipe is full.
    pub(crate) fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = sys::splice(from, self.write.as_fd(), most)?;
        self.held += count;
        Ok(count)
    }

    /// Moves the contents of the pipe into a socket's send queue. EAGAIN if the queue is full.
    pub(crate) fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let count = sys::splice(self.read.as_fd(), to, self.held)?;
        self.held -= count;
        Ok(count)
    }

    /// Takes the bytes out by read(2), where splice(2) is not available.
    pub(crate) fn into_bytes(self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        // They are all in the pipe, so the read does not wait.
        (&self.read).read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.allowance.give_back();
    }
}

/// The idle pipes of one worker.
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
    allowance: Arc<PipeAllowance>,
    skip: u32,
    /// splice(2) is not available here.
    given_up: bool,
}

impl Pipes {
    pub(crate) fn new(allowance: Arc<PipeAllowance>) -> Self {
        Self { idle: Vec::new(), allowance, skip: 0, given_up: false }
    }

    /// Hands out no pipe any more: splice(2) is not available here, and bytes must be copied.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
        self.idle.clear();
    }

    /// An empty pipe; None if the limit is reached, no descriptor is free or splice(2) is not
    /// available, and the bytes must be copied.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.given_up || self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return None;
        }
        if !self.allowance.take() {
            self.skip = SKIPPED;
            return None;
        }
        let Ok((read, write)) = sys::pipe() else {
            // EMFILE or ENFILE: connections have priority for descriptors. Or not available here.
            self.allowance.give_back();
            self.skip = SKIPPED;
            return None;
        };
        // EPERM if the user's pipes have reached their limit: the pipe keeps its default size.
        let _ = sys::set_pipe_size(write.as_fd(), CAPACITY);
        Some(Pipe { read: read.into(), write, held: 0, allowance: Arc::clone(&self.allowance) })
    }

    /// Returns a pipe. A pipe with bytes in it is closed.
    pub(crate) fn give(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.idle.len() < KEPT && !self.given_up {
            self.idle.push(pipe);
        }
    }
}
