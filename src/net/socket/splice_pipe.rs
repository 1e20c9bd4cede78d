//! Pipes that bytes go through on their way from one socket to another without coming to us: pipe(2),
//! splice(2). Owns their number and size; must never decide when one is worth its cost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::net::sys;

/// Bytes that a pipe is asked to hold: what a connection moves in a turn. Measured for 1 MiB messages: with the
/// system's 64 KiB a third more time, with 1 MiB none less.
pub(crate) const CAPACITY: usize = 256 * 1024;
/// Idle pipes that a worker keeps.
const KEPT: usize = 8;
/// So many askers go without one after a pipe could not be made, before the next one tries.
const SKIPPED: u32 = 256;

/// How many pipes a server may have, and has.
#[derive(Debug, Default)]
pub(crate) struct PipeAllowance {
    most: AtomicUsize,
    open: AtomicUsize,
}

impl PipeAllowance {
    /// Set before there is a worker.
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

/// A pipe with what is in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    allowance: Arc<PipeAllowance>,
}

impl Pipe {
    /// Bytes in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `most` bytes of a socket's receive queue in. EAGAIN says that there
    /// are none, or that there is no room.
    pub(crate) fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = sys::splice(from, self.write.as_fd(), most)?;
        self.held += count;
        Ok(count)
    }

    /// Moves what is in it into a socket's send queue. EAGAIN says that there is no room.
    pub(crate) fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let count = sys::splice(self.read.as_fd(), to, self.held)?;
        self.held -= count;
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.allowance.give_back();
    }
}

/// One worker's idle pipes.
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
    allowance: Arc<PipeAllowance>,
    skip: u32,
}

impl Pipes {
    pub(crate) fn new(allowance: Arc<PipeAllowance>) -> Self {
        Self { idle: Vec::new(), allowance, skip: 0 }
    }

    /// An empty pipe; None where there may be no more, and bytes are better copied.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if !self.allowance.take() {
            self.skip = SKIPPED;
            return None;
        }
        let Ok((read, write)) = sys::pipe() else {
            // EMFILE and ENFILE: descriptors are for connections first.
            self.allowance.give_back();
            self.skip = SKIPPED;
            return None;
        };
        // EPERM where the user's pipes have taken up what they may: it works with what it has.
        let _ = sys::set_pipe_size(write.as_fd(), CAPACITY);
        Some(Pipe { read, write, held: 0, allowance: Arc::clone(&self.allowance) })
    }

    /// Takes a pipe back; one with bytes in it is closed.
    pub(crate) fn give(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.idle.len() < KEPT {
            self.idle.push(pipe);
        }
    }
}
