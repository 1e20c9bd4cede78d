//! An idle thread of the pool. Must never hold its lock while it runs a job.

use std::time::Instant;

use crate::net::base::lock::{Condvar, Mutex};
use crate::net::handoff::job::Job;

/// Where one idle thread of the pool waits.
#[derive(Default)]
pub(crate) struct ParkedThread {
    slot: Mutex<Option<Assignment>>,
    given: Condvar,
}

/// What a thread of the pool is told.
pub(crate) enum Assignment {
    Take(Job),
    Leave,
}

impl ParkedThread {
    pub(super) fn give(&self, offer: Assignment) {
        *self.slot.lock() = Some(offer);
        self.given.notify_one();
    }

    /// Waits for an offer; None after the deadline.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Option<Assignment> {
        let mut slot = self.slot.lock();
        loop {
            if let Some(offer) = slot.take() {
                return Some(offer);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return None;
            }
            slot = self.given.wait(slot, deadline);
        }
    }
}
