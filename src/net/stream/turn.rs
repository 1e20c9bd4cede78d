//! The order of threads that send frames on one stream. Owns whose turn it is; must never block but
//! in `wait`.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Instant;

use crate::net::base::{Condvar, Mutex};

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turn {
    taken: Mutex<Option<ThreadId>>,
    left: Condvar,
}

/// The answer to a claim.
pub(super) enum Claim {
    Taken(TurnGuard),
    /// It is this thread's already: a signal handler has interrupted it.
    Own,
    /// It is another thread's.
    Other,
}

/// The turn of one call.
pub(super) struct TurnGuard(Arc<Turn>);

impl Turn {
    /// Takes the turn, if no thread has it.
    pub(super) fn claim(self: &Arc<Self>) -> Claim {
        let me = thread::current().id();
        let mut taken = self.taken.lock();
        match *taken {
            None => {
                *taken = Some(me);
                Claim::Taken(TurnGuard(Arc::clone(self)))
            }
            Some(owner) if owner == me => Claim::Own,
            Some(_) => Claim::Other,
        }
    }

    /// Waits until no thread has it, at most until the deadline.
    pub(super) fn wait(&self, deadline: Instant) {
        let taken = self.taken.lock();
        if taken.is_some() {
            drop(self.left.wait(taken, Some(deadline)));
        }
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        *self.0.taken.lock() = None;
        self.0.left.notify_one();
    }
}
