//! One idle thread of the pool. Owns the place where it waits for a job; must never hold its lock
//! while a job runs.

use std::time::Instant;

use super::handed_out::JobId;
use super::job::Job;
use crate::net::base::{Condvar, Mutex};

/// One idle thread of the pool.
#[derive(Default)]
pub(super) struct ParkedThread {
    slot: Mutex<Option<Assignment>>,
    assigned: Condvar,
}

/// What a thread of the pool does next.
pub(super) enum Assignment {
    Work(JobId, Job),
    Exit,
}

impl ParkedThread {
    pub(super) fn assign(&self, assignment: Assignment) {
        *self.slot.lock() = Some(assignment);
        self.assigned.notify_one();
    }

    /// Blocks until an assignment arrives. None after the deadline.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Option<Assignment> {
        let mut slot = self.slot.lock();
        loop {
            if let Some(assignment) = slot.take() {
                return Some(assignment);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return None;
            }
            slot = self.assigned.wait(slot, deadline);
        }
    }
}
