//! When a call gives up. Must never read the clock before a call has to wait.

use std::time::{Duration, Instant};

/// When a call gives up: its time-out, counted from when it first has to wait.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) timeout: Option<Duration>,
    pub(crate) at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, at: None }
    }

    /// Reads the clock the first time it is asked.
    pub(crate) fn at(&mut self) -> Option<Instant> {
        if self.at.is_none() {
            self.at = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        }
        self.at
    }
}
